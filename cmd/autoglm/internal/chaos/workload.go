package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Bounds of the workload.
const (
	poolMax   = 48 // tasks that clients go on asking about at a time
	opsOfTask = 24 // asked of one task, then it is left alone: judging a history costs more than its length
	bodies    = 2  // that clients try to submit under one id
	listShare = 2  // of a hundred calls
	awayShare = 10 // of a hundred calls: to any node
	patience  = 5  // times as long a pause after a call without an answer
)

// Workload are clients that submit tasks under their own ids and ask about each other's.
type Workload struct {
	peers   []Peer
	rec     *Recorder
	clients int
	think   time.Duration // between two calls of a client, on average
	seed    uint64

	http *client
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex
	pool  []*subject
	ids   map[string]bool // all that were ever named
	wrong []string        // answers that no client should get; at most wrongMax
}

const wrongMax = 5

// subject is a task that clients ask about.
type subject struct {
	id   string
	left int // ops
}

// StartWorkload starts clients. Stop ends them.
func StartWorkload(peers []Peer, rec *Recorder, clients int, think time.Duration, seed uint64) *Workload {
	ctx, cancel := context.WithCancel(context.Background())
	w := &Workload{peers: peers, rec: rec, clients: clients, think: think, seed: seed, http: newClient(peers[0].Key), stop: cancel, ids: map[string]bool{}}
	for i := range clients {
		w.wg.Go(func() { w.client(ctx, i) })
	}
	return w
}

// Stop waits until every client has its last answer, or gave up on it. It is safe to call twice.
func (w *Workload) Stop() {
	w.stop()
	w.wg.Wait()
	w.http.close()
}

// IDs returns every id that was ever named to a node.
func (w *Workload) IDs() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := make([]string, 0, len(w.ids))
	for id := range w.ids {
		ids = append(ids, id)
	}
	return ids
}

// Wrong returns answers that no client should get.
func (w *Workload) Wrong() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.wrong...)
}

func (w *Workload) client(ctx context.Context, number int) {
	r := rand.New(rand.NewPCG(w.seed, uint64(number)+1000))
	for n := 0; ctx.Err() == nil; n++ {
		// Most calls go to the client's own node, so that a node that does not answer holds up its own clients only.
		peer := w.peers[number%len(w.peers)]
		if r.IntN(100) < awayShare {
			peer = w.peers[r.IntN(len(w.peers))]
		}
		// A call under way when the workload stops is still waited for: it may have happened.
		ops, err := w.act(context.WithoutCancel(ctx), r, number, n, peer)
		if err != nil { // a violation by itself; the call may have happened all the same
			w.complain(err)
		}
		answered := len(ops) == 0 // an empty list
		for _, o := range ops {
			answered = o.Outcome != Unknown
			if !w.rec.Add(o) {
				w.complain(fmt.Errorf("there are %d ops: a longer run is to be several", OpsMax))
				return
			}
		}
		think := w.think
		if !answered { // a node that is gone refuses quickly: it is not to be all that clients do
			think *= patience
		}
		pause := time.NewTimer(time.Duration(r.Int64N(int64(2*think) + 1)))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

// act does one thing that clients do.
func (w *Workload) act(ctx context.Context, r *rand.Rand, number, n int, p Peer) ([]Op, error) {
	if r.IntN(100) < listShare {
		ops, err := w.http.look(ctx, p, number, w.rec.Now)
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, o := range ops {
			w.ids[o.ID] = true // also one that nobody submitted
		}
		return ops, err
	}
	o := w.next(r, number, n)
	err := w.http.call(ctx, p, &o, w.rec.Now)
	return []Op{o}, err
}

func (w *Workload) complain(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.wrong) < wrongMax {
		w.wrong = append(w.wrong, err.Error())
	}
}

// next picks what a client does: new tasks, old ones again, with another body, read, cancelled.
func (w *Workload) next(r *rand.Rand, number, n int) Op {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := Op{Client: number}
	dice := r.IntN(100)
	if len(w.pool) == 0 || dice < 30 {
		s := &subject{fmt.Sprintf("c%d-%d-%x", number, n, uint32(w.seed)), opsOfTask}
		w.ids[s.id] = true
		o.Verb, o.ID, o.Body = Submit, s.id, 1
		if len(w.pool) < poolMax {
			w.pool = append(w.pool, s)
		} else {
			w.pool[r.IntN(poolMax)] = s
		}
		return o
	}
	i := r.IntN(len(w.pool))
	s := w.pool[i]
	o.ID = s.id
	switch {
	case dice < 38:
		o.Verb, o.Body = Submit, 1
	case dice < 42:
		o.Verb, o.Body = Submit, bodies
	case dice < 47:
		o.Verb = Cancel
	default:
		o.Verb = Get
	}
	if s.left--; s.left == 0 {
		w.pool[i] = w.pool[len(w.pool)-1]
		w.pool = w.pool[:len(w.pool)-1]
	}
	return o
}
