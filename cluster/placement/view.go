package placement

import (
	"cmp"
	"fmt"
	"time"

	"github.com/open-autoglm/autoglm/persistence"
)

// Settings bound what Plan does.
type Settings struct {
	Replicas   int           // voters of each shard, where there are nodes for them; 3
	Grace      time.Duration // a dead node keeps its replicas this long; 30 s
	ChangesMax int           // replicas that learn at once, and leads moved in one plan; 8
	Behind     uint64        // entries that a replica may lack to count as caught up; 64
	LeadSpread int           // leads that one node may have more than another; 1
}

// Defaults are the Settings of a cluster that sets none. Behind is what one shard writes in some hundredths of a second at full
// speed: the two indexes compared were read at different moments, and a replica that does not lead is that late. Where
// more is written between, View.Before tells.
var Defaults = Settings{Replicas: 3, Grace: 30 * time.Second, ChangesMax: 8, Behind: 64, LeadSpread: 1}

func (s Settings) orDefaults() Settings {
	if s.Replicas <= 0 {
		s.Replicas = Defaults.Replicas
	}
	if s.Grace <= 0 {
		s.Grace = Defaults.Grace
	}
	if s.ChangesMax <= 0 {
		s.ChangesMax = Defaults.ChangesMax
	}
	if s.Behind == 0 {
		s.Behind = Defaults.Behind
	}
	if s.LeadSpread <= 0 {
		s.LeadSpread = Defaults.LeadSpread
	}
	return s
}

// Node is a data directory that lives, or that some group still counts on. A wiped node is two of them
// with one name.
type Node struct {
	ID       string    // never empty
	Name     string    // of the member; empty when it was never seen alive
	Zone     string    // may be empty
	Alive    bool      // gossip sees it, under this id
	Since    time.Time // of Alive being what it is, as far as the coordinator knows
	Leaving  bool      // it drains, or did when it was last seen
	Reported bool      // Groups are what it said just now
	Groups   []persistence.Group
}

// View is everything that a plan is made of.
type View struct {
	Now    time.Time
	Nodes  []Node
	Groups []*persistence.Group // by shard, as the leader's replica reported it; nil: nobody leads, or did not answer
	Before []uint64             // by shard, what the leader had applied a moment ago; 0, or none: not known
	Settings
}

// Kind is what an Action does.
type Kind string

const (
	AddLearner Kind = "add-learner" // change of the membership, by its leader
	Join       Kind = "join"        // start a replica that the membership has, on its own node
	Promote    Kind = "promote"     // change of the membership
	Remove     Kind = "remove"      // change of the membership
	Drop       Kind = "drop"        // delete a replica that the membership does not have any more, on its own node
	Transfer   Kind = "transfer"    // hand the lead over, by the leader
)

// Action is one step that Plan decided on.
type Action struct {
	Kind    Kind   `json:"kind"`
	Shard   int    `json:"shard"`
	Node    string `json:"node"`              // id of the node whose replica it is about
	Name    string `json:"name,omitempty"`    // of that node, for people; empty where nobody knows it
	Replica uint64 `json:"replica"`           // its id
	On      string `json:"on"`                // id of the node that carries it out
	Version uint64 `json:"version,omitempty"` // of the membership that a change was decided on
	Why     string `json:"why"`               // for people
}

// String says it in one line.
func (a Action) String() string {
	return fmt.Sprintf("shard %d: %s replica %d on %s: %s", a.Shard, a.Kind, a.Replica, cmp.Or(a.Name, "node "+a.Node), a.Why)
}

// Change returns what the leader's store is to do, and whether this action is a change of the membership.
func (a Action) Change() (persistence.Change, bool) {
	c := persistence.Change{Version: a.Version}
	switch a.Kind {
	case AddLearner:
		c.Add = &persistence.Replica{ID: a.Replica, Node: a.Node}
	case Promote:
		c.Add = &persistence.Replica{ID: a.Replica, Node: a.Node, Voter: true}
	case Remove:
		c.Remove = a.Replica
	default:
		return c, false
	}
	return c, true
}
