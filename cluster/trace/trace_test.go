package trace

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	id     = "0af7651916cd43dd8448eb211c80319c"
	parent = "00-" + id + "-b7ad6b7169203331-01"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		parent:                              parent,
		"00-" + id + "-b7ad6b7169203331-00": "00-" + id + "-b7ad6b7169203331-00",
		"01-" + id + "-b7ad6b7169203331-01-what-comes-later": parent,
		"":                "",
		"00-" + id:        "",
		parent + "-more":  "", // version 00 has no more
		"ff" + parent[2:]: "",
		"00-" + "0AF7651916CD43DD8448EB211C80319C" + parent[35:]:  "",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": "",
		"00-" + id + "-0000000000000000-01":                       "",
		parent + ",":                                              "",
		" " + parent:                                              "",
		parent + "\r\nX-Evil: 1":                                  "",
	} {
		require.Equal(t, Parent(want), Parse(in), "%q", in)
	}
	require.Equal(t, id, Parse(parent).ID())
	require.Empty(t, Parse("nonsense").ID())
}

func TestNew(t *testing.T) {
	a, b := New(), New()
	require.Equal(t, a, Parse(string(a)))
	require.NotEqual(t, a.ID(), b.ID())
	require.Len(t, a.ID(), 32)
}

func TestContext(t *testing.T) {
	require.Empty(t, From(context.Background()))
	ctx := With(context.Background(), Parse(parent))
	require.Equal(t, Parent(parent), From(ctx))
	require.Equal(t, Parent(parent), From(With(ctx, "")), "no trace replaces none")
}

func FuzzParse(f *testing.F) {
	f.Add(parent)
	f.Add("01-" + id + "-b7ad6b7169203331-01-x")
	f.Fuzz(func(t *testing.T, s string) {
		p := Parse(s)
		require.Equal(t, p, Parse(string(p)))
		require.Equal(t, p == "", p.ID() == "")
	})
}
