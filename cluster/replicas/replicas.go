// Package replicas is a node's side of placement: it does to this node's replicas what the
// coordinator asks for, and tells it what is here.
//
//	coordinator ── group.report ────────────► Report    ──► Store.Groups
//	            ── group.change (leader) ───► Change    ──► Store.Change, compare-and-set on the membership's version
//	            ── group.join, group.drop ──► Join Drop ──► Store.Join, Store.Drop
//	            ── group.transfer (leader) ─► Transfer  ──► Store.Transfer
//
// It decides one thing: whom to believe. Each request carries the coordinator's epoch, and one that is older than an
// epoch heard of before is refused. Every request may come twice.
package replicas

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Ops of the requests, as the mesh names them.
const (
	OpReport   = "group.report"
	OpChange   = "group.change"
	OpJoin     = "group.join"
	OpDrop     = "group.drop"
	OpTransfer = "group.transfer"
)

// Ask is the body of every request. Which fields count depends on the op.
type Ask struct {
	Epoch   uint64              `json:"epoch"` // of shard 0, under which the coordinator decided
	Shard   int                 `json:"shard"`
	Replica uint64              `json:"replica,omitempty"` // Join, Drop: the local one; Transfer: who is to lead
	Change  *persistence.Change `json:"change,omitempty"`
}

// Report is what a node tells of itself.
type Report struct {
	Node   string              `json:"node"` // id of its data directory
	Shards int                 `json:"shards"`
	Space  persistence.Space   `json:"space"`
	Groups []persistence.Group `json:"groups"`
}

// Handler serves one op; from is the authenticated name of the node that asks.
type Handler func(ctx context.Context, from string, body []byte) ([]byte, error)

// Agent serves the requests on one store. It is safe for many goroutines.
type Agent struct {
	store persistence.Store

	mu    sync.Mutex
	epoch uint64 // highest heard of
}

// New returns the agent of a store.
func New(store persistence.Store) *Agent { return &Agent{store: store} }

// Handlers returns what to register with the mesh, by op.
func (a *Agent) Handlers() map[string]Handler {
	return map[string]Handler{
		OpReport:   a.report,
		OpChange:   a.serve(OpChange, a.change),
		OpJoin:     a.serve(OpJoin, a.join),
		OpDrop:     a.serve(OpDrop, a.drop),
		OpTransfer: a.serve(OpTransfer, a.transfer),
	}
}

// report answers anybody: it changes nothing.
func (a *Agent) report(context.Context, string, []byte) ([]byte, error) {
	return json.Marshal(Report{Node: a.store.Node(), Shards: a.store.Shards(), Space: a.store.Space(), Groups: a.store.Groups()})
}

// serve decodes and fences.
func (a *Agent) serve(op string, f func(context.Context, Ask) error) Handler {
	return func(ctx context.Context, from string, body []byte) ([]byte, error) {
		var q Ask
		if err := json.Unmarshal(body, &q); err != nil {
			return nil, fault.New(fault.Invalid, op, from, "%w", err)
		}
		if q.Shard < 0 || q.Shard >= a.store.Shards() {
			return nil, fault.New(fault.Invalid, op, from, "there is no shard %d", q.Shard)
		}
		if err := a.believe(op, from, q.Epoch); err != nil {
			return nil, err
		}
		if err := f(ctx, q); err != nil {
			return nil, err
		}
		return []byte("{}"), nil
	}
}

func (a *Agent) believe(op, from string, epoch uint64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if epoch < a.epoch {
		return fault.New(fault.Fenced, op, from, "epoch %d is over, a coordinator of epoch %d was here", epoch, a.epoch)
	}
	a.epoch = epoch
	return nil
}

func (a *Agent) change(ctx context.Context, q Ask) error {
	if q.Change == nil || (q.Change.Add == nil) == (q.Change.Remove == 0) {
		return fault.New(fault.Invalid, OpChange, "", "one replica to add or to remove is needed")
	}
	return a.store.Change(ctx, q.Shard, *q.Change)
}

func (a *Agent) join(ctx context.Context, q Ask) error {
	if q.Replica == 0 {
		return fault.New(fault.Invalid, OpJoin, "", "no replica id")
	}
	return a.store.Join(ctx, q.Shard, q.Replica)
}

// drop deletes the replica that was meant and no other, and none that leads: what leads is a member.
func (a *Agent) drop(ctx context.Context, q Ask) error {
	for _, g := range a.store.Groups() {
		switch {
		case g.Shard != q.Shard || g.Self == 0:
		case g.Self != q.Replica:
			return fault.New(fault.Conflict, OpDrop, "", "replica %d is here, not %d", g.Self, q.Replica)
		case g.Leader == g.Self:
			return fault.New(fault.Refused, OpDrop, "", "replica %d leads its group", g.Self)
		}
	}
	return a.store.Drop(ctx, q.Shard)
}

func (a *Agent) transfer(ctx context.Context, q Ask) error {
	return a.store.Transfer(ctx, q.Shard, q.Replica)
}
