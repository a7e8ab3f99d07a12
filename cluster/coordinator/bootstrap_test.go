package coordinator

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/cluster/placement"
	"github.com/open-autoglm/autoglm/cluster/replicas"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// hall is some nodes that boot together.
type hall struct {
	t       *testing.T
	w       *world
	dir     string
	founded atomic.Int64
	results sync.Map // name → error
	wg      sync.WaitGroup
	cancel  context.CancelFunc
	ctx     context.Context
	fail    atomic.Int64 // calls of Found that fail, with an outcome that is not known
	expect  int
}

func newHall(t *testing.T, nodes, expect int, harm float64, seed uint64) *hall {
	h := &hall{t: t, w: newWorld(t, 1, seed), dir: t.TempDir(), expect: expect}
	h.w.harm = harm
	h.ctx, h.cancel = context.WithCancel(context.Background())
	for range nodes {
		h.w.add()
	}
	return h
}

func (n *fakeNode) self() members.Member {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.member
}

func (h *hall) boot(n *fakeNode) {
	v, err := placement.OpenVoter(filepath.Join(h.dir, n.member.Name), n.member)
	require.NoError(h.t, err)
	handler := VoteHandler(v, n.self, h.w.members)
	h.w.change(func() { n.serve = map[string]replicas.Handler{OpVote: handler} })
	h.wg.Go(func() {
		err := Bootstrap(h.ctx, Boot{Voter: v, Expect: h.expect, Self: n.self, Members: h.w.members, Changed: h.w.changed,
			Ask: func(ctx context.Context, name, op string, in, out any) error {
				return h.ask(ctx, n.self().Name, name, op, in, out)
			},
			Found: func(context.Context) error {
				if h.fail.Add(-1) >= 0 {
					return fault.New(fault.Timeout, "store.found", "", "slow")
				}
				h.founded.Add(1)
				h.w.change(func() { n.member.Founded = true })
				return nil
			}})
		h.results.Store(n.member.Name, fmt.Sprint(err))
	})
}

// ask names the asker, as the mesh does.
func (h *hall) ask(ctx context.Context, from, name, op string, in, out any) error {
	h.w.mu.Lock()
	lost, late := h.w.rand.Float64() < h.w.harm, h.w.rand.Float64() < h.w.harm
	var f replicas.Handler
	for _, n := range h.w.nodes {
		if n.member.Name == name && n.alive {
			f = n.serve[op]
		}
	}
	h.w.mu.Unlock()
	if f == nil || lost {
		<-ctx.Done()
		return ctx.Err()
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	answer, err := f(ctx, from, body)
	if late {
		<-ctx.Done()
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(answer, out)
}

func (h *hall) done(names ...string) func() bool {
	return func() bool {
		for _, n := range names {
			if v, ok := h.results.Load(n); !ok || v != "<nil>" {
				return false
			}
		}
		return true
	}
}

func TestBootstrap(t *testing.T) {
	for _, harm := range []float64{0, 0.3} {
		for seed := range uint64(5) {
			t.Run(fmt.Sprint("harm ", harm, " seed ", seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHall(t, 3, 3, harm, seed)
					defer h.wg.Wait()
					defer h.cancel()
					h.fail.Store(2)
					h.w.kill(h.w.nodes[0])
					h.boot(h.w.nodes[1])
					h.boot(h.w.nodes[2])
					time.Sleep(10 * time.Second)
					synctest.Wait()
					require.Zero(t, h.founded.Load(), "two are not three")
					h.w.change(func() { h.w.nodes[0].alive = true })
					h.boot(h.w.nodes[0])
					until(t, time.Minute, "a cluster", h.done("n1", "n2", "n3"))
					require.EqualValues(t, 1, h.founded.Load())
					require.True(t, h.w.nodes[0].self().Founded)
				})
			})
		}
	}
}

// n2 stands for election, then the lower n1 appears: n2 gives up, so that n1 can have its votes.
func TestBootstrapWithdraws(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, 4, 3, 0, 1)
		defer h.wg.Wait()
		defer h.cancel()
		h.w.kill(h.w.nodes[0])
		h.w.change(func() { h.w.nodes[3].serve = nil }) // n4 is seen but does not answer
		h.boot(h.w.nodes[1])
		h.boot(h.w.nodes[2])
		time.Sleep(5 * time.Second)
		synctest.Wait()
		require.Zero(t, h.founded.Load())
		h.w.change(func() { h.w.nodes[0].alive = true })
		h.boot(h.w.nodes[0])
		until(t, time.Minute, "a cluster", h.done("n1", "n2", "n3"))
		require.EqualValues(t, 1, h.founded.Load())
		require.True(t, h.w.nodes[0].self().Founded)
	})
}

func TestBootstrapAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHall(t, 1, 1, 0, 1)
		h.boot(h.w.nodes[0])
		h.wg.Wait()
		require.EqualValues(t, 1, h.founded.Load())
		h.cancel()
	})
}

func TestVoteHandlerRefuses(t *testing.T) {
	self := members.Member{Name: "a", Node: "x", Cluster: "c"}
	v, err := placement.OpenVoter(filepath.Join(t.TempDir(), "vote"), self)
	require.NoError(t, err)
	h := VoteHandler(v, func() members.Member { return self }, func() []members.Member { return []members.Member{self} })
	_, err = h(t.Context(), "b", []byte("{"))
	require.Equal(t, fault.Invalid, fault.KindOf(err))
	_, err = h(t.Context(), "b", []byte(`{"cluster":"c","name":"z","node":"y","number":1}`))
	require.Equal(t, fault.Refused, fault.KindOf(err), "nobody stands for another")
}
