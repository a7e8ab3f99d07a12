package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/node/api/apitest"
)

// TestMain makes this test program a node when it is started as one, so that the benchmarks measure a real process.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		if err := serve(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// fakeNode keeps its tasks in a file, so that they survive a kill, and runs those that may start.
type fakeNode struct {
	*apitest.Fake
	mu     sync.Mutex
	file   *os.File
	engine infer.Engine // nil: echo
	queue  chan *task.Spec
}

func serve(args []string) error {
	f := flag.NewFlagSet("serve", flag.ContinueOnError)
	dir, addr := f.String("data-dir", "", ""), f.String("http", "", "")
	engine, level := f.String("engine", "", ""), f.String("log-level", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *level != "warn" || *engine == "broken" {
		return fmt.Errorf("no node with level %q and engine %q", *level, *engine)
	}
	n := &fakeNode{Fake: apitest.New(), queue: make(chan *task.Spec, 1<<20)}
	if *engine != "echo" {
		h, err := infer.NewHTTP(infer.HTTPOptions{URL: *engine, Concurrency: urlSlots})
		if err != nil {
			return err
		}
		n.engine = h
	}
	if err := n.open(*dir); err != nil {
		return err
	}
	for range urlSlots {
		go n.work()
	}
	s, err := api.New(n, api.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	srv := &http.Server{Handler: s.Handler()}
	go func() {
		<-term
		_ = srv.Close()
	}()
	if err := srv.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func (n *fakeNode) open(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var err error
	if n.file, err = os.OpenFile(filepath.Join(dir, "tasks.jsonl"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600); err != nil {
		return err
	}
	in := bufio.NewScanner(n.file)
	for in.Scan() {
		s := &task.Spec{}
		if err := json.Unmarshal(in.Bytes(), s); err != nil {
			return err
		}
		n.Fake.Submit(context.Background(), []*task.Spec{s})
	}
	return in.Err()
}

// Submit writes first, then tells.
func (n *fakeNode) Submit(ctx context.Context, specs []*task.Spec) []api.Submitted {
	n.mu.Lock()
	defer n.mu.Unlock()
	var rows []byte
	for _, s := range specs {
		b, _ := json.Marshal(s) // it came as JSON
		rows = append(append(rows, b...), '\n')
	}
	out := make([]api.Submitted, len(specs))
	if _, err := n.file.Write(rows); err != nil {
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	out = n.Fake.Submit(ctx, specs)
	for i, s := range specs {
		if out[i].Err == nil && !out[i].Existed && s.NotBefore == nil {
			n.queue <- s
		}
	}
	return out
}

func (n *fakeNode) work() {
	for s := range n.queue {
		n.Claim(s.ID)
		if n.engine != nil {
			r := &infer.Request{Model: "fixed", Messages: []infer.Message{{Role: "user", Content: s.Prompt}}}
			if _, err := n.engine.Do(context.Background(), r); err != nil {
				n.Refuse(s.ID, err.Error())
				continue
			}
		}
		n.Answer(s.ID, s.Prompt)
	}
}
