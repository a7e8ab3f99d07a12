package task_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

var rewrite = flag.Bool("rewrite", false, "write what the scripts in testdata print now; review it as a diff")

// TestScripts holds conversations with one task against testdata/*.txt. A line that
// starts with > is said to it; the lines below are its answer and where it stands.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(f)
			require.NoError(t, err)
			var got strings.Builder
			s := newStage(t)
			for line := range strings.Lines(string(want)) {
				switch {
				case strings.HasPrefix(line, "#"), strings.TrimSpace(line) == "":
					got.WriteString(line)
				case strings.HasPrefix(line, ">"):
					got.WriteString(line)
					got.WriteString(s.say(strings.Fields(line[1:])))
				}
			}
			if *rewrite {
				require.NoError(t, os.WriteFile(f, []byte(got.String()), 0o644))
				return
			}
			require.Equal(t, string(want), got.String())
		})
	}
}

// stage is one task on a shard in memory, with clocks of its own.
type stage struct {
	t     *testing.T
	store *persisttest.Store
	kind  *entity.Kind[task.Record, task.Fact]
	s     *cluster.Shards
	sent  *outbox
	mu    sync.Mutex
	now   time.Time     // the wall clock
	mono  time.Duration // what nobody sets
	open  chan *cluster.Owner
	held  uint64 // epoch of the newest claim
}

// outbox notes callbacks instead of sending them.
type outbox struct {
	mu   sync.Mutex
	says []string
}

func (o *outbox) Deliver(id string, r task.Record, try int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.says = append(o.says, fmt.Sprintf("  callback try %d of a %v task", try, r.State))
}

func newStage(t *testing.T) *stage {
	st := &stage{t: t, store: persisttest.NewStore(1), sent: &outbox{}, now: time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), open: make(chan *cluster.Owner, 8)}
	policy := task.DefaultPolicy(func() float64 { return 1 })
	policy.Attempts = 3
	st.kind = task.NewKind(policy, st.sent, nil)
	log := slog.New(slog.DiscardHandler)
	sys := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return log }))
	var err error
	st.s, err = cluster.NewShards(cluster.Options{Store: st.store, System: sys, Kinds: []cluster.Kind{st.kind.Register()}, Now: st.clock, Mono: st.elapsed, Log: log,
		Tick:   time.Hour, // a script says itself when a timer wakes the task
		Opened: func(o *cluster.Owner) { st.open <- o }})
	require.NoError(t, err)
	<-st.open
	t.Cleanup(func() { st.s.Stop(); require.NoError(t, st.store.Close()); st.s.Wait(); sys.Shutdown() })
	return st
}

func (st *stage) clock() time.Time {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.now
}

func (st *stage) elapsed() time.Duration {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.mono
}

