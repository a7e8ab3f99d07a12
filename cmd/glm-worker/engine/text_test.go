package engine

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestText(t *testing.T) {
	for _, c := range []struct {
		name    string
		stops   []string
		pieces  []string
		shown   []string // after each piece
		rest    string   // at the end
		stopped bool
	}{
		{"plain", nil, []string{"a", "bc"}, []string{"a", "bc"}, "", false},
		{"a character in two tokens", nil, []string{"\xc3", "\xa4b"}, []string{"", "äb"}, "", false},
		{"a character in four tokens", nil, []string{"x\xf0", "\x9f", "\x99", "\x82"}, []string{"x", "", "", "🙂"}, "", false},
		{"half a character at the end", nil, []string{"a\xe2\x82"}, []string{"a"}, "\uFFFD", false},
		{"no character at all", nil, []string{"a\xff", "b\x80c"}, []string{"a\uFFFD", "b\uFFFDc"}, "", false},
		{"stop in one token", []string{"END"}, []string{"aENDb"}, []string{"a"}, "", true},
		{"stop over tokens", []string{"END"}, []string{"aE", "N", "Db"}, []string{"a", "", ""}, "", true},
		{"no stop after all", []string{"END"}, []string{"aEN", "x"}, []string{"a", "ENx"}, "", false},
		{"what may become a stop is shown at the end", []string{"END"}, []string{"aEN"}, []string{"a"}, "EN", false},
		{"the stop that begins first wins", []string{"c", "bcd"}, []string{"abcd"}, []string{"a"}, "", true},
		{"a stop that begins with its own end", []string{"aab"}, []string{"aa", "ab"}, []string{"", "a"}, "", true},
		{"stop at once", []string{"\n"}, []string{"\n"}, []string{""}, "", true},
		{"a stop of more bytes than characters", []string{"ä"}, []string{"x\xc3", "\xa4"}, []string{"x", ""}, "", true},
	} {
		txt := text{stops: c.stops}
		stopped := false
		for i, p := range c.pieces {
			require.False(t, stopped, c.name)
			var show string
			show, stopped = txt.push(p)
			require.Equal(t, c.shown[i], show, "%s: piece %d", c.name, i)
		}
		require.Equal(t, c.stopped, stopped, c.name)
		require.Equal(t, c.rest, txt.flush(), c.name)
	}
}

// However text is cut into tokens, what is shown is the text, or the text before the first stop.
func FuzzText(f *testing.F) {
	f.Add("hello END wörld", "END", uint8(3))
	f.Add("aaab", "aab", uint8(1))
	f.Add("🙂\xf0\x9f", "", uint8(2))
	f.Fuzz(func(t *testing.T, whole, stop string, step uint8) {
		txt := text{}
		if stop != "" && utf8.ValidString(stop) {
			txt.stops = []string{stop}
		}
		var shown strings.Builder
		stopped := false
		for rest := whole; rest != "" && !stopped; {
			n := min(len(rest), int(step)%5+1)
			var show string
			show, stopped = txt.push(rest[:n])
			require.True(t, utf8.ValidString(show))
			shown.WriteString(show)
			rest = rest[n:]
		}
		if !stopped {
			shown.WriteString(txt.flush())
		}
		if utf8.ValidString(whole) { // else the pieces decide where the broken bytes are replaced
			want := whole
			if txt.stops != nil {
				want, _, _ = strings.Cut(whole, stop)
			}
			require.Equal(t, want, shown.String())
		}
	})
}
