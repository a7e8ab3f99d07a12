package infer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// ChildState is where a worker stands.
type ChildState uint8

const (
	ChildStopped    ChildState = iota // not started yet, or stopped for good
	ChildStarting                     // the process runs, its model loads
	ChildReady                        // it answers
	ChildBackingOff                   // it ended; the next start waits
	ChildStopping                     // it drains after SIGTERM
	numChildStates
)

var childStateNames = [numChildStates]string{"stopped", "starting", "ready", "backing off", "stopping"}

// String returns the name used in logs and metrics.
func (s ChildState) String() string {
	if s >= numChildStates {
		return fmt.Sprintf("state(%d)", uint8(s))
	}
	return childStateNames[s]
}

// ChildStatus is a copy of what is known of one worker.
type ChildStatus struct {
	Name     string
	State    ChildState
	PID      int       // 0 while no process runs
	Since    time.Time // when State began
	Restarts int       // starts after the first
	LastExit string    // how it ended last, with a signal's name; empty before
	Stderr   string    // the last stderrKept bytes it wrote
	Limits   string    // which are in force, by which means, and which are not; empty: it has none
}

// exitRefused is the code of a glm-worker that would fail the same way again: a bad flag or a
// damaged model. It is tried again, but only at the longest interval.
const exitRefused = 2

// Child is one worker process, as an Engine.
type Child struct {
	pool   *Pool
	http   *HTTP
	socket string
	at     atomic.Pointer[place] // where it listens now; nil: nowhere yet
	tail   *lineTail

	mu       sync.Mutex
	status   ChildStatus
	ends     int // that nobody asked for
	failures int // ends in a row; 0 again once a run was ready for longer than Backoff.Max
}

func newChild(p *Pool, name, socket string) (*Child, error) {
	c := &Child{pool: p, socket: socket, status: ChildStatus{Name: name, Since: time.Now()}}
	o := HTTPOptions{Name: name, URL: "unix://" + socket, Models: p.models(), Concurrency: p.o.Slots + 1, DialTimeout: time.Second, Timeout: p.o.Timeout}
	level := slog.LevelInfo // a glm-worker says little
	if p.o.Command != nil {
		o.URL, o.dial, level = "http://localhost", c.dial, slog.LevelDebug
	}
	var err error
	if c.http, err = NewHTTP(o); err != nil {
		return nil, err
	}
	c.tail = newLineTail(func(line string) {
		p.o.Log.Log(context.Background(), level, "worker says", "worker", name, "line", line)
	})
	return c, nil
}

// Name is the pool's and the worker's number: "embedded-0".
func (c *Child) Name() string { return c.http.Name() }

// Slots is how many answers the worker makes at once: the concurrency to start from.
func (c *Child) Slots() int { return c.pool.o.Slots }

// Models returns the model's id, also while the worker loads: it is known before.
func (c *Child) Models(ctx context.Context) ([]string, error) { return c.http.Models(ctx) }

// Known is its model, where that has a name before it is asked.
func (c *Child) Known() []string { return c.http.Known() }

// Do asks the worker. While it is not ready the answer is Unavailable, at once.
func (c *Child) Do(ctx context.Context, r *Request) (*Response, error) {
	if err := c.unready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	ends := c.ends
	c.mu.Unlock()
	res, err := c.http.Do(ctx, r)
	if brokeOff(err) {
		if exit := c.exitAfter(ctx, ends); exit != "" {
			return nil, fault.New(fault.Unavailable, "infer.child", "", "its process ended during the request: %s", exit)
		}
	}
	return res, err
}

// exitWithin bounds how long a request whose connection broke waits to hear that the process ended.
const exitWithin = time.Second

