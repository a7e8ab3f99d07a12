package members

import (
	"maps"
	"slices"
	"strings"
	"sync"
)

// lostMax bounds the members that died and whose address is still tried; the alphabet chooses beyond it.
const lostMax = 64

// table is what gossip said last. Its mutex is held for map accesses only, and taken under memberlist's
// lock: whoever holds it must not call memberlist.
type table struct {
	mu       sync.Mutex
	self     Member
	meta     []byte            // of self, encoded
	alive    map[string]Member // by name, without self
	lost     map[string]string // gossip addresses of members that died without a leave
	watchers map[chan struct{}]struct{}
}

func newTable(self Member, meta []byte) *table {
	return &table{self: self, meta: meta, alive: map[string]Member{}, lost: map[string]string{}, watchers: map[chan struct{}]struct{}{}}
}

// put notes a living member and tells whether it is new.
func (t *table) put(m Member) (joined bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.Name == t.self.Name {
		t.self.Gossip = m.Gossip
		return false
	}
	old, ok := t.alive[m.Name]
	delete(t.lost, m.Name)
	t.alive[m.Name] = m
	if !ok || old != m {
		t.signal()
	}
	return !ok
}

// drop notes that a member is gone. memberlist does not say whether it left or died; a member that leaves says so first.
func (t *table) drop(name string) (was Member, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if was, ok = t.alive[name]; !ok {
		return was, false
	}
	delete(t.alive, name)
	if !was.Stopping && len(t.lost) < lostMax {
		t.lost[name] = was.Gossip
	}
	t.signal()
	return was, true
}

// setSelf changes what this node says of itself; f returns the new Member and its encoding.
func (t *table) setSelf(f func(Member) (Member, []byte, error)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	m, b, err := f(t.self)
	if err != nil {
		return err
	}
	if m != t.self {
		t.self, t.meta = m, b
		t.signal()
	}
	return nil
}

// members returns self and the others, by name.
func (t *table) members() []Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := append(slices.Collect(maps.Values(t.alive)), t.self)
	slices.SortFunc(all, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// others returns how many others live, their addresses with the own one, and those of the lost.
func (t *table) others() (n int, here map[string]bool, lost []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	here = map[string]bool{t.self.Gossip: true}
	for _, m := range t.alive {
		here[m.Gossip] = true
	}
	return len(t.alive), here, slices.Sorted(maps.Values(t.lost))
}

func (t *table) own() (Member, []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.self, t.meta
}

// watch returns a channel that gets a value after each change, merged when its reader is slow.
func (t *table) watch() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.watchers[c] = struct{}{}
	return c, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.watchers, c)
	}
}

// signal runs under mu.
func (t *table) signal() {
	for c := range t.watchers {
		select {
		case c <- struct{}{}:
		default: // one is waiting already
		}
	}
}
