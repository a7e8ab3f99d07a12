package infer

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// onPort and onSocket are pools of the fake worker as a command.
func onPort(o *PoolOptions) { o.Command = fakeCommand("--listen", "{{.Host}}:{{.Port}}") }

func onSocket(o *PoolOptions) {
	o.Command = fakeCommand("--socket", "{{.Socket}}", "--model", "{{.Path}}", "--name", "{{.Model}}")
}

func TestCommandServes(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*PoolOptions)
		models []string
	}{
		"port":   {onPort, []string{"its-own"}},                                              // asked, for the command does not name it
		"named":  {func(o *PoolOptions) { onPort(o); o.ModelID = "mine" }, []string{"mine"}}, // by its configuration
		"socket": {onSocket, []string{"glm"}},                                                // as its file is called
	} {
		t.Run(name, func(t *testing.T) {
			x := newPoolTest(t, "ok", func(o *PoolOptions) { tc.change(o); o.Workers = 2 })
			_, err := x.Engines()[0].Models(t.Context())
			if name == "port" {
				require.Equal(t, fault.Unavailable, fault.KindOf(err), "not started")
			}
			x.Start()
			require.NoError(t, x.WaitReady(t.Context(), 2))
			require.NoError(t, x.ComeUp(t.Context()))
			for _, c := range x.Children() {
				models, err := c.Models(t.Context())
				require.NoError(t, err)
				require.Equal(t, tc.models, models)
				r, err := c.Do(t.Context(), ask("x"))
				require.NoError(t, err)
				require.Equal(t, "hi", r.Text)
			}
			x.Stop()
			require.Equal(t, "exit status 0", x.Status()[0].LastExit, "SIGTERM drains")
			require.Empty(t, ports.taken)
		})
	}
}

func TestCommandIsRestarted(t *testing.T) {
	for name, change := range map[string]func(*PoolOptions){"port": onPort, "socket": onSocket} {
		t.Run(name, func(t *testing.T) {
			x := newPoolTest(t, "crash-once", change)
			x.Start()
			require.Contains(t, x.until(ChildBackingOff).LastExit, "signal: killed, not by this node")
			require.Equal(t, 1, x.until(ChildReady).Restarts)
			_, err := x.Engines()[0].Do(t.Context(), ask("x"))
			require.NoError(t, err)
		})
	}
}

// TestCommandThatNeverComesUp: the error of the engine, and of a load, has the last of what it said.
func TestCommandThatNeverComesUp(t *testing.T) {
	x := newPoolTest(t, "crash", onPort)
	x.Start()
	x.until(ChildBackingOff)
	err := x.ComeUp(t.Context())
	require.ErrorContains(t, err, "worker embedded-0 ended: exit status 3; it said: fake worker in mode crash | GGML_ASSERT(false) failed")
	_, err = x.Engines()[0].Do(t.Context(), ask("x"))
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.ErrorContains(t, err, "exit status 3; it said: fake worker in mode crash")

	x = newPoolTest(t, "never", func(o *PoolOptions) { onPort(o); o.LoadTimeout = 3 * time.Second })
	x.Start()
	x.until(ChildBackingOff)
	err = x.ComeUp(t.Context())
	require.ErrorContains(t, err, "not healthy within load_timeout = 3s")
	require.ErrorContains(t, err, "it said: fake worker in mode never")

	x = newPoolTest(t, "never", onPort)
	x.Start()
	x.hears("fake worker in mode never")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err = x.ComeUp(ctx)
	require.Equal(t, fault.Timeout, fault.KindOf(err))
	require.ErrorContains(t, err, "0 of 1 workers were ready in time; it said: fake worker in mode never")
}

func TestCommandThatIgnoresSIGTERM(t *testing.T) {
	x := newPoolTest(t, "deaf", func(o *PoolOptions) { onSocket(o); o.StopTimeout = 20 * time.Millisecond })
	x.Start()
	x.until(ChildReady)
	x.Stop()
	require.Equal(t, "signal: killed", x.Status()[0].LastExit)
}

// TestCommandLeavesNoGrandchildren, neither when it is stopped nor when it crashes.
func TestCommandLeavesNoGrandchildren(t *testing.T) {
	x := newPoolTest(t, "family", onPort)
	x.Start()
	x.until(ChildReady)
	x.Stop()
	allGone(t, x.dir)

	x = newPoolTest(t, "orphans", func(o *PoolOptions) { onPort(o); o.Backoff.Min, o.Backoff.Max = time.Hour, time.Hour })
	x.Start()
	require.Equal(t, "exit status 3", x.until(ChildBackingOff).LastExit)
	allGone(t, x.dir)
}

// TestCommandTriesAnotherPort: somebody took the port between its choice and the child's start. That is no crash.
func TestCommandTriesAnotherPort(t *testing.T) {
	x := newPoolTest(t, "port-taken", func(o *PoolOptions) { onPort(o); o.Backoff.Min, o.Backoff.Max = time.Hour, time.Hour })
	x.Start()
	require.Zero(t, x.until(ChildReady).Restarts)
	require.Empty(t, x.Status()[0].LastExit)
}

func TestPortsAreNotOfferedTwice(t *testing.T) {
	b := portBook{taken: map[int]bool{}}
	seen := map[int]bool{}
	for range 50 {
		p, err := b.pick()
		require.NoError(t, err)
		require.False(t, seen[p])
		seen[p] = true
	}
	for p := range seen {
		b.free(p)
	}
	require.Empty(t, b.taken)
}

func TestNewPoolRefusesACommand(t *testing.T) {
	dir := t.TempDir()
	none, err := ParseCommand([]string{"no-such-program-anywhere", "{{.Port}}"}, nil)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		change func(*PoolOptions)
		kind   fault.Kind
		text   string
	}{
		"no program": {func(o *PoolOptions) { o.Command = none }, fault.NotFound, "install it"},
		"no path":    {func(o *PoolOptions) { onSocket(o); o.Model = "" }, fault.Invalid, "the command says {{.Path}}, and no path is named"},
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

// TestCommandSaysTooMuch: its lines are for those who look for them.
func TestCommandSaysTooMuch(t *testing.T) {
	levels := make(chan slog.Level, 1000)
	x := newPoolTest(t, "ok", func(o *PoolOptions) {
		onPort(o)
		o.Log = slog.New(levelHandler{slog.DiscardHandler, levels})
	})
	x.Start()
	x.until(ChildReady)
	require.Equal(t, slog.LevelDebug, <-levels)
}

type levelHandler struct {
	slog.Handler
	levels chan slog.Level
}

func (h levelHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h levelHandler) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "worker says" {
		h.levels <- r.Level
	}
	return nil
}
