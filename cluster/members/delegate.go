package members

import (
	"bytes"
	"fmt"
	"net"
	"strconv"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls, much of it under its node lock. It copies, notes or posts, and never calls
// memberlist back.
type delegate struct{ l *List }

// NodeMeta returns what this node says of itself; it was checked against metaMax when it was set.
func (d delegate) NodeMeta(int) []byte {
	_, b := d.l.table.own()
	return b
}

// NotifyMsg hears a rumor. The bytes are lent.
func (d delegate) NotifyMsg(b []byte) {
	body, ok := d.l.rumors.heard(b)
	if ok && d.l.opt.OnRumor != nil {
		d.l.post(heard{rumor: body})
	}
}

// GetBroadcasts returns the rumors for one packet.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.l.rumors.queue.GetBroadcasts(overhead, limit)
}

// LocalState returns the node's state for an exchange.
func (d delegate) LocalState(bool) []byte {
	if d.l.opt.State == nil {
		return nil
	}
	b := d.l.opt.State()
	if len(b) > StateMax {
		d.l.log.Warn("state not sent", "limit", "StateMax", "bytes", len(b), "max", StateMax)
		return nil
	}
	return b
}

// MergeRemoteState hears a peer's state. The bytes are lent.
func (d delegate) MergeRemoteState(b []byte, _ bool) {
	if len(b) > 0 && len(b) <= StateMax && d.l.opt.Merge != nil {
		d.l.post(heard{state: bytes.Clone(b)})
	}
}

// NotifyJoin notes a member that is new or back.
func (d delegate) NotifyJoin(n *memberlist.Node) {
	d.count(n.Meta)
	if m, err := d.member(n); err == nil && d.l.table.put(m) {
		d.l.log.Info("member joined", "member", m.Name, "address", m.Gossip, "boot", m.Boot)
	}
}

// NotifyUpdate notes what a member says now.
func (d delegate) NotifyUpdate(n *memberlist.Node) {
	d.count(n.Meta)
	if m, err := d.member(n); err == nil {
		d.l.table.put(m)
	}
}

// count tells of a member that says more than this program understands.
func (d delegate) count(meta []byte) {
	if d.l.opt.Newer != nil && newer(meta) {
		d.l.opt.Newer("gossip")
	}
}

// NotifyLeave notes that a member left or died.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	if m, ok := d.l.table.drop(n.Name); ok {
		how := "member is dead"
		if m.Stopping {
			how = "member left"
		}
		d.l.log.Info(how, "member", m.Name, "address", m.Gossip, "boot", m.Boot)
	}
}

// NotifyAlive refuses a member of another cluster, or one that says nothing of itself.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	_, err := d.member(n)
	return err
}

// NotifyMerge refuses an exchange with a node that knows members of another cluster. Members that are dead
// and were never understood here do not count: they are refused one by one.
func (d delegate) NotifyMerge(peers []*memberlist.Node) error {
	for _, n := range peers {
		if m, err := decodeMeta(n.Name, n.Meta); err == nil && m.Cluster != d.l.config.Label {
			return fmt.Errorf("%s belongs to cluster %q, this node to %q", n.Name, m.Cluster, d.l.config.Label)
		}
	}
	return nil
}

// NotifyConflict hears of two addresses for one name. For this node's own the loop finds out
// whether the other one lives or is what is left of an earlier boot.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	if existing.Name != d.l.config.Name {
		return // memberlist logs it
	}
	c := conflict{address: address(other)}
	if m, err := decodeMeta(other.Name, other.Meta); err == nil {
		c.boot = m.Boot
	}
	select {
	case d.l.conflicts <- c:
	default: // one is looked into already; it will be heard of again
	}
}

// member copies a node.
func (d delegate) member(n *memberlist.Node) (Member, error) {
	m, err := decodeMeta(n.Name, n.Meta)
	if err == nil && m.Cluster != d.l.config.Label {
		err = fmt.Errorf("it belongs to cluster %q, this node to %q", m.Cluster, d.l.config.Label)
	}
	m.Gossip = address(n)
	return m, err
}

func address(n *memberlist.Node) string {
	return net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
}
