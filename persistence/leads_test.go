package persistence

import (
	"testing"

	"github.com/lni/dragonboat/v4/raftio"
	"github.com/stretchr/testify/require"
)

func TestNews(t *testing.T) {
	me := Lead{Leading: true, Node: "me", Term: 3}
	other := Lead{Node: "other", Term: 3}
	for _, x := range []struct {
		before, now Lead
		want        bool
	}{
		{Lead{}, Lead{}, false},
		{Lead{}, Lead{Term: 1}, false}, // nobody still
		{Lead{}, me, true},
		{me, me, false},
		{me, Lead{Leading: true, Node: "me", Term: 5}, true}, // lost and won meanwhile
		{me, Lead{Term: 3}, true},
		{Lead{Term: 3}, Lead{Term: 4}, false},
		{Lead{Term: 3}, other, true},
		{other, Lead{Node: "other", Term: 4}, true},
		{other, me, true},
	} {
		require.Equal(t, x.want, news(x.before, x.now), "%v %v", x.before, x.now)
	}
}

// TestLeadsOfReplicas: whose node leads is told once it is known; changes merge for a slow receiver, but a lead that was
// lost and won again is told in its new term.
func TestLeadsOfReplicas(t *testing.T) {
	nodes := make(chan map[uint64]string, 1)
	nodes <- map[uint64]string{1: "me"}
	l := newLeads("me", 1, func(_ int, replica uint64) string {
		m := <-nodes
		nodes <- m
		return m[replica]
	})
	defer l.close()
	info := func(leader, term uint64) {
		l.LeaderUpdated(raftio.LeaderInfo{ShardID: 1, ReplicaID: 1, LeaderID: leader, Term: term})
	}
	info(1, 1)
	require.Nil(t, l.leading(0), "of a replica that is not here")
	l.host(0, 1)
	info(2, 1)
	for len(l.wake) > 0 { // until it was looked at
	}
	<-nodes
	nodes <- map[uint64]string{1: "me", 2: "other"}
	l.look(0)
	require.Equal(t, Lead{Node: "other", Term: 1}, <-l.out)
	info(1, 2)
	first := l.leading(0)
	require.EqualValues(t, 2, first.term)
	require.Equal(t, Lead{Leading: true, Node: "me", Term: 2}, <-l.out)
	info(0, 2)
	info(0, 3)
	info(1, 4)
	<-first.ended
	require.EqualValues(t, 4, l.leading(0).term)
	for lead := range l.out {
		if lead.Leading {
			require.Equal(t, Lead{Leading: true, Node: "me", Term: 4}, lead)
			break
		}
		require.Equal(t, Lead{Term: lead.Term}, lead)
	}
	l.host(0, 0)
	require.Equal(t, Lead{Term: 4}, <-l.out)
	require.Nil(t, l.leading(0))
}

// TestWatch: who waits for a lead to move is woken by a new leader, a new term, and nothing else.
func TestWatch(t *testing.T) {
	l := newLeads("me", 1, func(int, uint64) string { return "" })
	defer l.close()
	l.host(0, 1)
	woken := func(c <-chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	info := func(leader, term uint64) {
		l.LeaderUpdated(raftio.LeaderInfo{ShardID: 1, ReplicaID: 1, LeaderID: leader, Term: term})
	}
	info(1, 3)
	leader, term, moved := l.watch(0)
	require.Equal(t, []uint64{1, 3}, []uint64{leader, term})
	info(1, 3)
	l.look(0)
	require.False(t, woken(moved))
	info(0, 3)
	require.True(t, woken(moved))
	_, _, moved = l.watch(0)
	info(0, 4)
	require.True(t, woken(moved))
	leader, term, moved = l.watch(0)
	require.Equal(t, []uint64{0, 4}, []uint64{leader, term})
	info(2, 4)
	require.True(t, woken(moved))
}
