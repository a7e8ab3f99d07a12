package members

import (
	"encoding/json"

	"github.com/hashicorp/memberlist"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// metaMax is how much memberlist carries with each member, in bytes.
const metaMax = memberlist.MetaMaxSize // 512

// metaFormat is written by this program, and grows with each key that is added. A newer one may add keys, which are
// ignored here, but never change the meaning of one.
const metaFormat = 3

// meta is a Member on the wire, without what memberlist itself carries. Keys are short, since
// metaMax is, and differ without regard to case, as encoding/json matches them so.
type meta struct {
	Format   int    `json:"v"`
	Node     string `json:"n,omitempty"`
	Boot     string `json:"b"`
	Cluster  string `json:"c"`
	Shards   int    `json:"s,omitempty"`
	Founded  bool   `json:"f,omitempty"`
	Raft     string `json:"r,omitempty"`
	Remote   string `json:"a,omitempty"`
	HTTP     string `json:"h,omitempty"`
	Zone     string `json:"z,omitempty"`
	Version  string `json:"p,omitempty"`
	Engines  int    `json:"e,omitempty"`
	Leaving  bool   `json:"l,omitempty"`
	Stopping bool   `json:"o,omitempty"`
	Lineage  string `json:"g,omitempty"`
	Keys     string `json:"k,omitempty"`
	Knows    int    `json:"w,omitempty"`
}

// encodeMeta is TooLarge when the result would not fit.
func encodeMeta(m Member) ([]byte, error) {
	b, err := json.Marshal(meta{Format: metaFormat, Node: m.Node, Boot: m.Boot, Cluster: m.Cluster, Shards: m.Shards,
		Founded: m.Founded, Raft: m.Raft, Remote: m.Remote, HTTP: m.HTTP, Zone: m.Zone, Version: m.Version,
		Engines: m.Engines, Leaving: m.Leaving, Stopping: m.Stopping, Lineage: m.Lineage, Keys: m.Keys, Knows: m.Knows})
	if err != nil {
		return nil, &fault.Error{Op: "members.meta", Key: m.Name, Kind: fault.Invalid, Err: err}
	}
	if len(b) > metaMax {
		return nil, fault.New(fault.TooLarge, "members.meta", m.Name, "what gossip tells of this node takes %d bytes, more than metaMax of %d",
			len(b), metaMax).WithRemedy("shorten its zone, its addresses or the cluster id")
	}
	return b, nil
}

// decodeMeta copies everything out of b.
func decodeMeta(name string, b []byte) (Member, error) {
	var m meta
	if err := json.Unmarshal(b, &m); err != nil {
		return Member{}, fault.New(fault.Malformed, "members.meta", name, "%w", err)
	}
	if m.Format < 1 || m.Boot == "" || m.Cluster == "" {
		return Member{}, fault.New(fault.Malformed, "members.meta", name, "no format, boot or cluster in it")
	}
	return Member{Name: name, Node: m.Node, Boot: m.Boot, Cluster: m.Cluster, Shards: m.Shards, Founded: m.Founded,
		Raft: m.Raft, Remote: m.Remote, HTTP: m.HTTP, Zone: m.Zone, Version: m.Version, Engines: m.Engines, Leaving: m.Leaving, Stopping: m.Stopping, Lineage: m.Lineage, Keys: m.Keys, Knows: m.Knows}, nil
}

// newer tells whether a program with more keys made b, which decodes.
func newer(b []byte) bool {
	var m meta
	return json.Unmarshal(b, &m) == nil && m.Format > metaFormat
}
