package infer

import (
	"bufio"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// watchTimeout ends a test that would hang; nothing is expected to take that long.
const watchTimeout = 60 * time.Second

// poolTest is a pool of fake workers with every state they went through.
type poolTest struct {
	*Pool
	t    *testing.T
	dir  string
	seen chan ChildStatus // every change, in order; a test reads all of them
	said chan string      // the workers' lines
	mu   sync.Mutex
	pids []int
}

func newPoolTest(t *testing.T, mode string, change func(*PoolOptions)) *poolTest {
	t.Helper()
	x := &poolTest{t: t, dir: t.TempDir(), seen: make(chan ChildStatus, 10_000), said: make(chan string, 10_000)}
	o := fakeOptions(x.dir, mode)
	o.Notify = func(s ChildStatus) {
		if s.PID != 0 {
			x.mu.Lock()
			x.pids = append(x.pids, s.PID)
			x.mu.Unlock()
		}
		x.seen <- s
	}
	o.Log = slog.New(saidHandler{slog.DiscardHandler, x.said})
	if change != nil {
		change(&o)
	}
	p, err := NewPool(o)
	require.NoError(t, err)
	x.Pool = p
	t.Cleanup(x.end)
	return x
}

// saidHandler picks the workers' own lines out of the log.
type saidHandler struct {
	slog.Handler
	said chan string
}

func (h saidHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h saidHandler) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "line" {
			h.said <- a.Value.String()
		}
		return true
	})
	return nil
}

// end stops the pool twice and checks that no process that ever ran is left.
func (x *poolTest) end() {
	x.Stop()
	x.Stop()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, pid := range x.pids {
		require.ErrorIs(x.t, syscall.Kill(pid, 0), syscall.ESRCH, "process %d lives", pid)
	}
	for _, s := range x.Status() {
		require.Equal(x.t, ChildStopped, s.State)
		require.Zero(x.t, s.PID)
	}
	require.NoDirExists(x.t, x.tempDir)
}

// until reads changes up to the first in that state.
func (x *poolTest) until(state ChildState) ChildStatus {
	x.t.Helper()
	timeout := time.After(watchTimeout)
	for {
		select {
		case s := <-x.seen:
			if s.State == state {
				return s
			}
		case <-timeout:
			x.t.Fatalf("never %v: %+v", state, x.Status())
		}
	}
}

func (x *poolTest) touch(name string) {
	require.NoError(x.t, os.WriteFile(filepath.Join(x.dir, name), nil, 0o600))
}

func (x *poolTest) hears(line string) {
	x.t.Helper()
	timeout := time.After(watchTimeout)
	for {
		select {
		case s := <-x.said:
			if s == line {
				return
			}
		case <-timeout:
			x.t.Fatalf("never heard %q", line)
		}
	}
}

func TestPoolServes(t *testing.T) {
	x := newPoolTest(t, "ok", func(o *PoolOptions) { o.Workers, o.ModelID = 2, "tiny" })
	for i, e := range x.Engines() {
		_, err := e.Do(t.Context(), ask("x"))
		require.Equal(t, fault.Unavailable, fault.KindOf(err), "not started")
		require.Equal(t, []string{"embedded-0", "embedded-1"}[i], e.Name())
	}
	x.Start()
	x.Start()
	require.NoError(t, x.WaitReady(t.Context(), 99))
	for _, c := range x.Children() {
		require.NoError(t, c.Health(t.Context()))
		models, err := c.Models(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"tiny"}, models)
		r, err := c.Do(t.Context(), ask("x"))
		require.NoError(t, err)
		require.Equal(t, "hi", r.Text)
		require.Equal(t, "tiny", r.Model)
		require.Equal(t, 16, c.Slots())
		_, err = c.CountTokens(t.Context(), "tiny", nil)
		require.Equal(t, fault.NotFound, fault.KindOf(err))
	}
	x.Stop()
	for _, s := range x.Status() {
		require.Equal(t, "exit status 0", s.LastExit, "SIGTERM drains")
		require.Contains(t, s.Stderr, "draining")
		require.Zero(t, s.Restarts)
	}
	err := x.WaitReady(t.Context(), 1)
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.ErrorContains(t, err, "0 of 2 workers are ready; embedded-0 is stopped")
	x.Start() // after Stop: nothing
}

func TestPoolRestartsACrashedWorker(t *testing.T) {
	x := newPoolTest(t, "crash-once", nil)
	x.Start()
	s := x.until(ChildBackingOff)
	require.Contains(t, s.LastExit, "signal: killed, not by this node: where the kernel's log says that memory ran out")
	require.Zero(t, s.PID)
	s = x.until(ChildReady)
	require.Equal(t, 1, s.Restarts)
	_, err := x.Engines()[0].Do(t.Context(), ask("x"))
	require.NoError(t, err)
}