// brokeOff tells whether a connection ended before the answer did, as it does with its process.
func brokeOff(err error) bool {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.EPIPE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// exitAfter is how the process ended, where that is more than the ends before; empty: it did not, as far as is known in time.
func (c *Child) exitAfter(ctx context.Context, ends int) string {
	t := time.NewTimer(exitWithin)
	defer t.Stop()
	for {
		c.pool.mu.Lock()
		changed := c.pool.changed
		c.pool.mu.Unlock()
		c.mu.Lock()
		now, exit := c.ends, c.status.LastExit
		c.mu.Unlock()
		if now > ends {
			return exit
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ""
		case <-t.C:
			return ""
		}
	}
}

// Health returns nil when the worker is ready and answers a probe.
func (c *Child) Health(ctx context.Context) error {
	if err := c.unready(); err != nil {
		return err
	}
	return c.http.Health(ctx)
}

// CountTokens asks the worker's /tokenize, where it has one.
func (c *Child) CountTokens(ctx context.Context, model string, ms []Message) (int, error) {
	if err := c.unready(); err != nil {
		return 0, err
	}
	return c.http.CountTokens(ctx, model, ms)
}

func (c *Child) unready() error {
	c.mu.Lock()
	state, exit := c.status.State, c.status.LastExit
	c.mu.Unlock()
	if state == ChildReady {
		return nil
	}
	err := fault.New(fault.Unavailable, "infer.child", c.Name(), "the worker is %v", state)
	if exit != "" {
		err = fault.New(fault.Unavailable, "infer.child", c.Name(), "the worker is %v (last: %s%s)", state, exit, said(c.tail.String()))
	}
	return err
}

// Status returns a copy of what is known.
func (c *Child) Status() ChildStatus {
	c.mu.Lock()
	s := c.status
	c.mu.Unlock()
	s.Stderr = c.tail.String()
	return s
}

// supervise is the worker's life, until ctx ends:
//
//	start ─► starting ─healthy─► ready ─exit, or hung and killed─► backing off ─► start …
//	             └─ exit, or not healthy in LoadTimeout and killed ─┘
//
// It stays on one thread: the kernel kills a child whose starting thread ended (PDEATHSIG), and
// Go ends threads as it likes.
func (c *Child) supervise(ctx context.Context) {
	runtime.LockOSThread() // never unlocked: the thread ends with this goroutine, after the child
	defer c.enter(ChildStopped, func(s *ChildStatus) { s.PID = 0 })
	for ctx.Err() == nil {
		refused := c.live(ctx)
		if ctx.Err() != nil {
			return
		}
		d := c.pool.o.Backoff.Delay(c.failures, random())
		if refused {
			d = c.pool.o.Backoff.Max
		}
		c.enter(ChildBackingOff, func(s *ChildStatus) { s.PID = 0 })
		c.pool.o.Log.Warn("worker restarts", "worker", c.Name(), "in", d, "failures_in_a_row", c.failures)
		t := time.NewTimer(d)
		select {
		case <-ctx.Done():
		case <-t.C:
			c.mu.Lock()
			c.status.Restarts++
			c.mu.Unlock()
		}
		t.Stop()
	}
}

// live runs processes until one ends for another reason than that its port was taken between its choice and its start. refused: it said that
// another start would be no better.
func (c *Child) live(ctx context.Context) (refused bool) {
	for try := 1; ; try++ {
		refused, again := c.liveOnce(ctx, try < portTriesMax)
		if !again {
			return refused
		}
	}
}

func (c *Child) liveOnce(ctx context.Context, mayTryAgain bool) (refused, again bool) {
	p, err := c.spawn()
	if err != nil {
		c.ended(fmt.Sprintf("cannot start: %v", err), 0)
		return false, false
	}
	defer c.leave()
	if limits := p.plan.String(); limits != c.Status().Limits {
		c.mu.Lock()
		c.status.Limits = limits
		c.mu.Unlock()
		c.pool.o.Log.Info("worker has limits", "worker", c.Name(), "limits", limits)
	}
	c.enter(ChildStarting, func(s *ChildStatus) { s.PID = p.pid() })
	why, readyFor := c.watch(ctx, p)
	c.http.Close() // its idle connections lead to a dead process
	exit := p.exit()
	if why != "" {
		exit = why + ", " + exit
	} else if want := wantOfMemory(ending{killed: p.killedByOthers(), crashed: p.crashed(), ooms: p.ooms, words: c.tail.lacks()}, c.pool.o.Limits, p.plan); want != "" {
		exit += ", " + want
	}
	if ctx.Err() != nil { // as asked: no failure
		c.mu.Lock()
		c.status.LastExit = exit
		c.mu.Unlock()
		return false, false
	}
	if mayTryAgain && readyFor == 0 && why == "" && c.portWasTaken() {
		return false, true
	}
	c.ended(exit, readyFor)
	return p.code() == exitRefused && readyFor == 0, false // a Go panic also exits with 2, but rarely before serving
}

// watch probes until the process has ended, which it also brings about: when ctx ends, when it
// is not healthy in time, when it hangs. why tells of the latter two.
func (c *Child) watch(ctx context.Context, p *process) (why string, readyFor time.Duration) {
	o := &c.pool.o
	var readyAt time.Time // zero until the first good probe
	startedAt := time.Now()
	deadline := startedAt.Add(o.LoadTimeout) // for the next good probe
	for {
		every := o.ProbeEvery
		if readyAt.IsZero() { // often at first: a small model is ready in a tenth of a second
			every = min(every, 10*time.Millisecond+time.Since(startedAt)/10)
		}
		switch next(ctx, p.done, every) {
		case asked:
			c.enter(ChildStopping, nil)
			p.terminate(o.StopTimeout)
			return "", 0
		case ended:
			return "", since(readyAt)
		}
		err := c.probe(ctx, p, min(time.Until(deadline), o.HangAfter/3))
		now := time.Now()
		switch {
		case err == nil:
			deadline = now.Add(o.HangAfter)
			if readyAt.IsZero() {
				readyAt = now
				c.enter(ChildReady, nil)
				o.Log.Info("worker is ready", "worker", c.Name(), "pid", p.pid(), "model", o.ModelID)
			}
		case now.After(deadline) && ctx.Err() == nil:
			p.kill()
			if readyAt.IsZero() {
				return fmt.Sprintf("not healthy within load_timeout = %v (%v)", o.LoadTimeout, err), 0
			}
			return fmt.Sprintf("no good probe for hang_after = %v (%v)", o.HangAfter, err), since(readyAt)
		}
	}
}

// probe asks for the worker's health, for at most d, and gives up when the process ends.
func (c *Child) probe(ctx context.Context, p *process, d time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, max(d, time.Millisecond))
	defer cancel()
	unhook := context.AfterFunc(p.ctx, cancel)
	defer unhook()
	return c.http.Health(ctx)
}

type wake uint8

const (
	elapsed wake = iota
	asked        // to stop
	ended        // the process
)

// next waits for the first of three.
func next(ctx context.Context, done <-chan struct{}, d time.Duration) wake {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return ended
	case <-ctx.Done():
		return asked
	case <-t.C:
		return elapsed
	}
}

func since(t time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return time.Since(t)
}

// ended counts an end that nobody asked for.
func (c *Child) ended(exit string, readyFor time.Duration) {
	if readyFor > c.pool.o.Backoff.Max {
		c.failures = 0
	}
	c.failures++
	c.mu.Lock()
	c.ends++
	c.status.LastExit = exit
	c.mu.Unlock()
	c.pool.o.Log.Error("worker ended", "worker", c.Name(), "exit", exit, "ready_for", readyFor.Round(time.Millisecond), "stderr", strings.TrimSpace(c.tail.fresh()))
}

// enter changes the state, with what else changes at that moment, and tells of it.
func (c *Child) enter(state ChildState, also func(*ChildStatus)) {
	c.mu.Lock()
	c.status.State, c.status.Since = state, time.Now()
	if also != nil {
		also(&c.status)
	}
	c.mu.Unlock()
	c.pool.announce(c.Status())
}
