package tenant

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAnIDSaysWhoseItIs(t *testing.T) {
	for _, c := range []struct{ name, id, whole string }{
		{Default, "a", "a"},
		{Default, "", ""},
		{Default, "a/b", "a/b"},
		{Default, "/acme/a", "/default//acme/a"}, // a try to name another's
		{"acme", "a", "/acme/a"},
		{"acme", "/other/a", "/acme//other/a"},
		{"acme", "", "/acme/"},
		{"acme", "../other/a", "/acme/../other/a"},
	} {
		require.Equal(t, c.whole, Join(c.name, c.id))
		name, bare := Split(c.whole)
		require.Equal(t, []string{c.name, c.id}, []string{name, bare}, c.whole)
		require.Equal(t, Join(c.name, "x"), Beside(c.whole, "x"))
	}
}

func TestWhoCalls(t *testing.T) {
	require.Equal(t, "a", Own(t.Context(), "a"))
	ctx := With(t.Context(), "acme")
	require.Equal(t, "acme", From(ctx))
	require.Equal(t, "/acme/a", Own(ctx, "a"))
	require.Equal(t, "all/acme", Index("all", "acme"))
	require.Equal(t, "all", Index("all", Default))
}

func TestTextsForTheTenant(t *testing.T) {
	ctx := With(t.Context(), "acme")
	for text, want := range map[string]string{
		"/acme/a: no such task":                         "a: no such task",
		`no such batch: "/acme/b" and '/acme/c'`:        `no such batch: "b" and 'c'`,
		"http://files.example.com/acme/2026/in.csv (x)": "http://files.example.com/acme/2026/in.csv (x)",
		"/other/a /acme/":                               "/other/a ",
		"":                                              "",
	} {
		require.Equal(t, want, Plain(ctx, text))
		require.Equal(t, text, Plain(t.Context(), text))
	}
}

func TestNames(t *testing.T) {
	for _, good := range []string{"a", "default", "team-1", strings.Repeat("x", NameMax)} {
		require.NoError(t, Check(good))
	}
	for _, bad := range []string{"", "-a", "a-", "A", "a/b", "a b", "ä", "a.b", strings.Repeat("x", NameMax+1)} {
		require.Error(t, Check(bad), bad)
	}
}

func FuzzTwoTenantsNeverMeet(f *testing.F) {
	f.Add("acme", "x", "default", "/acme/x")
	f.Add("a", "/b/x", "b", "x")
	f.Fuzz(func(t *testing.T, n1, id1, n2, id2 string) {
		if Check(n1) != nil || Check(n2) != nil {
			return
		}
		a, b := Join(n1, id1), Join(n2, id2)
		require.Equal(t, n1 == n2 && id1 == id2, a == b, "%q %q", a, b)
		name, bare := Split(a)
		require.Equal(t, []string{n1, id1}, []string{name, bare})
	})
}
