package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

func TestSetting(t *testing.T) {
	for nodes, want := range map[int]string{1: "", 3: "three processes, one disk, one machine", 12: "12 processes, one disk, one machine"} {
		require.Equal(t, want, setting(nodes))
	}
}

func TestIDsBelongToTheirShard(t *testing.T) {
	seen := map[string]bool{}
	for shard := range 16 {
		next := 0
		for range 20 {
			var id string
			id, next = idIn(shard, 16, next)
			require.Equal(t, shard, cluster.ShardOf(task.Key(id), 16))
			require.False(t, seen[id], id)
			seen[id] = true
		}
	}
}

// healthy is a cluster of three nodes that lacks nothing.
func healthy() *wire.Cluster {
	v := &wire.Cluster{}
	for i := range 3 {
		v.Members = append(v.Members, wire.Node{Name: nodeNames[i], State: "alive"})
	}
	for s := range 4 {
		shard := wire.Shard{Shard: s, Version: 3, Lead: &wire.Lead{Node: nodeNames[s%3]}}
		for i := range 3 {
			shard.Replicas = append(shard.Replicas, wire.Replica{Node: nodeNames[i], Voter: true, Alive: true, Applied: 2000})
		}
		v.Shards = append(v.Shards, shard)
	}
	return v
}

var nodeNames = []string{"node-1", "node-2", "node-3"}

func TestWhatAClusterLacks(t *testing.T) {
	require.Empty(t, lacks(healthy(), nodeNames))
	for want, spoil := range map[string]func(*wire.Cluster){
		"node-2 is not there":                func(v *wire.Cluster) { v.Members[1].State = "gone" },
		"node-3 is not there":                func(v *wire.Cluster) { v.Members = v.Members[:2] },
		"there are no shards":                func(v *wire.Cluster) { v.Shards = nil },
		"shard 1 has no owner":               func(v *wire.Cluster) { v.Shards[1].Lead = nil },
		"shard 0 has 2 good replicas of 3":   func(v *wire.Cluster) { v.Shards[0].Replicas[2].Voter = false },
		"shard 2 has 2 good replicas of 3":   func(v *wire.Cluster) { v.Shards[2].Replicas[0].Alive = false },
		"shard 3 has 1 good replicas of 3":   func(v *wire.Cluster) { v.Shards[3].Replicas[1].Applied += behindMax + 1 },
		"shard 3 has 2 good replicas of 2":   func(v *wire.Cluster) { v.Shards[3].Replicas = v.Shards[3].Replicas[:2] },
		"leads are not spread: map[node-1:4": func(v *wire.Cluster) { v.Shards[1].Lead, v.Shards[2].Lead = v.Shards[0].Lead, v.Shards[0].Lead },
	} {
		v := healthy()
		spoil(v)
		require.Contains(t, lacks(v, nodeNames), want)
	}
	v := healthy() // the replica of a node that was taken away
	v.Shards[0].Replicas = append(v.Shards[0].Replicas, wire.Replica{Node: "node-4", Voter: true, Alive: true, Applied: 2000})
	require.Equal(t, "shard 0 has 3 good replicas of 4", lacks(v, nodeNames))
}

func TestPlacementChanges(t *testing.T) {
	was := placementOf(healthy())
	v := healthy()
	v.Shards[0].Replicas[0].Applied++
	require.Equal(t, was, placementOf(v), "commits are no change")
	v.Shards[0].Lead = v.Shards[1].Lead
	require.NotEqual(t, was, placementOf(v))
	v = healthy()
	v.Shards[3].Version++
	require.NotEqual(t, was, placementOf(v))
}

func TestClaimedAfterTheKill(t *testing.T) {
	kill := time.Now()
	_, ok := claimedAfter(kill, []wire.Attempt{{ClaimedAt: kill.Add(-time.Second)}})
	require.False(t, ok)
	d, ok := claimedAfter(kill, []wire.Attempt{{ClaimedAt: kill.Add(-time.Second)}, {ClaimedAt: kill.Add(2 * time.Second)}, {ClaimedAt: kill.Add(3 * time.Second)}})
	require.True(t, ok)
	require.Equal(t, 2*time.Second, d)
}

func TestFirstCommits(t *testing.T) {
	kill := time.Now()
	at := func(d time.Duration) <-chan time.Time {
		c := make(chan time.Time, 1)
		c <- kill.Add(d)
		return c
	}
	times, err := firstCommits(t.Context(), kill, []<-chan time.Time{at(3), at(1)})
	require.NoError(t, err)
	require.Equal(t, []time.Duration{3, 1}, times)
	require.EqualValues(t, 3, longest(times))
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("too late"))
	_, err = firstCommits(ctx, kill, []<-chan time.Time{make(chan time.Time)})
	require.EqualError(t, err, "0 of 1 shards commit again: too late")
}