// say carries one line out and returns what came of it.
func (st *stage) say(w []string) string {
	arg := func(i int) string {
		if i < len(w) {
			return w[i]
		}
		return ""
	}
	num := func(i int) uint32 { n, err := strconv.Atoi(arg(i)); require.NoError(st.t, err); return uint32(n) }
	epoch := func() uint64 { o, err := st.s.Router().Owner(0); require.NoError(st.t, err); return o.Epoch() }
	var out strings.Builder
	var msg any
	switch arg(0) {
	case "submit": // submit PROMPT [callback|steps|form|digest|deadline=5m]
		spec := &task.Spec{ID: "t", Prompt: arg(1)}
		switch k, v, _ := strings.Cut(arg(2), "="); k {
		case "callback":
			spec.CallbackURL = "http://localhost/cb"
		case "steps":
			spec.Steps = task.Texts("and then")
		case "form":
			spec.Format = json.RawMessage(`{"type":"json_object"}`)
		case "digest": // the whole task is one map
			spec.Prompt, spec.DataURL = "", "http://localhost/data"
			spec.Steps = task.Steps{{Name: "digest", Map: &task.Map{Over: "data", Split: task.Split{By: "lines", Size: 1}, Prompt: "{{.part}}"}, Reduce: &task.Reduce{Prompt: "{{len .parts}}", Size: 4}}}
		case "deadline":
			d, err := time.ParseDuration(v)
			require.NoError(st.t, err)
			at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC).Add(d)
			spec.Deadline = &at
		}
		msg = &task.Submit{Spec: spec, Model: "m"}
	case "claim": // claim [here|there]: from this process, or from one that is gone; else from a program that does not say
		m := &task.Claim{Node: "n", Engine: "e"}
		switch arg(1) {
		case "here":
			m.Boot = st.s.Router().Alive()[0].Boot
		case "there":
			m.Boot = "there"
		}
		msg, st.held = m, epoch()
	case "done": // done ATTEMPT TEXT [claimed]: under the owner's epoch, or the one it was claimed under
		m := &task.Done{Attempt: num(1), Epoch: epoch(), Answer: task.Answer{Text: arg(2)}}
		if arg(3) == "claimed" {
			m.Epoch = st.held
		}
		msg = m
	case "part": // part ATTEMPT TEXT LEVEL INDEX OF: done, for a question of a map
		msg = &task.Done{Attempt: num(1), Epoch: epoch(), Answer: task.Answer{Text: arg(2), Part: &task.Part{Level: int(num(3)), Index: int(num(4)), Of: int(num(5))}}}
	case "broke": // broke ATTEMPT TEXT: an answer that breaks its form
		msg = &task.Lost{Attempt: num(1), Epoch: epoch(), Err: &task.BrokenForm{Text: arg(2), Err: fault.New(fault.Malformed, "infer.check", "", "no JSON")}}
	case "lost": // lost ATTEMPT KIND
		kinds := map[string]fault.Kind{"timeout": fault.Timeout, "overloaded": fault.Overloaded, "invalid": fault.Invalid, "unavailable": fault.Unavailable}
		msg = &task.Lost{Attempt: num(1), Epoch: epoch(), Err: &fault.Error{Op: "engine", Kind: kinds[arg(2)], Err: errors.New(arg(2))}}
	case "return": // return ATTEMPT
		msg = &task.Return{Attempt: num(1), Epoch: epoch(), Reason: "the engine is down"}
	case "cancel":
		msg = &task.Cancel{Reason: "not needed"}
	case "called": // called TRY ok|fail|gone
		m := &task.Called{Try: int(num(1)), Wait: time.Minute, GiveUp: arg(2) == "gone"}
		if arg(2) != "ok" {
			m.Err = fault.New(fault.Unavailable, "callback", "", "%s", arg(2))
		}
		msg = m
	case "retried": // retried ID: as another task
		msg = &task.TriedAgain{As: arg(1)}
	case "wake":
		msg = cluster.Wake{}
	case "wait", "set": // wait DURATION: time passes; set DURATION: somebody sets the wall clock by so much
		d, err := time.ParseDuration(arg(1))
		require.NoError(st.t, err)
		st.mu.Lock()
		if st.now = st.now.Add(d); arg(0) == "wait" {
			st.mono += d
		}
		st.mu.Unlock()
		return ""
	case "crash": // the owner dies; a new one takes over under a new epoch
		st.store.Lead(persistence.Lead{Shard: 0, Leading: true})
		<-st.open
		return ""
	default:
		st.t.Fatalf("the script says %q", w)
	}
	// One try, not Ask: a refusal that the router would repeat is part of the script.
	o, err := st.s.Router().Owner(0)
	require.NoError(st.t, err)
	type reply struct {
		v   any
		err error
	}
	c := make(chan reply, 1)
	o.Tell(&cluster.Envelope{Key: task.Key("t"), Msg: msg, Reply: func(v any, err error) { c <- reply{v, err} }})
	r := <-c
	switch v := r.v.(type) {
	case task.Accepted:
		fmt.Fprintf(&out, "  accepted: version %d, %v, existed %v\n", v.Version, v.State, v.Existed)
	case *task.Work:
		fmt.Fprintf(&out, "  work: attempt %d, until %v\n", v.Attempt, v.Lease.Format("15:04:05"))
	case task.Dropped:
		out.WriteString("  dropped: too late\n")
	}
	if r.err != nil {
		fmt.Fprintf(&out, "  refused (%v): %v\n", fault.KindOf(r.err), r.err)
	}
	st.sent.mu.Lock()
	for _, s := range st.sent.says {
		out.WriteString(s + "\n")
	}
	st.sent.says = nil
	st.sent.mu.Unlock()
	return out.String() + st.stand()
}

// stand says where the task is, folded from its journal.
func (st *stage) stand() string {
	r, _, err := st.kind.Load(st.store.Journal(0), "t")
	require.NoError(st.t, err)
	s := fmt.Sprintf("  = %v v%d", r.State, r.Version)
	if r.State == task.Pending && !r.AtOnce && r.NotBefore.After(st.clock()) {
		s += " until " + r.NotBefore.Format("15:04:05")
	}
	if r.Attempt > 0 {
		s += fmt.Sprintf(", attempt %d, tries %d", r.Attempt, r.Tries)
	}
	if r.Repairs > 0 {
		s += fmt.Sprintf(", %d repaired", r.Repairs)
	}
	if where := r.Where(); where != "" {
		s += ", at " + where
	}
	if r.RetriedAs != "" {
		s += ", retried as " + r.RetriedAs
	}
	if len(r.Answers) > 0 {
		s += fmt.Sprintf(", %d answers, last %q", len(r.Answers), r.Text())
	}
	if r.Callback != "" {
		s += fmt.Sprintf(", callback %s after %d tries", r.Callback, r.CallbackTries)
	}
	return s + "\n"
}
