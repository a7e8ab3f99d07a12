package far

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-autoglm/autoglm/actors/batch"
	"github.com/open-autoglm/autoglm/actors/hedge"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Ops between nodes. A name is for ever; bodies grow by fields only.
const (
	opClaim   = "task.claim"   // of a shard's owner
	opWaiting = "task.waiting" // of a node: what waits in the shards that it owns
	opReady   = "task.ready"   // to a node: something waits
	opHeld    = "task.held"    // of a node: which attempts it does not have
	opSecond  = "task.second"  // of a node: run an attempt of another one too
	opAbort   = "task.abort"   // to a node: tasks of attempts that it has have ended
)

const (
	askWithin  = time.Second     // of one question what waits, or what is held
	waitingMax = 4096            // queues named in one answer or message
	modelsMax  = 1024            // models named in one question, each for up to four endpoints
	heldMax    = 1024            // attempts named in one question
	claimMax   = 1024            // works of one claim
	claimBytes = 4 << 20         // of the works of one answer; the last one may go over by task.WorkMax
	claimFor   = 2 * time.Second // tries of one claim; the next one goes on under the same id
)

// Options of a Far. All are needed.
type Options struct {
	Router *cluster.Router
	Owned  func(*cluster.Owner) *task.Queue // the queue of a shard owned here; nil: closed meanwhile
	All    func() []*task.Queue             // of all shards owned here
	Ready  func(q batch.Queue, name task.QueueName, at time.Time)
	Held   *task.Held
	Board  *hedge.Board                                              // hears what runs twice; nil: nothing does
	Visit  func(*task.Work)                                          // runs an attempt of another node, or gives it back
	Ended  func(w *task.Work, a task.Answer, err error, broken bool) // a second run elsewhere has; broken: as this node stops
	Now    func() time.Time
	Log    *slog.Logger
}

// Far is a node's side of both: its engines' ways to other nodes' queues, and other engines' ways to its own. It
// is safe for many goroutines.
type Far struct {
	Options
	queues  []*Queue // by shard
	answers answers
	crowd   crowd
	asking  atomic.Bool
	seconds seconds

	ctx    context.Context
	cancel context.CancelFunc
	mu     sync.Mutex
	over   bool
	wg     sync.WaitGroup
}

// New returns a Far that serves the other nodes as soon as the mesh starts.
func New(o Options) *Far {
	f := &Far{Options: o}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	for shard := range o.Router.Shards() {
		f.queues = append(f.queues, &Queue{f: f, shard: shard, next: map[task.QueueName]time.Time{}, open: map[asker]claimAsk{}})
	}
	f.answers.by = map[string]*answer{}
	f.crowd.nodes = map[string]*listener{}
	f.seconds = seconds{guests: map[task.Ref]*guest{}, full: map[place]time.Time{}}
	o.Router.HandleOwner(opClaim, f.serveClaim)
	o.Router.HandleNode(opWaiting, f.serveWaiting)
	o.Router.HandleNode(opReady, f.serveReady)
	o.Router.HandleNode(opHeld, f.serveHeld)
	o.Router.HandleNode(opAbort, f.serveAbort)
	o.Router.HandleNode(opSecond, f.serveSecond)
	return f
}

// Queue returns the way to a shard that is owned elsewhere; always the same one.
func (f *Far) Queue(shard int) *Queue { return f.queues[shard] }

// Stop ends what is under way and returns after it. Claims are refused from now on. It is safe to call twice.
func (f *Far) Stop() {
	f.mu.Lock()
	f.over = true
	f.mu.Unlock()
	f.cancel()
	f.crowd.stop()
	f.seconds.stop()
	f.wg.Wait()
}

// spawn runs g unless Stop was called, and tells whether it does.
func (f *Far) spawn(g func()) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return false
	}
	f.wg.Go(g)
	return true
}

// waiting is one queue of which something waits.
type waiting struct {
	Shard    int           `json:"s"`
	Model    string        `json:"m"` // the queue
	Priority rank          `json:"p,omitempty"`
	In       time.Duration `json:"in,omitempty"` // from when it was sent: clocks of nodes differ
}

// rank is a priority as it travels: one more, so that nothing means any, as older nodes have it.
type rank int

func rankOf(n task.QueueName) rank { return rank(n.Priority + 1) }

