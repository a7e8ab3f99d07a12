package node

import (
	"context"
	"encoding/json"

	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const opDrain = "node.drain"

// drainAsk makes a node leave, or stay after all.
type drainAsk struct {
	Leave bool `json:"leave"`
}

// Drain makes a node give its replicas and leads away, or, with leave false, take part again. It returns once the node
// says so to the others; the coordinator does the rest.
//
// Refused: fewer nodes would stay than a shard has copies, and force is not set.
func (s *service) Drain(ctx context.Context, node string, leave, force bool) error {
	if s.known == nil {
		return fault.New(fault.Refused, "cluster.drain", node, "this node is alone: nobody could take over")
	}
	body, err := json.Marshal(drainAsk{leave})
	if err != nil {
		return fault.New(fault.Invalid, "cluster.drain", node, "%w", err)
	}
	here, stay := false, 0
	for _, m := range s.known() {
		switch {
		case !m.Alive:
		case m.Name == node:
			here = true
		case !m.Leaving:
			stay++
		}
	}
	if !here {
		return fault.New(fault.NotFound, "cluster.drain", node, "no living node has this name").
			WithRemedy("autoglm cluster status lists them; a dead node's replicas are replaced by themselves")
	}
	if leave && !force && stay < s.replicas {
		return fault.New(fault.Refused, "cluster.drain", node, "%d nodes would stay, and each shard has %d copies", stay, s.replicas).
			WithRemedy("start another node first; to go on with fewer copies, drain it with --force")
	}
	_, err = s.sys.Router.CallNode(ctx, node, opDrain, body)
	return err
}

// serveDrain does it on the node that is meant.
func (j *joint) serveDrain(_ context.Context, from string, body []byte) ([]byte, error) {
	var q drainAsk
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, fault.New(fault.Invalid, opDrain, from, "%w", err)
	}
	j.n.log.Info("drain", "leave", q.Leave, "asked_by", from)
	return []byte("{}"), j.list.Update(func(m *members.Member) { m.Leaving = q.Leave })
}