func TestSum(t *testing.T) {
	from := time.Now()
	at := func(d time.Duration) time.Time { return from.Add(d) }
	s := sum([]outcome{
		{ended: at(-1), took: 9},
		{ended: at(0), took: time.Millisecond},
		{ended: at(500 * time.Millisecond), took: 3 * time.Millisecond, refused: 2},
		{ended: at(1500 * time.Millisecond), took: 2 * time.Millisecond},
		{ended: at(1600 * time.Millisecond), failure: "503"},
		{ended: at(2 * time.Second), took: 9},
	}, from, at(2*time.Second))
	require.Equal(t, stretch{perSecond: 1.5, worst: 1, lat: &Latency{Count: 3, P50: 2, P99: 3, Max: 3}, failed: []string{"503"}, refused: 2}, s)
	require.Equal(t, stretch{perSecond: 0}, sum(nil, from, at(100*time.Millisecond)))
	require.Equal(t, 25.0, dip(4, 3))
	require.Equal(t, -50.0, dip(4, 6))
	require.Zero(t, dip(0, 6))
}

func TestGrowReadings(t *testing.T) {
	from := time.Now()
	var phases []phase
	var all []outcome
	for i, name := range []string{"a", "grow", "b", "drain", "stop", "c"} {
		p := phase{name: name, from: from.Add(time.Duration(2*i) * time.Second), to: from.Add(time.Duration(2*i+2) * time.Second)}
		phases = append(phases, p)
		for k := range 4 + i%2*-2 {
			all = append(all, outcome{ended: p.from.Add(time.Duration(k) * 400 * time.Millisecond), took: time.Millisecond})
		}
	}
	all = append(all, outcome{ended: from.Add(3 * time.Second), failure: "a node said no"})
	byName := map[string]reading{}
	for _, r := range growReadings(all, phases, time.Second) {
		byName[r.figure] = r
	}
	require.Equal(t, 2.0, byName["grow, time"].value)
	require.Contains(t, byName["grow, time"].note, "ready after 1.00 s")
	require.Equal(t, 2.0, byName["drain, time"].value)
	require.Equal(t, 2.0, byName["stop, time"].value)
	require.NotContains(t, byName, "a, time")
	require.Equal(t, 2.0, byName["a, load"].value)
	require.Equal(t, "dip 50.0%, in the worst second 100%", byName["grow, load"].note)
	require.Equal(t, 1.0, byName[figFailed].value)
	require.Contains(t, byName[figFailed].note, "of 19; 0 times")
	require.Contains(t, byName[figFailed].note, "a node said no")
}

func TestLoadTellsFailuresFromStoppedNodes(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	stopped := l.Addr().String()
	require.NoError(t, l.Close())
	status := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	defer s.Close()
	m := &mixed{http: s.Client()}
	m.use([]string{stopped, strings.TrimPrefix(s.URL, "http://")})
	o := m.call(t.Context(), 0, http.MethodGet, "/", nil)
	require.Equal(t, 1, o.refused)
	require.Empty(t, o.failure)
	status = http.StatusServiceUnavailable
	o = m.call(t.Context(), 1, http.MethodPost, "/", []byte("{}"))
	require.Zero(t, o.refused)
	require.Contains(t, o.failure, "503")
	m.use([]string{stopped})
	o = m.call(t.Context(), 0, http.MethodGet, "/", nil)
	require.Equal(t, mixedTries, o.refused)
	require.NotEmpty(t, o.failure)
}

// TestArmCountsOnlyWhatWasSentAfterIt holds back an answer from before, as a node does that is killed.
func TestArmCountsOnlyWhatWasSentAfterIt(t *testing.T) {
	held, release := make(chan string, 8), make(chan struct{})
	var once sync.Once
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := fmt.Sprint(r.ContentLength)
		first := false
		once.Do(func() { first = true })
		if first {
			held <- id
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		w.WriteHeader(http.StatusCreated)
	}))
	defer s.Close()
	defer close(release)
	c := startCommits(t.Context(), 1, []string{strings.TrimPrefix(s.URL, "http://")})
	defer c.stop()
	<-held
	began := time.Now()
	at := <-c.arm(0)
	require.True(t, at.After(began))
	c.stop()
	c.stop()
}
