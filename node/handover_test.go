package node

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cluster/placement"
	"github.com/open-autoglm/autoglm/cluster/replicas"
	"github.com/open-autoglm/autoglm/persistence"
)

func TestHeir(t *testing.T) {
	behind := placement.Defaults.Behind
	at := func(shard int, self, applied uint64) replicas.Report {
		return replicas.Report{Groups: []persistence.Group{{Shard: shard + 1, Self: self, Applied: 1 << 40}, {Shard: shard, Self: self, Applied: applied}}}
	}
	voters := []persistence.Replica{{ID: 1, Node: "a", Voter: true}, {ID: 2, Node: "b", Voter: true}, {ID: 3, Node: "c", Voter: true}, {ID: 4, Node: "d"}}
	for name, x := range map[string]struct {
		shard int
		nodes map[string]replicas.Report
		want  uint64
	}{
		"nobody is there":             {0, nil, 0},
		"a learner does not vote":     {0, map[string]replicas.Report{"d": at(0, 4, 5000)}, 0},
		"never itself":                {0, map[string]replicas.Report{"a": at(0, 1, 9000), "b": at(0, 2, 10)}, 2},
		"the only one, however late":  {0, map[string]replicas.Report{"c": at(0, 3, 10)}, 3},
		"the freshest":                {0, map[string]replicas.Report{"b": at(0, 2, 4000), "c": at(0, 3, 5000)}, 3},
		"the freshest, other shard":   {1, map[string]replicas.Report{"b": at(1, 2, 5000), "c": at(1, 3, 4000)}, 2},
		"just too far behind":         {0, map[string]replicas.Report{"b": at(0, 2, 5000-behind-1), "c": at(0, 3, 5000)}, 3},
		"as good as equal":            {0, map[string]replicas.Report{"b": at(0, 2, 5000-behind), "c": at(0, 3, 5000)}, 2},
		"as good as equal, the other": {1, map[string]replicas.Report{"b": at(1, 2, 5000), "c": at(1, 3, 4999)}, 3},
		"one does not answer":         {0, map[string]replicas.Report{"b": {}, "c": at(0, 3, 5000)}, 3},
		"another replica's word":      {0, map[string]replicas.Report{"b": at(0, 7, 9000), "c": at(0, 3, 5000)}, 3},
		"none answers":                {1, map[string]replicas.Report{"b": {}, "c": {}}, 3},
	} {
		g := persistence.Group{Shard: x.shard, Self: 1, Leader: 1, Applied: 5000, Replicas: voters}
		require.Equal(t, x.want, heir(g, x.nodes), name)
	}
}
