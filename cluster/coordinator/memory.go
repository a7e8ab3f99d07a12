package coordinator

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/cluster/placement"
	"github.com/open-autoglm/autoglm/cluster/replicas"
	"github.com/open-autoglm/autoglm/persistence"
)

const (
	forgetAfter  = 10 * time.Minute // a dead node that no group counts on is remembered this long
	troubleAfter = 10 * time.Second // a shard that cannot be placed for this long is said to be in trouble
	beforeMax    = 2 * time.Second  // what a leader had applied longer ago says nothing of who has caught up
)

// memory is what a coordinator knows of nodes beyond what it sees now. It begins empty: a new coordinator
// waits the whole grace time for a node that it never saw.
type memory struct {
	nameOf func(node string) string // Options.NameOf, or nobody is known
	nodes  map[string]*known        // by node id
	sick   map[int]*sickness        // shards that cannot be placed
	begun  bool                     // it looked once
	marks  map[int]mark             // by shard
}

// mark is what a leader had applied when it was last asked.
type mark struct {
	applied uint64
	at      time.Time
}

// sickness is why a shard's group is not known, and since when.
type sickness struct {
	since time.Time
	said  string
}

// known is one data directory.
type known struct {
	members.Member           // as last seen; empty when never
	alive          bool      // in gossip, and not stopping
	since          time.Time // of alive being what it is, or of this boot
	needed         bool      // some group counts on it
}

func newMemory(nameOf func(string) string) *memory {
	return &memory{nameOf: nameOf, nodes: map[string]*known{}, sick: map[int]*sickness{}, marks: map[int]mark{}}
}

// look compares the living members with those known and says what changed.
func (m *memory) look(now time.Time, living []members.Member) (news []string) {
	here := map[string]bool{}
	for _, x := range living {
		if x.Node == "" || x.Stopping {
			continue
		}
		here[x.Node] = true
		k := m.nodes[x.Node]
		switch {
		case !m.begun: // said in one line below
		case k == nil || k.Name == "":
			news = append(news, fmt.Sprintf("%s joined (node %s%s)", x.Name, x.Node, zoneText(x.Zone)))
			for id, old := range m.nodes {
				if old.Name == x.Name && id != x.Node {
					news = append(news, fmt.Sprintf("%s has a new data directory: node %s is given up", x.Name, id))
				}
			}
		case !k.alive:
			news = append(news, fmt.Sprintf("%s is back after %v", x.Name, now.Sub(k.since).Round(time.Millisecond)))
		case k.Boot != x.Boot:
			news = append(news, fmt.Sprintf("%s restarted", x.Name))
		}
		if k != nil && x.Leaving && !k.Leaving {
			news = append(news, fmt.Sprintf("%s is leaving", x.Name))
		}
		if k == nil {
			k = &known{}
			m.nodes[x.Node] = k
		}
		if !k.alive || k.Boot != x.Boot {
			k.since = now
		}
		k.Member, k.alive = x, true
	}
	if !m.begun {
		m.begun = true
		var names []string
		for _, k := range m.nodes {
			names = append(names, k.Name)
		}
		slices.Sort(names)
		news = []string{"members now: " + strings.Join(names, ", ")}
	}
	for _, id := range slices.Sorted(maps.Keys(m.nodes)) {
		k := m.nodes[id]
		if k.alive && !here[id] {
			k.alive, k.since = false, now
			how := "is dead or cut off"
			if slices.ContainsFunc(living, func(x members.Member) bool { return x.Node == id }) {
				how = "stops"
			}
			news = append(news, fmt.Sprintf("%s %s", k.Name, how))
		}
		if !k.alive && !k.needed && now.Sub(k.since) >= forgetAfter {
			delete(m.nodes, id)
		}
	}
	return news
}

func zoneText(zone string) string {
	if zone == "" {
		return ""
	}
	return ", zone " + zone
}

// view puts together what the nodes reported. News are shards that two groups claim: nothing is done to them.
func (m *memory) view(now time.Time, shards int, reports map[string]replicas.Report, set placement.Settings) (placement.View, []string) {
	v := placement.View{Now: now, Settings: set, Groups: make([]*persistence.Group, shards), Before: make([]uint64, shards)}
	for _, k := range m.nodes {
		k.needed = false
	}
	claims := make([]claim, shards)
	for _, id := range slices.Sorted(maps.Keys(reports)) {
		for _, g := range reports[id].Groups {
			if g.Shard < 0 || g.Shard >= shards || g.Self == 0 {
				continue
			}
			claims[g.Shard].add(g)
			for _, r := range g.Replicas {
				if m.nodes[r.Node] == nil {
					k := &known{since: now}
					k.Name = m.nameOf(r.Node)
					m.nodes[r.Node] = k
				}
				m.nodes[r.Node].needed = true
			}
		}
	}
	var news []string
	for shard := range claims {
		c := &claims[shard]
		trouble := c.trouble()
		if trouble == "" {
			v.Groups[shard] = c.group
			if x, ok := m.marks[shard]; ok && now.Sub(x.at) <= beforeMax {
				v.Before[shard] = x.applied
			}
			m.marks[shard] = mark{c.group.Applied, now}
		}
		if text := m.diagnose(now, shard, trouble); text != "" {
			news = append(news, text)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.nodes)) {
		k := m.nodes[id]
		n := placement.Node{ID: id, Name: k.Name, Zone: k.Zone, Alive: k.alive, Since: k.since, Leaving: k.Leaving}
		if r, ok := reports[id]; ok && k.alive {
			n.Reported, n.Groups = true, r.Groups
		}
		v.Nodes = append(v.Nodes, n)
	}
	return v, news
}

// diagnose keeps how long a shard is in trouble, and says so once.
func (m *memory) diagnose(now time.Time, shard int, trouble string) string {
	x := m.sick[shard]
	switch {
	case trouble == "" && x == nil:
		return ""
	case trouble == "":
		delete(m.sick, shard)
		if x.said == "" {
			return ""
		}
		return fmt.Sprintf("shard %d is well again after %v", shard, now.Sub(x.since).Round(time.Second))
	case x == nil:
		x = &sickness{since: now}
		m.sick[shard] = x
	}
	if x.said == trouble || now.Sub(x.since) < troubleAfter {
		return ""
	}
	x.said = trouble
	return fmt.Sprintf("shard %d is left alone: %s", shard, trouble)
}

// claim collects who says to lead a shard.
type claim struct {
	group   *persistence.Group
	leaders int
	split   string            // not empty: these are replicas of two groups
	homes   map[uint64]string // replica id → node id
}

// trouble says why the group is not to be touched. Nobody or two who lead are mostly a lead that changes hands just now;
// a replica id on two nodes never happens within one group.
func (c *claim) trouble() string {
	switch {
	case c.split != "":
		return c.split
	case c.leaders == 0:
		return "no node says that it leads it"
	case c.leaders > 1:
		return "more than one node says that it leads it"
	}
	return ""
}

// add notes one node's replica.
func (c *claim) add(g persistence.Group) {
	if c.homes == nil {
		c.homes = map[uint64]string{}
	}
	for _, r := range g.Replicas {
		if home, ok := c.homes[r.ID]; ok && home != r.Node {
			c.split = fmt.Sprintf("replica %d is on node %s and on node %s, so two clusters were started under one id", r.ID, home, r.Node)
		}
		c.homes[r.ID] = r.Node
	}
	if g.Leader == g.Self {
		c.leaders++
		c.group = &g
	}
}
