package infer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// PoolOptions say which worker processes to keep alive.
type PoolOptions struct {
	Binary  string   // of glm-worker; empty: FindWorker beside this executable
	Model   string   // GGUF file; of a command: whatever that calls its path, or empty
	ModelID string   // name it is served under; the file's name without .gguf when empty
	Command *Command // what to start in place of glm-worker
	Name    string   // of its engines, before "-" and their numbers; "embedded" when empty

	Workers int    // processes; 1 when 0, at most WorkersMax
	Slots   int    // answers made at once by each; 16 when 0
	Ctx     int    // tokens of a prompt with its answer; 0 leaves it to the model
	Threads int    // of each; 1 when 0: more are much slower on a busy machine
	GPU     string // CUDA_VISIBLE_DEVICES of each; empty: this process' own

	Timeout time.Duration // of one request; HTTPTimeout when 0
	Limits  Limits        // of each

	grounds func() grounds // delegated when nil

	SocketDir string   // for the workers' sockets; empty: a temporary one, removed by Stop
	Args, Env []string // more flags and NAME=value for the workers

	LoadTimeout time.Duration       // from start to the first good probe; 10 min when 0
	ProbeEvery  time.Duration       // between health probes of a ready worker; 2 s when 0
	HangAfter   time.Duration       // without a good probe a ready worker is killed; 30 s when 0
	StopTimeout time.Duration       // to drain after SIGTERM, then SIGKILL; 60 s when 0
	Backoff     backoff.Exponential // between restarts; 200 ms to 30 s, half of it random, when zero

	Log    *slog.Logger      // slog.Default() when nil
	Notify func(ChildStatus) // called at each change of state, one call at a time per worker; it must not block, nor call Stop
}

// WorkersMax bounds a pool: each worker is a process with the model's whole memory.
const WorkersMax = 64

// socketPathMax is the kernel's limit on a unix socket's path, less its final zero.
const socketPathMax = 107

// Pool keeps worker processes alive: it starts them, waits for their health, restarts what
// crashed or hangs, and ends them all on Stop. Each worker is an Engine of its own.
type Pool struct {
	o        PoolOptions
	children []*Child
	tempDir  string // removed by Stop; empty when the caller gave SocketDir

	mu      sync.Mutex
	started bool
	ctx     context.Context // ends when Stop is called
	cancel  context.CancelFunc
	loops   sync.WaitGroup
	changed chan struct{} // closed and replaced at each change of state, for WaitReady
}

// NewPool checks the options, the binary and the model; it starts nothing. Stop frees what it made.
func NewPool(o PoolOptions) (*Pool, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	p := &Pool{o: o, changed: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if err := p.prepareSockets(); err != nil {
		return nil, err
	}
	for i := range o.Workers {
		c, err := newChild(p, fmt.Sprintf("%s-%d", o.Name, i), filepath.Join(p.o.SocketDir, fmt.Sprintf("w%d.sock", i)))
		if err != nil {
			p.Stop()
			return nil, err
		}
		p.children = append(p.children, c)
	}
	return p, nil
}

// complete fills in defaults and checks every bound.
func (o *PoolOptions) complete() error {
	setDuration(&o.LoadTimeout, 10*time.Minute)
	setDuration(&o.ProbeEvery, 2*time.Second)
	setDuration(&o.HangAfter, 30*time.Second)
	setDuration(&o.StopTimeout, time.Minute)
	if o.Backoff == (backoff.Exponential{}) {
		o.Backoff = backoff.Exponential{Min: 200 * time.Millisecond, Max: 30 * time.Second, Jitter: 0.5}
	}
	for _, d := range []struct {
		n   *int
		def int
	}{{&o.Workers, 1}, {&o.Slots, 16}, {&o.Threads, 1}} {
		if *d.n == 0 {
			*d.n = d.def
		}
	}
	if o.Name == "" {
		o.Name = "embedded"
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Notify == nil {
		o.Notify = func(ChildStatus) {}
	}
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "infer.pool", "", format, args...)
	}
	switch {
	case o.Workers < 1 || o.Workers > WorkersMax:
		return bad("workers is %d: use 1 to %d", o.Workers, WorkersMax)
	case o.Slots < 1 || o.Ctx < 0 || o.Threads < 1 || o.Timeout < 0:
		return bad("slots %d, ctx %d, threads %d, timeout %v: use at least 1, 0, 1 and 0s", o.Slots, o.Ctx, o.Threads, o.Timeout)
	case o.LoadTimeout < 0 || o.ProbeEvery < 0 || o.HangAfter < o.ProbeEvery || o.StopTimeout < 0:
		return bad("load %v, probe %v, hang %v, stop %v: none may be negative, and hang is at least probe", o.LoadTimeout, o.ProbeEvery, o.HangAfter, o.StopTimeout)
	}
	if err := o.Backoff.Validate(); err != nil {
		return bad("%w", err)
	}
	if err := o.Limits.Validate(); err != nil {
		return err
	}
	if o.grounds == nil {
		o.grounds = delegated
	}
	if o.Command != nil {
		return o.completeCommand()
	}
	if o.Binary == "" {
		var err error
		if o.Binary, err = FindWorker(); err != nil {
			return err
		}
	}
	if err := checkFile(o.Binary, "worker binary", "run `make build`, or name the binary", 0o111); err != nil {
		return err
	}
	if err := checkFile(o.Model, "model", "name a GGUF file of a GLM model", 0); err != nil {
		return err
	}
	if o.ModelID == "" {
		o.ModelID = strings.TrimSuffix(filepath.Base(o.Model), ".gguf")
	}
	return nil
}

