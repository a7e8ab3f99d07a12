package persistence

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// TestReplication: an acknowledged write is in the store of another node too.
func TestReplication(t *testing.T) {
	c := formed(t, 3, Options{Shards: 2})
	for shard := range 2 {
		l := c.leader(shard)
		for i := range 20 {
			l.write(shard, fmt.Sprint(i), []byte("x"))
		}
		for _, m := range c.nodes {
			require.NoError(t, barrier(m.s.Journal(shard), within(t)))
			require.Len(t, m.has(shard), 20, "a Barrier and then all is here")
			n, err := m.s.Journal(shard).Counters()
			require.NoError(t, err)
			require.EqualValues(t, 20, n["n"])
			c.eventually(func() bool { return m.leads.of(shard).Node == l.id }, "everybody knows who leads")
			require.Equal(t, m == l, m.leads.of(shard).Leading)
			require.Equal(t, l.leads.of(shard).Term, m.leads.of(shard).Term)
			g := m.group(shard)
			require.Len(t, g.Replicas, 3)
			require.NotZero(t, g.Self)
			if m != l {
				start := time.Now()
				require.Equal(t, fault.Unavailable, kind(appendRaw(m, shard, l.epoch[shard], patience)))
				require.Less(t, time.Since(start), time.Second, "refused at once")
				require.Equal(t, fault.Unavailable, kind(m.s.Change(within(t), shard, Change{Version: g.Version, Remove: 1})))
				require.Equal(t, fault.Unavailable, kind(m.s.Transfer(within(t), shard, g.Self)))
			}
		}
		c.equal(shard, c.nodes...)
	}
}

func appendRaw(m *member, shard int, epoch uint64, timeout time.Duration) error {
	done := make(chan error, 1)
	m.s.Journal(shard).Append(epoch, []Write{{Key: Key{"k", "raw"}, Data: []byte("x")}}, timeout, func(_ []Outcome, err error) { done <- err })
	return <-done
}

// TestFailover: the leader's store goes, another one leads in a newer term, and the old owner's epoch is
// worth nothing when it comes back.
func TestFailover(t *testing.T) {
	c := formed(t, 3, Options{Shards: 1})
	old := c.leader(0)
	old.write(0, "a", []byte("x"))
	epoch, term := old.epoch[0], old.leads.of(0).Term
	old.close()
	l := c.leader(0)
	require.Greater(t, l.leads.of(0).Term, term)
	require.Equal(t, []string{"a"}, l.has(0))
	l.write(0, "b", []byte("x"))
	require.Greater(t, l.epoch[0], epoch)
	require.Equal(t, fault.Fenced, kind(appendRaw(l, 0, epoch, patience)))
	old.open()
	c.eventually(func() bool { return old.leads.of(0).Node == l.id }, "it follows")
	require.NoError(t, barrier(old.s.Journal(0), within(t)))
	require.Equal(t, []string{"a", "b"}, old.has(0))

	require.Equal(t, fault.Invalid, kind(l.s.Transfer(within(t), 0, 99)))
	require.NoError(t, l.s.Transfer(within(t), 0, l.group(0).Self), "it leads already")
	c.handTo(0, old)
	old.write(0, "c", []byte("x"))
	require.Greater(t, old.epoch[0], l.epoch[0])
	require.NotEqual(t, fault.Unknown, kind(appendRaw(l, 0, l.epoch[0], time.Second)))
	c.equal(0, c.nodes...)
	for _, m := range c.nodes { // all at once, as after a power cut
		m.close()
	}
	for _, m := range c.nodes {
		m.open()
	}
	c.leader(0).write(0, "d", []byte("x"))
	c.equal(0, c.nodes...)
	for _, m := range c.nodes {
		require.Len(t, m.has(0), 4)
	}
}

// TestMinority: a leader cut off from the others acknowledges nothing, can not prove that it leads, and
// steps back when it is joined again.
func TestMinority(t *testing.T) {
	for name, oneWay := range map[string]bool{"both ways": false, "one way": true} {
		t.Run(name, func(t *testing.T) {
			c := formed(t, 3, Options{Shards: 1})
			old := c.leader(0)
			old.write(0, "a", []byte("x"))
			for _, m := range c.nodes {
				if m != old {
					c.net.cutOneWay(old.id, m.id, true)
					c.net.cutOneWay(m.id, old.id, !oneWay)
				}
			}
			err := old.try(0, "lost", 0, []byte("x"), 300*time.Millisecond)
			require.Contains(t, []fault.Kind{fault.Timeout, fault.Unavailable}, kind(err), "%v", err)
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			defer cancel()
			require.Equal(t, fault.Timeout, kind(barrier(old.s.Journal(0), ctx)))
			var l *member
			c.eventually(func() bool {
				for _, m := range c.nodes {
					if m != old && m.leads.of(0).Leading {
						l = m
					}
				}
				return l != nil && !old.leads.of(0).Leading
			}, "the majority leads, the old leader knows that it does not")
			l.write(0, "b", []byte("x"))
			require.Equal(t, fault.Unavailable, kind(appendRaw(old, 0, old.epoch[0], patience)))
			for _, m := range c.nodes {
				c.net.cut(old.id, m.id, false)
			}
			c.eventually(func() bool { return len(old.has(0)) == 2 }, "it learns, by itself, on new connections")
			c.equal(0, c.nodes...)
			require.Equal(t, []string{"a", "b"}, old.has(0))
		})
	}
}