func TestPoolGoesOnWithAWorkerThatAlwaysCrashes(t *testing.T) {
	x := newPoolTest(t, "crash", nil)
	x.Start()
	for i := range 5 {
		s := x.until(ChildBackingOff)
		require.Equal(t, "exit status 3", s.LastExit)
		require.Equal(t, i, s.Restarts)
		require.Contains(t, s.Stderr, "GGML_ASSERT(false) failed")
	}
	_, err := x.Engines()[0].Do(t.Context(), ask("x"))
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorContains(t, x.WaitReady(ctx, 1), "exit status 3")
}

func TestPoolRetriesARefusalSlowly(t *testing.T) {
	x := newPoolTest(t, "refuse", func(o *PoolOptions) { o.Backoff.Max = time.Hour })
	x.Start()
	s := x.until(ChildBackingOff)
	require.Equal(t, "exit status 2", s.LastExit)
	x.Stop() // and an hour of backing off does not hold up Stop
	require.Zero(t, x.Status()[0].Restarts)
}

func TestPoolWaitsForASlowStart(t *testing.T) {
	x := newPoolTest(t, "slow", nil)
	x.Start()
	x.until(ChildStarting)
	_, err := x.Engines()[0].Do(t.Context(), ask("x"))
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.ErrorContains(t, err, "the worker is starting")
	x.touch("loaded")
	require.Zero(t, x.until(ChildReady).Restarts)
}

func TestPoolKillsAWorkerThatIsNeverHealthy(t *testing.T) {
	x := newPoolTest(t, "never", func(o *PoolOptions) { o.LoadTimeout = 50 * time.Millisecond })
	x.Start()
	for range 2 {
		s := x.until(ChildBackingOff)
		require.Contains(t, s.LastExit, "not healthy within load_timeout = 50ms")
		require.Contains(t, s.LastExit, "signal: killed")
	}
}

func TestPoolKillsAWorkerThatHangs(t *testing.T) {
	x := newPoolTest(t, "ok", func(o *PoolOptions) { o.HangAfter = 500 * time.Millisecond })
	x.Start()
	first := x.until(ChildReady)
	require.NoError(t, syscall.Kill(first.PID, syscall.SIGSTOP))
	// A slow machine may find the start too slow as well; what counts is that it hung at some time.
	s := x.until(ChildBackingOff)
	require.Contains(t, s.LastExit, "no good probe for hang_after = 500ms")
	require.NotEqual(t, first.PID, x.until(ChildReady).PID)
}

func TestPoolTellsOfAWorkerKilledDuringRequests(t *testing.T) {
	x := newPoolTest(t, "stuck", nil)
	x.Start()
	s := x.until(ChildReady)
	const n = 5
	errs := make(chan error, n)
	for range n {
		go func() {
			_, err := x.Engines()[0].Do(t.Context(), ask("x"))
			errs <- err
		}()
	}
	x.hears("got 5")
	require.NoError(t, syscall.Kill(s.PID, syscall.SIGKILL))
	for range n {
		require.Equal(t, fault.Unavailable, fault.KindOf(<-errs))
	}
	require.Contains(t, x.until(ChildBackingOff).LastExit, "signal: killed, not by this node")
	x.until(ChildReady)
}

func TestPoolDrainsRequestsOnStop(t *testing.T) {
	x := newPoolTest(t, "stuck", nil)
	x.Start()
	x.until(ChildReady)
	answered := make(chan error, 1)
	go func() {
		_, err := x.Engines()[0].Do(t.Context(), ask("x"))
		answered <- err
	}()
	x.hears("got 1")
	x.Stop()
	require.NoError(t, <-answered, "SIGTERM lets a request finish")
}

func TestPoolKillsWhatIgnoresSIGTERM(t *testing.T) {
	x := newPoolTest(t, "deaf", func(o *PoolOptions) { o.StopTimeout = 20 * time.Millisecond })
	x.Start()
	x.until(ChildReady)
	x.Stop()
	require.Equal(t, "signal: killed", x.Status()[0].LastExit)
}

func TestPoolStopsWhileStarting(t *testing.T) {
	for _, wait := range []func(*poolTest){func(*poolTest) {}, func(x *poolTest) { x.until(ChildStarting) }} {
		x := newPoolTest(t, "slow", func(o *PoolOptions) { o.Workers = 3 })
		x.Start()
		wait(x)
		var stops sync.WaitGroup
		for range 3 {
			stops.Go(x.Stop)
		}
		stops.Wait()
	}
}

