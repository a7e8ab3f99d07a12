package node

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/node/api"
)

// three is a cluster of nodes a, b and c where one shard has a replica on each, with so many entries applied. Minus one: it is down.
func three(applied ...int) *api.Cluster {
	c := &api.Cluster{Copies: 3, Shards: []api.Shard{{Lead: &api.Lead{Node: "a"}}}}
	for i, n := range applied {
		name := string(rune('a' + i))
		c.Members = append(c.Members, api.Member{Member: members.Member{Name: name}, Alive: n >= 0})
		c.Shards[0].Replicas = append(c.Shards[0].Replicas, api.Replica{Node: name, ID: uint64(i + 1), Voter: true, Alive: n >= 0, Applied: uint64(max(n, 0))})
	}
	return c
}

func TestRedundancy(t *testing.T) {
	with := func(c *api.Cluster, f func(*api.Cluster)) *api.Cluster { f(c); return c }
	for name, x := range map[string]struct {
		c      *api.Cluster
		before []uint64
		want   string // whole, fewest, fragile, unowned
		text   string
	}{
		"whole":             {three(100, 100, 90), nil, "true 3 0 0", "any one node may be stopped"},
		"one down":          {three(100, 100, -1), nil, "false 2 1 0", "do not stop another node"},
		"one behind":        {three(1000, 1000, 500), nil, "false 2 1 0", "do not stop another node"},
		"written meanwhile": {three(1000, 1000, 500), []uint64{500}, "true 3 0 0", "any one node may be stopped"},
		"it was as far":     {three(1000, 1000, 500), []uint64{501}, "false 2 1 0", "do not stop another node"},
		"one stops":         {with(three(9, 9, 9), func(c *api.Cluster) { c.Members[1].Stopping = true }), nil, "false 2 1 0", "do not stop another node"},
		"no answer":         {with(three(9, 9, 9), func(c *api.Cluster) { c.Members[1].Err = errors.New("late") }), nil, "false 2 1 0", "do not stop another node"},
		"one learns":        {with(three(9, 9, 9), func(c *api.Cluster) { c.Shards[0].Replicas[2].Voter = false }), nil, "false 2 1 0", "do not stop another node"},
		"two nodes":         {three(9, 9), nil, "false 2 1 0", "fewer than 3 copies, the worst 2: do not stop another node"},
		"four of five":      {with(three(9, 9, 9, 9, -1), func(c *api.Cluster) { c.Copies = 5 }), nil, "false 4 0 0", "wait before another node is stopped"},
		"no owner":          {with(three(9, -1, -1), func(c *api.Cluster) { c.Shards[0].Lead = nil }), nil, "false 1 1 1", "start the nodes that are missing"},
		"alone":             {with(three(9), func(c *api.Cluster) { c.Copies = 1 }), nil, "true 1 1 0", "1 copy each"},
		"two copies":        {with(three(9, 9), func(c *api.Cluster) { c.Copies = 2 }), nil, "true 2 1 0", "takes its shards along"},
		"one more for now":  {three(9, 9, 9, 9), nil, "true 3 0 0", "any one node may be stopped"},
	} {
		t.Run(name, func(t *testing.T) {
			r := redundancy(x.c, marks{applied: x.before})
			require.Equal(t, x.want, fmt.Sprint(r.Whole, " ", r.Fewest, " ", r.Fragile, " ", r.Unowned))
			require.Contains(t, r.Text, x.text)
			require.NotContains(t, r.Text, "%!")
		})
	}
}

// TestLagging: a node waits for its own replicas only, and while a shard has no owner there is nobody to compare with.
func TestLagging(t *testing.T) {
	c := three(1000, 1000, 500)
	for node, want := range map[string]string{"a": "0 0", "b": "0 0", "c": "1 500", "none": "0 0"} {
		n, worst := lagging(c, node, marks{})
		require.Equal(t, want, fmt.Sprint(n, " ", worst), node)
	}
	n, _ := lagging(c, "c", marks{applied: []uint64{400}})
	require.Zero(t, n, "it has what was there a moment ago")
	n, _ = lagging(three(1000, 1000, -1), "a", marks{})
	require.Zero(t, n, "another node is away")
	c.Shards[0].Lead = nil
	n, _ = lagging(c, "a", marks{})
	require.Equal(t, 1, n)
}

func TestNotReadyBeforeItCaughtUp(t *testing.T) {
	var c caught
	ok, why := c.ready()
	require.False(t, ok)
	require.Contains(t, why, "not been compared")
	c.lack.Store(3)
	ok, why = c.ready()
	require.False(t, ok)
	require.Contains(t, why, "3 replicas here have not caught up")
	c.up.Store(true)
	ok, _ = c.ready()
	require.True(t, ok)
}