func setDuration(d *time.Duration, def time.Duration) {
	if *d == 0 {
		*d = def
	}
}

// checkFile wants a readable regular file with one of the mode bits in any (0: none).
func checkFile(path, what, remedy string, any os.FileMode) error {
	st, err := os.Stat(path)
	switch {
	case path == "":
		err = errors.New("none is named")
	case err != nil:
	case !st.Mode().IsRegular():
		err = errors.New("is no regular file")
	case any != 0 && st.Mode()&any == 0:
		err = errors.New("is not executable")
	default:
		var f *os.File
		if f, err = os.Open(path); err == nil {
			return f.Close()
		}
	}
	return fault.New(fault.NotFound, "infer.pool", path, "%s: %w", what, err).WithRemedy("%s", remedy)
}

// prepareSockets makes the directory and checks the kernel's limit before a worker fails on it.
func (p *Pool) prepareSockets() error {
	fail := func(err error) error {
		return fault.New(fault.Invalid, "infer.pool", p.o.SocketDir, "socket directory: %w", err).WithRemedy("name a short directory that this user can write")
	}
	if p.o.SocketDir == "" {
		dir, err := os.MkdirTemp("", "glm-")
		if err != nil {
			return fail(err)
		}
		p.tempDir, p.o.SocketDir = dir, dir
	} else if err := os.MkdirAll(p.o.SocketDir, 0o700); err != nil {
		return fail(err)
	}
	longest := filepath.Join(p.o.SocketDir, fmt.Sprintf("w%d.sock", p.o.Workers-1))
	if len(longest) > socketPathMax {
		err := fail(fmt.Errorf("a socket's path there has %d bytes, the kernel's limit is %d", len(longest), socketPathMax))
		p.removeTemp()
		return err
	}
	return nil
}

// Start starts every worker and returns at once; they load in the background. A second call, and
// one after Stop, does nothing.
func (p *Pool) Start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started || p.ctx.Err() != nil {
		return
	}
	p.started = true
	for _, c := range p.children {
		p.loops.Go(func() { c.supervise(p.ctx) })
	}
}

// Stop drains every worker (SIGTERM, then SIGKILL after StopTimeout) and returns when all their
// processes and goroutines have ended. It is safe to call twice, and while workers are starting.
func (p *Pool) Stop() {
	p.mu.Lock()
	p.cancel()
	p.mu.Unlock()
	p.loops.Wait()
	for _, c := range p.children {
		c.http.Close()
	}
	p.removeTemp()
}

func (p *Pool) removeTemp() {
	if p.tempDir == "" {
		return
	}
	if err := os.RemoveAll(p.tempDir); err != nil {
		p.o.Log.Warn("cannot remove the sockets' directory", "dir", p.tempDir, "error", err)
	}
}

// Engines returns the workers, each an Engine that is Unavailable at once while it is not ready.
func (p *Pool) Engines() []Engine {
	es := make([]Engine, len(p.children))
	for i, c := range p.children {
		es[i] = c
	}
	return es
}

// Children returns the same workers with what else they can tell.
func (p *Pool) Children() []*Child { return append([]*Child(nil), p.children...) }

// Status tells of every worker, in order.
func (p *Pool) Status() []ChildStatus {
	s := make([]ChildStatus, len(p.children))
	for i, c := range p.children {
		s[i] = c.Status()
	}
	return s
}

// WaitReady returns once n workers (at most all) are ready at the same time, or a fault that
// tells why they are not when ctx ends or the pool stops.
func (p *Pool) WaitReady(ctx context.Context, n int) error {
	for {
		p.mu.Lock()
		changed := p.changed
		p.mu.Unlock()
		ready, why := 0, ""
		for _, s := range p.Status() {
			if s.State == ChildReady {
				ready++
				continue
			}
			why += fmt.Sprintf("; %s is %v", s.Name, s.State)
			if s.LastExit != "" {
				why += ", " + s.LastExit
			}
		}
		if ready >= min(n, len(p.children)) {
			return nil
		}
		select {
		case <-changed:
			continue
		case <-ctx.Done():
		case <-p.ctx.Done():
		}
		return fault.New(fault.Unavailable, "infer.pool", p.o.ModelID, "%d of %d workers are ready%s", ready, len(p.children), why)
	}
}

// announce wakes WaitReady and tells the owner.
func (p *Pool) announce(s ChildStatus) {
	p.mu.Lock()
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	p.o.Notify(s)
}

// args is the command line of the glm-worker that listens on socket.
func (p *Pool) args(socket string) []string {
	a := []string{"--model", p.o.Model, "--socket", socket, "--name", p.o.ModelID, "--slots", fmt.Sprint(p.o.Slots),
		"--threads", fmt.Sprint(p.o.Threads), "--parent-stdin",
		"--drain", (p.o.StopTimeout * 9 / 10).String()} // it gives up by itself just before it is killed
	if p.o.Ctx > 0 {
		a = append(a, "--ctx", fmt.Sprint(p.o.Ctx))
	}
	return append(a, p.o.Args...)
}

// random is the jitter of restarts; nothing needs it to be reproducible.
var random = rand.Float64
