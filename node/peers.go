package node

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/cluster/members"
)

// peers is the members as the parts below ask for them, many times a second: a snapshot that is replaced
// at each change. What gossip lost stays known by its last address, because gossip only suggests: Raft and the
// mesh may still reach it.
type peers struct {
	list *members.List
	now  atomic.Pointer[snapshot]
	stop func()
	wg   sync.WaitGroup
}

// snapshot is never changed once it is published.
type snapshot struct {
	alive  []cluster.Peer
	byName map[string]members.Member // newest seen, alive or not; at most knownMax
	byNode map[string]members.Member
	former map[string]string // names of data directories that their nodes have no more; at most knownMax
}

const knownMax = 1024 // names remembered

// newPeers follows list. changed is called after each change, with the names that are gone by it.
func newPeers(list *members.List, log *slog.Logger, changed func(gone []string)) *peers {
	p := &peers{list: list}
	p.now.Store(&snapshot{byName: map[string]members.Member{}, byNode: map[string]members.Member{}})
	c, stop := list.Changed()
	p.refresh()
	done := make(chan struct{})
	var once sync.Once
	p.stop = func() { once.Do(func() { stop(); close(done) }) }
	p.wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-c:
			}
			gone := p.refresh()
			for _, name := range gone {
				log.Warn("a node is gone", "node", name)
			}
			changed(gone)
		}
	})
	return p
}

// refresh publishes what the list says now, and returns who was alive before and is no more.
func (p *peers) refresh() (gone []string) {
	old := p.now.Load()
	s := &snapshot{byName: map[string]members.Member{}, byNode: map[string]members.Member{}, former: map[string]string{}}
	here := map[string]bool{}
	for _, m := range p.list.Members() {
		s.alive = append(s.alive, cluster.Peer{Name: m.Name, Node: m.Node, Boot: m.Boot, Engines: m.Engines, Erases: m.Knows >= knowsErase, Seconds: m.Knows >= knowsLanes, Bytes: m.Knows >= knowsBytes})
		s.byName[m.Name] = m
		here[m.Name] = true
	}
	for name, m := range old.byName {
		if !here[name] && len(s.byName) < knownMax {
			s.byName[name] = m
		}
	}
	for _, m := range s.byName {
		// A data directory may come back under another name: who lives has it, else who started last.
		x, taken := s.byNode[m.Node]
		if m.Node != "" && (!taken || here[m.Name] && !here[x.Name] || here[m.Name] == here[x.Name] && m.Boot > x.Boot) {
			s.byNode[m.Node] = m
		}
	}
	for node, m := range old.byNode {
		if _, still := s.byNode[node]; !still && len(s.former) < knownMax {
			s.former[node] = m.Name
		}
	}
	for node, name := range old.former {
		if _, again := s.byNode[node]; !again && len(s.former) < knownMax {
			s.former[node] = name
		}
	}
	for _, m := range old.alive {
		if !here[m.Name] {
			gone = append(gone, m.Name)
		}
	}
	p.now.Store(s)
	return gone
}

// close ends the following. It is safe to call twice.
func (p *peers) close() {
	p.stop()
	p.wg.Wait()
}

// Alive is part of cluster.Peers.
func (p *peers) Alive() []cluster.Peer { return p.now.Load().alive }

// Name is part of cluster.Peers.
func (p *peers) Name(node string) (string, bool) {
	m, ok := p.now.Load().byNode[node]
	return m.Name, ok
}

// known returns all members that were seen, alive or not.
func (p *peers) known() []knownMember {
	s := p.now.Load()
	var all []knownMember
	for name, m := range s.byName {
		alive := slices.ContainsFunc(s.alive, func(a cluster.Peer) bool { return a.Name == name })
		all = append(all, knownMember{Member: m, Alive: alive})
	}
	return all
}

// named returns the name that a data directory has or had, "" when it was never seen.
func (p *peers) named(node string) string {
	s := p.now.Load()
	if m, ok := s.byNode[node]; ok {
		return m.Name
	}
	return s.former[node]
}

// remote resolves a name to where its mesh listens.
func (p *peers) remote(name string) (string, bool) {
	m, ok := p.now.Load().byName[name]
	return m.Remote, ok && m.Remote != ""
}

// raft resolves a node id to where its Raft network listens, and its name.
func (p *peers) raft(node string) (addr, name string, ok bool) {
	m, ok := p.now.Load().byNode[node]
	return m.Raft, m.Name, ok && m.Raft != ""
}

// nodeOf resolves a name to its node id.
func (p *peers) nodeOf(name string) (string, bool) {
	m, ok := p.now.Load().byName[name]
	return m.Node, ok && m.Node != ""
}
