package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// chaosRounds is how often the node is killed; make chaos runs 30 and more.
func chaosRounds(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv("AUTOGLM_CHAOS_ROUNDS"))
	if err != nil {
		return 4
	}
	t.Logf("%d rounds", n)
	return n
}

// built finds a program that make built, two folders up.
func built(t *testing.T, name string) string {
	t.Helper()
	p, err := filepath.Abs(filepath.Join("..", "..", "bin", name))
	require.NoError(t, err)
	_, err = os.Stat(p)
	require.NoError(t, err, "run: make build")
	return p
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// victim is a node as a child process, to be killed.
type victim struct {
	t    *testing.T
	bin  string
	dir  string
	url  string
	args []string
	cmd  *exec.Cmd
	log  *os.File
}

func (v *victim) start() {
	v.t.Helper()
	v.cmd = exec.Command(v.bin, v.args...)
	v.cmd.Stdout, v.cmd.Stderr = v.log, v.log
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(v.t, v.cmd.Start())
	deadline := time.Now().Add(60 * time.Second)
	for {
		res, err := http.Get(v.url + "/readyz")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(v.log.Name())
			v.t.Fatalf("the node is not ready: %v\n%s", err, tail(log, 4000))
		}
		time.Sleep(20 * time.Millisecond) // polls another process
	}
}

func (v *victim) kill() {
	v.t.Helper()
	require.NoError(v.t, v.cmd.Process.Kill())
	_ = v.cmd.Wait() // "signal: killed"
}

// workers returns the pids of the node's engine children.
func (v *victim) workers() (pids []int) {
	procs, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(v.t, err)
	for _, p := range procs {
		b, err := os.ReadFile(p)
		if err != nil {
			continue // ended meanwhile
		}
		s := string(b)
		f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
		if len(f) > 1 && f[1] == strconv.Itoa(v.cmd.Process.Pid) && strings.Contains(s, "(glm-worker") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(p)))
			require.NoError(v.t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// view is what a client saw of a task.
type view struct {
	State   string `json:"state"`
	Version uint64 `json:"version"`
	Answer  string `json:"answer"`
}

func (s view) final() bool {
	return s.State == "completed" || s.State == "failed" || s.State == "cancelled"
}

// ledger holds what clients were told, and checks each new word against it.
type ledger struct {
	mu    sync.Mutex
	acked []string
	seen  map[string]view
}

func (l *ledger) ack(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = append(l.acked, id)
}

func (l *ledger) any() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.acked) == 0 {
		return ""
	}
	return l.acked[rand.IntN(len(l.acked))]
}

// look fails when a task went backwards: I3 and I5.
func (l *ledger) look(id string, now view) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.seen[id]
	if now.Version < old.Version {
		return fmt.Errorf("task %s went back from version %d to %d", id, old.Version, now.Version)
	}
	if old.final() && (now.State != old.State || now.Answer != old.Answer) {
		return fmt.Errorf("task %s was %+v and is %+v", id, old, now)
	}
	l.seen[id] = now
	return nil
}

// TestKillTheNode kills the node, and sometimes a worker, at random moments under load.
// Every acknowledged task then ends once, and nobody ever saw one go backwards.
func TestKillTheNode(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes for half a minute")
	}
	dir := t.TempDir()
	log, err := os.Create(filepath.Join(dir, "node.log"))
	require.NoError(t, err)
	defer log.Close()
	port := freePort(t)
	built(t, "glm-worker")
	v := &victim{t: t, bin: built(t, "autoglm"), dir: dir, url: fmt.Sprintf("http://127.0.0.1:%d", port), log: log}
	v.args = []string{"serve", "--data-dir", filepath.Join(dir, "data"), "--http", fmt.Sprintf("127.0.0.1:%d", port), "--engine", "embedded"}
	v.start()
	t.Cleanup(func() { _ = v.cmd.Process.Kill(); _ = v.cmd.Wait() })

	l := &ledger{seen: map[string]view{}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	fail := make(chan error, 64)
	run := uint32(time.Now().UnixNano())
	for c := range 4 {
		wg.Go(func() { submitLoop(ctx, v.url, fmt.Sprintf("c%d-%x", c, run), l, fail) })
	}
	for range 2 {
		wg.Go(func() { readLoop(ctx, v.url, l, fail) })
	}

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for round := range chaosRounds(t) {
		if w := v.workers(); round%2 == 1 && len(w) > 0 {
			_ = syscall.Kill(w[r.IntN(len(w))], syscall.SIGKILL) // may have ended already
		}
		select { // a random moment under load
		case <-time.After(time.Duration(100+r.IntN(1500)) * time.Millisecond):
		case err := <-fail:
			t.Fatal(err)
		}
		v.kill()
		v.start()
	}
	cancel()
	wg.Wait()
	select {
	case err := <-fail:
		t.Fatal(err)
	default:
	}
	require.NotEmpty(t, l.acked)
	counts := allEnd(t, v.url, l)
	t.Logf("%d acknowledged tasks: %v", len(l.acked), counts)
}

