package cluster

import (
	"context"
	"encoding/json"
	"hash/fnv"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Limits of a Command.
const (
	CommandMax   = 4 << 20 // bytes of its body; the mesh carries four times that, with what JSON adds
	CommandIDMax = 128     // bytes of its id
)

// opCommand carries a Command. Unlike opAsk its answer has the entity's version.
const opCommand = "shard.command"

// Command is a message in the form in which it travels: for who has its bytes, and an id for it.
type Command struct {
	ID   string // the same in each retry; "": it is not remembered
	Type string // its name in the kind's Types
	Body []byte // JSON; nothing is an empty object
}

// Result is the answer to a Command.
type Result struct {
	Type    string // "": the entity answered with nothing
	Body    []byte // JSON
	Version uint64 // of the entity: how many commits it had made when it answered. A repeat has that of the first
}

// Check refuses a command that no node would take.
func (c *Command) Check() error {
	switch {
	case len(c.Body) > CommandMax:
		return fault.New(fault.TooLarge, "cluster.command", "body", "has %d bytes, over CommandMax %d", len(c.Body), CommandMax)
	case len(c.ID) > CommandIDMax:
		return fault.New(fault.Invalid, "cluster.command", "request_id", "has %d bytes, over CommandIDMax %d", len(c.ID), CommandIDMax)
	}
	return nil
}

// sum tells a repeat from another command under the same id. It is of the bytes as they were sent.
func (c *Command) sum() uint64 {
	h := fnv.New64a()
	h.Write([]byte(c.Type))
	h.Write([]byte{0})
	h.Write(c.Body)
	return h.Sum64()
}

// Command is Ask with bytes. A kind that remembers ids (entity.Kind.Dedupe) carries a command out once, however often it is
// sent under its id; of another kind the message must be idempotent, as with Ask.
func (r *Router) Command(ctx context.Context, key persistence.Key, c Command) (Result, error) {
	if err := c.Check(); err != nil {
		return Result{}, err
	}
	q := commandAsk{ID: c.ID, Kind: key.Kind, Key: key.ID, Type: c.Type, Body: c.Body, Sum: c.sum()}
	if len(q.Body) == 0 {
		q.Body = json.RawMessage("{}")
	}
	ask, err := json.Marshal(q)
	if err != nil {
		return Result{}, fault.New(fault.Invalid, "cluster.command", "body", "is not JSON: %w", err)
	}
	var res commandAnswer
	body, err := r.CallOwner(ctx, r.ShardOf(key), opCommand, ask, func(ctx context.Context, o *Owner) (err error) {
		res, err = o.command(ctx, q)
		return err
	})
	if err == nil && body != nil {
		err = decodeAnswer(body, &res)
	}
	if err != nil {
		return Result{}, err
	}
	return Result(res), nil
}

// commandAsk is a Command on the wire.
type commandAsk struct {
	ID   string          `json:"id,omitempty"`
	Kind string          `json:"kind"`
	Key  string          `json:"key"`
	Type string          `json:"type"`
	Body json.RawMessage `json:"body"`
	Sum  uint64          `json:"sum"`
}

type commandAnswer struct {
	Type    string `json:"type,omitempty"`
	Body    []byte `json:"body,omitempty"` // not nested JSON: it comes back byte for byte
	Version uint64 `json:"version"`
}

func serveCommand(ctx context.Context, _ string, o *Owner, body []byte) ([]byte, error) {
	var q commandAsk
	if err := decodeAsk(body, &q); err != nil {
		return nil, err
	}
	a, err := o.command(ctx, q)
	if err != nil {
		return nil, err
	}
	return json.Marshal(a)
}

// command carries a command out on an entity of this owner.
func (o *Owner) command(ctx context.Context, q commandAsk) (a commandAnswer, err error) {
	key := persistence.Key{Kind: q.Kind, ID: q.Key}
	kind, ok := o.router.kinds[q.Kind]
	switch {
	case !ok:
		return a, fault.New(fault.NotFound, "cluster.command", key.String(), "no entity kind %q is registered on node %s", q.Kind, o.router.self)
	case q.Key == "" || len(q.Key) > persistence.KeyMax:
		return a, fault.New(fault.Invalid, "cluster.command", key.Kind, "an id has 1 to %d bytes", persistence.KeyMax)
	case o.router.ShardOf(key) != o.shard:
		return a, fault.New(fault.Invalid, "cluster.command", key.String(), "shard %d was asked for it: the nodes do not agree on the number of shards", o.shard)
	}
	types := kind.Types()
	msg, err := types.Decode(q.Type, q.Body)
	if err != nil {
		return a, err
	}
	v, version, err := o.send(ctx, &Envelope{Key: key, Msg: msg, ID: q.ID, Sum: q.Sum})
	if err != nil {
		return a, err
	}
	a.Version = version
	if a.Type, a.Body, err = types.Encode(v); err == nil && len(a.Body) > CommandMax {
		err = fault.New(fault.TooLarge, "cluster.command", key.String(), "the answer has %d bytes, over CommandMax %d", len(a.Body), CommandMax)
	}
	return a, err
}
