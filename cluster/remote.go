package cluster

import (
	"context"
	"encoding/json"

	"github.com/open-autoglm/autoglm/cluster/mesh"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Ops that a Router serves for those of other nodes. A name is for ever; so is the meaning of its body.
const (
	opAsk      = "shard.ask"
	opTell     = "shard.tell"
	opCreate   = "shard.create"
	opRead     = "shard.read"
	opReadAll  = "shard.readall"
	opScan     = "shard.scan"
	opCounters = "shard.counters"
	opWatch    = "shard.watch"
)

// serve registers what other nodes may ask of this node's owners.
func (r *Router) serve() {
	r.mesh.Handle(opAsk, r.serveAsk)
	r.mesh.Handle(opTell, r.serveTell)
	r.HandleOwner(opCreate, serveCreate)
	r.HandleOwner(opRead, serveRead)
	r.HandleOwner(opReadAll, serveReadAll)
	r.HandleOwner(opScan, serveScan)
	r.HandleOwner(opCounters, serveCounters)
	r.HandleOwner(opWatch, serveWatch)
	r.HandleOwner(opCommand, serveCommand)
}

// OwnerHandler serves an op of a shard on the node that owns it.
type OwnerHandler func(ctx context.Context, from string, o *Owner, body []byte) ([]byte, error)

// HandleOwner makes h serve op for all shards owned here, now or later. A
// node that is alone serves nobody.
func (r *Router) HandleOwner(op string, h OwnerHandler) {
	if r.mesh == nil {
		return
	}
	r.mesh.Handle(op, func(ctx context.Context, from string, q *mesh.Request) (mesh.Answer, error) {
		o, err := r.local(q.Shard)
		if err != nil {
			return mesh.Answer{}, err
		}
		body, err := h(ctx, from, o, q.Body)
		return mesh.Answer{Body: body}, err
	})
}

// CallOwner asks the owner of a shard, wherever it is, and tries again like Ask: op must be idempotent. On
// this node it is local that is called, not what HandleOwner registered.
func (r *Router) CallOwner(ctx context.Context, shard int, op string, body []byte, local func(context.Context, *Owner) error) ([]byte, error) {
	var out []byte
	id := newRequestID()
	err := r.retry(ctx, shard, func(ctx context.Context, o *Owner, node string) error {
		if o != nil {
			return local(ctx, o)
		}
		a, err := r.mesh.Ask(ctx, node, &mesh.Request{ID: id, Op: op, Shard: shard, Body: body})
		out = a.Body
		return err
	})
	return out, err
}

// NodeHandler serves an op of a node.
type NodeHandler func(ctx context.Context, from string, body []byte) ([]byte, error)

// HandleNode makes h serve op on this node.
func (r *Router) HandleNode(op string, h NodeHandler) {
	if r.mesh == nil {
		return
	}
	r.mesh.Handle(op, func(ctx context.Context, from string, q *mesh.Request) (mesh.Answer, error) {
		body, err := h(ctx, from, q.Body)
		return mesh.Answer{Body: body}, err
	})
}

// CallNode is one try to ask a node by name; this node too, when it has a mesh.
func (r *Router) CallNode(ctx context.Context, node, op string, body []byte) ([]byte, error) {
	if r.mesh == nil {
		return nil, fault.New(fault.Unavailable, "cluster.call", node, "this node is alone")
	}
	a, err := r.mesh.Ask(ctx, node, &mesh.Request{Op: op, Shard: -1, Body: body})
	return a.Body, err
}

// TellNode posts to a node by name; it may be lost.
func (r *Router) TellNode(node, op string, body []byte) {
	if r.mesh != nil {
		_ = r.mesh.Tell(node, &mesh.Request{Op: op, Shard: -1, Body: body})
	}
}

// local returns the owner of a shard that a request names.
func (r *Router) local(shard int) (*Owner, error) {
	if shard < 0 || shard >= len(r.owners) {
		return nil, fault.New(fault.Invalid, "cluster.router", "", "there is no shard %d", shard)
	}
	return r.Owner(shard)
}

// entityOf checks a request for an entity.
func (r *Router) entityOf(q *mesh.Request) (o *Owner, key persistence.Key, msg any, types *Types, err error) {
	key = persistence.Key{Kind: q.Kind, ID: q.Key}
	k, ok := r.kinds[q.Kind]
	if !ok {
		return nil, key, nil, nil, fault.New(fault.NotFound, "cluster.router", key.String(), "no entity kind %q is registered on node %s", q.Kind, r.self)
	}
	if q.Key == "" || len(q.Key) > persistence.KeyMax {
		return nil, key, nil, nil, fault.New(fault.Invalid, "cluster.router", key.Kind, "an id has 1 to %d bytes", persistence.KeyMax)
	}
	if r.ShardOf(key) != q.Shard {
		return nil, key, nil, nil, fault.New(fault.Invalid, "cluster.router", key.String(), "shard %d was asked for it: the nodes do not agree on the number of shards", q.Shard)
	}
	if o, err = r.local(q.Shard); err != nil {
		return nil, key, nil, nil, err
	}
	types = k.Types()
	if q.Type != "" && !types.Has(q.Type) {
		r.newer("message")
	}
	msg, err = types.Decode(q.Type, q.Body)
	return o, key, msg, types, err
}

func (r *Router) serveAsk(ctx context.Context, _ string, q *mesh.Request) (mesh.Answer, error) {
	o, key, msg, types, err := r.entityOf(q)
	if err != nil {
		return mesh.Answer{}, err
	}
	v, err := o.ask(ctx, key, msg)
	if err != nil {
		return mesh.Answer{}, err
	}
	name, body, err := types.Encode(v)
	return mesh.Answer{Type: name, Body: body}, err
}

func (r *Router) serveTell(_ context.Context, _ string, q *mesh.Request) (mesh.Answer, error) {
	o, key, msg, _, err := r.entityOf(q)
	if err == nil {
		o.Tell(&Envelope{Key: key, Msg: msg})
	}
	return mesh.Answer{}, err
}

// created is the answer to opCreate: what went wrong, by the place of the write.
type created map[int]*wireFault

// wireFault is a fault on the wire.
type wireFault struct {
	Op     string     `json:"op"`
	Key    string     `json:"key,omitempty"`
	Kind   fault.Kind `json:"kind"`
	Text   string     `json:"text"`
	Remedy string     `json:"remedy,omitempty"`
}

func (r *Router) createAt(ctx context.Context, node string, shard int, writes []persistence.Write) ([]error, error) {
	a, err := r.mesh.Ask(ctx, node, &mesh.Request{ID: newRequestID(), Op: opCreate, Shard: shard, Body: persistence.EncodeWrites(writes)})
	if err != nil {
		return nil, err
	}
	var c created
	if err := json.Unmarshal(a.Body, &c); err != nil {
		return nil, fault.New(fault.Unavailable, "cluster.create", node, "its answer does not decode: %w", err)
	}
	errs := make([]error, len(writes))
	for i, f := range c {
		if i >= 0 && i < len(errs) {
			errs[i] = (&fault.Error{Op: f.Op, Key: f.Key, Kind: f.Kind, Err: errText(f.Text)}).WithRemedy("%s", f.Remedy)
		}
	}
	return errs, nil
}

type errText string

func (e errText) Error() string { return string(e) }

func serveCreate(ctx context.Context, _ string, o *Owner, body []byte) ([]byte, error) {
	writes, err := persistence.DecodeWrites(body)
	if err != nil {
		return nil, err
	}
	c := created{}
	for i, err := range o.create(ctx, writes) {
		if err != nil {
			c[i] = &wireFault{Op: "cluster.create", Key: writes[i].Key.String(), Kind: fault.KindOf(err), Text: err.Error(), Remedy: fault.RemedyOf(err)}
		}
	}
	return json.Marshal(c)
}
