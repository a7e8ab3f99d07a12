package node

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/persistence"
)

const (
	opFacts     = "node.facts"
	factsWithin = 2 * time.Second
	factsFresh  = 5 * time.Second // what others said of their models is asked again after this
)

// facts is what a node tells of itself.
type facts struct {
	Version string              `json:"version"`
	Started time.Time           `json:"started"`
	Groups  []persistence.Group `json:"groups"`
	Owned   []owned             `json:"owned"`
	Engines []api.EngineStatus  `json:"engines"`
	Space   persistence.Space   `json:"space"`
}

// owned is a shard that a node owns.
type owned struct {
	Shard int       `json:"shard"`
	Term  uint64    `json:"term"`
	Epoch uint64    `json:"epoch"`
	Since time.Time `json:"since"`
}

func (s *service) facts() facts {
	f := facts{Version: s.version, Started: s.started, Groups: s.store.Groups(), Engines: s.engines(), Space: s.store.Space()}
	for _, o := range s.sys.Shards.Owners() {
		f.Owned = append(f.Owned, owned{o.Shard(), o.Term(), o.Epoch(), o.Since()})
	}
	return f
}

func (s *service) serveFacts(context.Context, string, []byte) ([]byte, error) {
	return json.Marshal(s.facts())
}

// told is what a node answered.
type told struct {
	facts
	err error
}

// ask gathers the facts of all living nodes, by name.
func (s *service) ask(ctx context.Context, alive []cluster.Peer) map[string]told {
	ctx, cancel := context.WithTimeout(ctx, factsWithin)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	all := map[string]told{}
	for _, p := range alive {
		wg.Go(func() {
			var t told
			if p.Name == s.id {
				t.facts = s.facts()
			} else {
				body, err := s.sys.Router.CallNode(ctx, p.Name, opFacts, nil)
				if err == nil {
					err = json.Unmarshal(body, &t.facts)
				}
				t.err = err
			}
			mu.Lock()
			defer mu.Unlock()
			all[p.Name] = t
		})
	}
	wg.Wait()
	return all
}

// Cluster shows who is there, who holds what, and what can be lost.
func (s *service) Cluster(ctx context.Context) api.Cluster {
	c, _ := s.overview.look(ctx, s, 0)
	return c
}

func (s *service) view(ctx context.Context) api.Cluster {
	alive := s.sys.Router.Alive()
	all := s.ask(ctx, alive)
	c := api.Cluster{Cluster: s.cluster, Node: s.id, Copies: max(1, s.replicas), Shards: make([]api.Shard, s.store.Shards())}
	for i := range c.Shards {
		c.Shards[i].Shard = i
	}
	known := s.members()
	names := map[string]string{} // by node id
	for _, m := range known {
		if names[m.Node] == "" || m.Alive {
			names[m.Node] = m.Name
		}
	}
	applied := map[string]map[int]persistence.Group{} // by node id, then shard
	for _, m := range known {
		t, here := all[m.Name]
		n := api.Member{Member: m.Member, Alive: m.Alive, Started: t.Started, Engines: t.Engines, Space: t.Space, Owned: len(t.Owned), Err: t.err}
		n.Replicas = len(t.Groups)
		c.Members = append(c.Members, n)
		if !here || t.err != nil {
			continue
		}
		applied[m.Node] = map[int]persistence.Group{}
		for _, g := range t.Groups {
			applied[m.Node][g.Shard] = g
			if g.Shard < len(c.Shards) && g.Version > c.Shards[g.Shard].Version {
				c.Shards[g.Shard].Version, c.Shards[g.Shard].Replicas = g.Version, replicasOf(g)
			}
		}
		for _, o := range t.Owned {
			if o.Shard >= len(c.Shards) {
				continue
			}
			sh := &c.Shards[o.Shard]
			if sh.Lead == nil || sh.Lead.Epoch < o.Epoch {
				sh.Lead = &api.Lead{Node: m.Name, Term: o.Term, Epoch: o.Epoch, Since: o.Since}
			}
		}
	}
	for i := range c.Shards {
		for j := range c.Shards[i].Replicas {
			r := &c.Shards[i].Replicas[j]
			g, ok := applied[r.Node][i]
			r.Alive = ok && g.Self == r.ID
			if r.Alive {
				r.Applied = g.Applied
			}
			if name := names[r.Node]; name != "" {
				r.Node = name
			}
		}
	}
	if len(c.Shards) > 0 {
		c.Coordinator = c.Shards[0].Lead
	}
	slices.SortFunc(c.Members, func(a, b api.Member) int { return strings.Compare(a.Name, b.Name) })
	return c
}

func replicasOf(g persistence.Group) []api.Replica {
	rs := make([]api.Replica, len(g.Replicas))
	for i, r := range g.Replicas {
		rs[i] = api.Replica{Node: r.Node, ID: r.ID, Voter: r.Voter}
	}
	return rs
}

// knownMember is a member that gossip tells of now, or told of before.
type knownMember struct {
	members.Member
	Alive bool
}

// members returns all that are known; of a node that is alone, itself.
func (s *service) members() []knownMember {
	if s.known != nil {
		return s.known()
	}
	return []knownMember{{Member: members.Member{Name: s.id, Node: s.store.Node(), Shards: s.store.Shards(), Founded: true, Version: s.version, HTTP: s.http, Knows: knowsAll}, Alive: true}}
}

// Events shows what the coordinator decided and saw, oldest first.
func (s *service) ClusterEvents(ctx context.Context) ([]api.ClusterEvent, error) {
	if s.events == nil {
		return nil, nil
	}
	return s.events(ctx)
}
