package node

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cluster/members"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestANewNameIsNoticedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), nameFile)
	for _, c := range []struct{ name, before string }{{"a", ""}, {"a", ""}, {"d", "a"}, {"d", ""}} {
		before, err := keepName(path, c.name)
		require.NoError(t, err)
		require.Equal(t, c.before, before)
	}
}

func TestOfTwinsTheLaterOneEnds(t *testing.T) {
	m := func(name, node, boot string) members.Member {
		return members.Member{Name: name, Node: node, Boot: boot}
	}
	a, d := m("a", "N", "1"), m("d", "N", "2")
	err := twin(d, []members.Member{a, d, m("b", "M", "0")})
	require.Equal(t, fault.Conflict, fault.KindOf(err))
	require.ErrorContains(t, err, "node a runs")
	require.NoError(t, twin(a, []members.Member{a, d}), "the first one goes on")
	require.NoError(t, twin(m("d", "N", "2"), []members.Member{m("d", "N", "1")}), "itself, before it was started again")
	require.NoError(t, twin(m("d", "", "2"), []members.Member{m("e", "", "1")}), "neither has a directory yet")
}