func TestPoolStoppedBeforeStart(t *testing.T) {
	x := newPoolTest(t, "ok", nil)
	x.Stop()
	x.Start()
	require.Equal(t, ChildStopped, x.Status()[0].State)
}

// A node killed by SIGKILL leaves no worker behind.
func TestWorkerDiesWithItsParent(t *testing.T) {
	for _, mode := range []string{"parent", "parent-command"} {
		t.Run(mode, func(t *testing.T) { diesWithItsParent(t, mode) })
	}
}

func diesWithItsParent(t *testing.T, mode string) {
	dir := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	parent := exec.Command(self)
	parent.Env = append(os.Environ(), fakeEnv+"="+mode, fakeDir+"="+dir, "TMPDIR="+dir)
	out, err := parent.StdoutPipe()
	require.NoError(t, err)
	parent.Stderr = os.Stderr
	require.NoError(t, parent.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(line, "ready "), line)
	require.NoError(t, parent.Process.Kill())
	parent.Wait()
	allGone(t, dir)
}

// allGone waits until no process of the fake worker lives that began in dir.
func allGone(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "alive"))
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX), "the lock comes free when the worker is gone")
}

func TestNewPoolRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		change func(*PoolOptions)
		kind   fault.Kind
		text   string
	}{
		"no binary":         {func(o *PoolOptions) { o.Binary = filepath.Join(dir, "glm-worker") }, fault.NotFound, "make build"},
		"none beside us":    {func(o *PoolOptions) { o.Binary = "" }, fault.NotFound, "make build"},
		"not executable":    {func(o *PoolOptions) { o.Binary = o.Model }, fault.NotFound, "is not executable"},
		"a folder":          {func(o *PoolOptions) { o.Binary = dir }, fault.NotFound, "no regular file"},
		"no model":          {func(o *PoolOptions) { o.Model = filepath.Join(dir, "none.gguf") }, fault.NotFound, "name a GGUF file"},
		"model unnamed":     {func(o *PoolOptions) { o.Model = "" }, fault.NotFound, "none is named"},
		"too many":          {func(o *PoolOptions) { o.Workers = WorkersMax + 1 }, fault.Invalid, "workers is 65"},
		"negative slots":    {func(o *PoolOptions) { o.Slots = -1 }, fault.Invalid, "slots -1"},
		"hang before probe": {func(o *PoolOptions) { o.HangAfter = 1 }, fault.Invalid, "hang"},
		"backoff":           {func(o *PoolOptions) { o.Backoff.Max = 1 }, fault.Invalid, "backoff"},
		"long path":         {func(o *PoolOptions) { o.SocketDir = filepath.Join(dir, strings.Repeat("x", 100)) }, fault.Invalid, "kernel's limit is 107"},
		"dir is a file":     {func(o *PoolOptions) { o.SocketDir = o.Model }, fault.Invalid, "short directory"},
	} {
		t.Run(name, func(t *testing.T) {
			o := fakeOptions(dir, "ok")
			c.change(&o)
			_, err := NewPool(o)
			require.Equal(t, c.kind, fault.KindOf(err), "%v", err)
			require.ErrorContains(t, err, c.text)
		})
	}
}

func TestWorkerNamesPreferTheFastest(t *testing.T) {
	require.Equal(t, []string{"glm-worker-v3", "glm-worker", "glm-worker-v1"}, workerNames(true))
	require.NotContains(t, workerNames(false), "glm-worker-v3")
}

func TestLineTailIsBounded(t *testing.T) {
	var lines []string
	l := newLineTail(func(s string) { lines = append(lines, s) })
	l.Write([]byte("one\ntw"))
	l.Write([]byte("o\n\n"))
	l.Write([]byte(strings.Repeat("x", 3*lineMax)))
	l.Write([]byte("yy\nlast\xff"))
	require.Equal(t, []string{"one", "two", strings.Repeat("x", lineMax)}, lines)
	require.Equal(t, "one\ntwo\n"+strings.Repeat("x", lineMax)+"\nlast", l.String())
	for range 1000 {
		l.Write([]byte("0123456789\n"))
	}
	require.LessOrEqual(t, len(l.String()), stderrKept)
	require.Equal(t, "last?0123456789", lines[3], "invalid bytes are marked")
}

func TestChildStateNames(t *testing.T) {
	for s := range numChildStates {
		require.NotEmpty(t, s.String())
	}
	require.Equal(t, "state(200)", ChildState(200).String())
}