func (r rank) of(queue string) task.QueueName {
	if r < 0 || r > task.PriorityMax+1 {
		r = 0
	}
	return task.QueueName{Model: queue, Priority: int(r) - 1}
}

type waitingAsk struct {
	Models []string `json:"models"`
}

// Ask asks all owners elsewhere what waits of these models; the answers come by Options.Ready. While a
// question is under way, another one is dropped.
func (f *Far) Ask(models []string) {
	if !f.asking.CompareAndSwap(false, true) {
		return
	}
	if len(models) > modelsMax {
		models = models[:modelsMax]
	}
	ok := f.spawn(func() {
		defer f.asking.Store(false)
		nodes := map[string]bool{}
		for shard := range f.queues {
			if node := f.Router.Place(shard); node != "" && node != f.Router.Self() {
				nodes[node] = true
			}
		}
		var wg sync.WaitGroup
		for node := range nodes {
			wg.Go(func() {
				var told []waiting
				if err := f.call(node, opWaiting, waitingAsk{models}, &told); err != nil {
					f.Log.Debug("a node did not say what waits there", "node", node, "err", err)
					return
				}
				f.heard(told)
			})
		}
		wg.Wait()
	})
	if !ok {
		f.asking.Store(false)
	}
}

// call is one question to a node.
func (f *Far) call(node, op string, ask, answer any) error {
	return f.callIn(f.ctx, askWithin, node, op, ask, answer)
}

func (f *Far) callIn(ctx context.Context, within time.Duration, node, op string, ask, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	body, err := encode(ask)
	if err != nil {
		return err
	}
	if body, err = f.Router.CallNode(ctx, node, op, body); err != nil {
		return err
	}
	return decode(op, body, answer)
}

// heard takes in what waits elsewhere. What this node owns meanwhile, it knows better.
func (f *Far) heard(told []waiting) {
	now := f.Now()
	for _, w := range told[:min(len(told), waitingMax)] {
		if w.Shard < 0 || w.Shard >= len(f.queues) || len(w.Model) > task.QueueMax {
			continue
		}
		if _, err := f.Router.Owner(w.Shard); err == nil {
			continue
		}
		f.Ready(f.queues[w.Shard], w.Priority.of(w.Model), now.Add(max(w.In, 0)))
	}
}

func (f *Far) serveReady(_ context.Context, _ string, body []byte) ([]byte, error) {
	var told []waiting
	if err := decode(opReady, body, &told); err != nil {
		return nil, err
	}
	f.heard(told)
	return nil, nil
}

// serveWaiting says what waits here, and remembers who would like to know.
func (f *Far) serveWaiting(_ context.Context, from string, body []byte) ([]byte, error) {
	var ask waitingAsk
	if err := decode(opWaiting, body, &ask); err != nil {
		return nil, err
	}
	models := ask.Models[:min(len(ask.Models), modelsMax)]
	now := f.Now()
	f.crowd.asked(from, models, now)
	out := []waiting{}
	for _, q := range f.All() {
		for name, at := range q.Waiting(func(m string) bool { return serves(models, m) }, waitingMax-len(out)) {
			out = append(out, waiting{q.Shard(), name.Model, rankOf(name), max(at.Sub(now), 0)})
		}
		if len(out) >= waitingMax {
			break
		}
	}
	return encode(out)
}

// Waits says that something waits, or will at a time, in a shard owned here. It does not block.
func (f *Far) Waits(shard int, name task.QueueName, at time.Time) {
	f.crowd.ready(shard, name, at, f.Now(), func(node string) { f.spawn(func() { f.tell(node) }) })
}

// tell sends a node what it waits for, in as few messages as the pace allows.
func (f *Far) tell(node string) {
	for f.ctx.Err() == nil {
		told := f.crowd.take(node, f.Now())
		if len(told) == 0 {
			return
		}
		if body, err := encode(told); err == nil { // it is made of plain fields
			f.Router.TellNode(node, opReady, body)
		}
		t := time.NewTimer(tellEvery)
		select {
		case <-t.C:
		case <-f.ctx.Done():
			t.Stop()
		}
	}
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fault.New(fault.Invalid, "far.encode", "", "%w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func decode(op string, body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return fault.New(fault.Invalid, "far.decode", op, "%w", err)
	}
	return nil
}
