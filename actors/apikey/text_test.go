package apikey

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAKeysText(t *testing.T) {
	text, root, err := NewRoot()
	require.NoError(t, err)
	id, ok := ID(text)
	require.True(t, ok)
	require.Equal(t, root.ID, id)
	require.True(t, root.Is(text))
	require.NotContains(t, root.String(), text[len("ag_")+idLen+1:])
	for _, form := range []string{root.String(), " " + root.String() + "\n", text + "\n"} {
		again, err := ParseRoot(form)
		require.NoError(t, err)
		require.Equal(t, root, again)
	}
	for i := range text { // any character that is another one
		b := []byte(text)
		if b[i] = 'A'; text[i] == 'A' {
			b[i] = 'B'
		}
		_, ok := ID(string(b))
		require.False(t, ok, "%d", i)
	}
	for _, bad := range []string{"", "ag_", text[:len(text)-1], text + "x", strings.ToUpper(text), "sk-" + text[3:]} {
		_, ok := ID(bad)
		require.False(t, ok, bad)
		_, err := ParseRoot(bad)
		require.Error(t, err, bad)
	}
	again, id2, err := newText(id)
	require.NoError(t, err)
	require.Equal(t, id, id2)
	require.NotEqual(t, text, again)
	require.False(t, root.Is(again))
}

func TestRoles(t *testing.T) {
	require.True(t, Admin.May(Read))
	require.True(t, Submit.May(Submit))
	require.False(t, Read.May(Submit))
	require.False(t, Role("").May(Read))
	require.False(t, Admin.May("more"))
}

func TestWhenAKeyIsGood(t *testing.T) {
	now := time.Unix(1e9, 0)
	old, _, _ := newText("")
	id, _ := ID(old)
	made := func(es ...Event) (k Key) {
		var err error
		for _, e := range append([]Event{{What: "created", Key: &Key{ID: id, Hash: Hash(old)}}}, es...) {
			k, err = k.apply(e)
			require.NoError(t, err)
		}
		return k
	}
	fresh, _, err := newText(id)
	require.NoError(t, err)
	rotated := Event{What: "rotated", At: now, Hash: Hash(fresh), Until: now.Add(time.Hour)}
	for _, c := range []struct {
		name           string
		key            Key
		at             time.Time
		oldOK, freshOK bool
	}{
		{"new", made(), now, true, false},
		{"rotated, both for a while", made(rotated), now.Add(time.Minute), true, true},
		{"rotated, after it", made(rotated), now.Add(time.Hour), false, true},
		{"rotated at once", made(Event{What: "rotated", At: now, Hash: Hash(fresh), Until: now}), now, false, true},
		{"revoked", made(rotated, Event{What: "revoked", At: now}), now, false, false},
		{"expired", Key{ID: id, Hash: Hash(old), ExpiresAt: now}, now, false, false},
		{"not yet", Key{ID: id, Hash: Hash(old), ExpiresAt: now.Add(1)}, now, true, false},
	} {
		require.Equal(t, []bool{c.oldOK, c.freshOK}, []bool{c.key.Is(old, c.at), c.key.Is(fresh, c.at)}, c.name)
	}
	third, _, err := newText(id)
	require.NoError(t, err)
	rotated.Request = "r"
	again := rotated
	again.Hash = Hash(third)
	k := made(rotated, again)
	require.True(t, k.Is(old, now.Add(time.Minute)), "a repeat of the same rotation leaves the key before")
	require.True(t, k.Is(third, now))
	require.False(t, k.Is(fresh, now), "nobody has that one")
	_, err = Key{}.apply(Event{What: "revoked"})
	require.Error(t, err)
}

func TestWishes(t *testing.T) {
	good := Wish{Name: "ci", Tenant: "acme", Role: Submit}
	require.NoError(t, good.Check())
	for name, edit := range map[string]func(*Wish){
		"name":   func(w *Wish) { w.Name = "" },
		"name 2": func(w *Wish) { w.Name = "a\nb" },
		"name 3": func(w *Wish) { w.Name = strings.Repeat("x", 65) },
		"tenant": func(w *Wish) { w.Tenant = "a/b" },
		"role":   func(w *Wish) { w.Role = "root" },
		"rate":   func(w *Wish) { w.Rate = -1 },
		"lives":  func(w *Wish) { w.Lives = -1 },
	} {
		w := good
		edit(&w)
		require.Error(t, w.Check(), name)
	}
}

func FuzzKeyText(f *testing.F) {
	text, root, _ := NewRoot()
	f.Add(text)
	f.Add(root.String())
	f.Add("ag_")
	f.Fuzz(func(t *testing.T, s string) {
		if id, ok := ID(s); ok {
			require.Len(t, id, idLen)
			require.Len(t, s, textLen)
		}
		_, _ = ParseRoot(s)
	})
}