// submitLoop submits one task after another. What was answered 2xx is acknowledged;
// what was not is sent again under the same id until it is answered.
func submitLoop(ctx context.Context, url, name string, l *ledger, fail chan<- error) {
	for i := 0; ctx.Err() == nil; i++ {
		id := fmt.Sprintf("%s-%d", name, i)
		body, _ := json.Marshal(map[string]any{"task_id": id, "prompt": fmt.Sprintf("Normalise the phone number to E.164: 555-%03d-%04d", i%1000, i), "max_tokens": 16})
		for ctx.Err() == nil {
			res, err := http.Post(url+"/v1/tasks", "application/json", bytes.NewReader(body))
			if err != nil {
				time.Sleep(5 * time.Millisecond) // the node is down: ask again
				continue
			}
			msg, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode == http.StatusCreated || res.StatusCode == http.StatusOK {
				l.ack(id)
				break
			}
			if res.StatusCode < 500 && res.StatusCode != http.StatusTooManyRequests {
				fail <- fmt.Errorf("submit %s: %s: %s", id, res.Status, msg)
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func readLoop(ctx context.Context, url string, l *ledger, fail chan<- error) {
	for ctx.Err() == nil {
		id := l.any()
		if id == "" {
			time.Sleep(time.Millisecond)
			continue
		}
		s, err := getTask(url, id)
		if err != nil {
			time.Sleep(5 * time.Millisecond) // the node is down
			continue
		}
		if err := l.look(id, s); err != nil {
			fail <- err
			return
		}
	}
}

var errGone = fmt.Errorf("an acknowledged task is gone")

func getTask(url, id string) (v view, err error) {
	res, err := http.Get(url + "/v1/tasks/" + id)
	if err != nil {
		return v, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return v, errGone
	}
	if res.StatusCode != http.StatusOK {
		return v, fmt.Errorf("%s", res.Status)
	}
	return v, json.NewDecoder(res.Body).Decode(&v)
}

// allEnd waits for every acknowledged task, then reads each history: one end, one
// recorded result, versions that grow by one.
func allEnd(t *testing.T, url string, l *ledger) map[string]int {
	counts := map[string]int{}
	deadline := time.Now().Add(3 * time.Minute)
	for _, id := range l.acked {
		for {
			s, err := getTask(url, id)
			require.NoError(t, err, id)
			require.NoError(t, l.look(id, s))
			if s.final() {
				counts[s.State]++
				break
			}
			require.True(t, time.Now().Before(deadline), "task %s is still %s", id, s.State)
			time.Sleep(10 * time.Millisecond) // polls another process
		}
		ends, answers, n := history(t, url, id)
		require.Equal(t, 1, ends, "task %s ended %d times", id, ends)
		require.LessOrEqual(t, answers, 1, "task %s has two recorded results", id)
		require.EqualValues(t, l.seen[id].Version, n, "one version a fact")
	}
	return counts
}

func history(t *testing.T, url, id string) (ends, answers, n int) {
	res, err := http.Get(url + "/v1/tasks/" + id + "/events")
	require.NoError(t, err)
	defer res.Body.Close()
	var h struct {
		Events []struct {
			Event string `json:"event"`
		} `json:"events"`
	}
	require.NoError(t, json.NewDecoder(bufio.NewReader(res.Body)).Decode(&h))
	for _, e := range h.Events {
		switch e.Event {
		case "answered":
			answers++
			ends++
		case "refused", "expired", "cancel_asked":
			ends++
		}
	}
	return ends, answers, len(h.Events)
}
