package dev

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// fakeEnv makes this test binary another program: a node of the named mode, or "supervisor".
const fakeEnv = "DEV_TEST_FAKE"

func TestMain(m *testing.M) {
	switch mode := os.Getenv(fakeEnv); mode {
	case "":
		goleak.VerifyTestMain(m)
	case "supervisor":
		supervise(os.Args[1])
	default:
		fakeNode(mode)
	}
}

// fakeNode serves /readyz, and at /args the arguments it got.
func fakeNode(mode string) {
	f := flag.NewFlagSet("serve", flag.ExitOnError)
	addr := f.String("http", "", "")
	for _, name := range []string{"data-dir", "identity", "cluster-listen", "join", "set", "bootstrap-expect", "engine"} {
		f.String(name, "", "")
	}
	_ = f.Parse(os.Args[2:])
	fmt.Fprintln(os.Stderr, "I am", mode)
	if mode == "broken" {
		os.Exit(3)
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	http.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if mode == "never" {
			http.Error(w, "no majority", http.StatusServiceUnavailable)
		}
	})
	http.HandleFunc("/args", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(os.Args[1:]) })
	http.HandleFunc("/hold", func(w http.ResponseWriter, r *http.Request) { // until either side is gone
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	go func() {
		fmt.Fprintln(os.Stderr, http.ListenAndServe(*addr, nil))
		os.Exit(4)
	}()
	for range term {
		if mode != "stubborn" {
			os.Exit(0)
		}
	}
}

// supervise runs a cluster until it is killed.
func supervise(dir string) {
	c, err := Open(options(dir, 2, nil))
	if err == nil {
		err = c.Start(context.Background())
	}
	fmt.Println("ready", err)
	select {}
}

// options are those of a cluster of fake nodes; modes maps a node's name to what it is, "good" without.
func options(dir string, nodes int, modes map[string]string) Options {
	return Options{Dir: dir, Nodes: nodes, HTTPPort: 0, ClusterPort: 0, Args: []string{"--engine", "echo"}, StopMax: 20 * time.Second,
		Command: func(name string, args []string) *exec.Cmd {
			mode := "good"
			if m, ok := modes[name]; ok {
				mode = m
			}
			cmd := exec.Command(os.Args[0], args...)
			cmd.Env = append(os.Environ(), fakeEnv+"="+mode)
			return cmd
		}}
}

// words collects what the supervisor says.
type words struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *words) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(b)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

func open(t *testing.T, o Options) (*Cluster, *words) {
	t.Helper()
	w := &words{}
	o.Log = w
	c, err := Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close(context.Background()) })
	return c, w
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func argsOf(t *testing.T, n Node) string {
	t.Helper()
	res, err := http.Get(n.URL + "/args")
	require.NoError(t, err)
	defer res.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	var args []string
	require.NoError(t, json.NewDecoder(res.Body).Decode(&args))
	return strings.Join(args, " ")
}

func requireKind(t *testing.T, want fault.Kind, err error, contains ...string) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, want, fault.KindOf(err), "%v", err)
	for _, s := range contains {
		require.ErrorContains(t, err, s)
	}
}
