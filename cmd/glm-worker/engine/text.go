package engine

import (
	"strings"
	"unicode/utf8"
)

// text turns token bytes into text that may be shown: whole characters only, and nothing that may yet turn out to be
// the beginning of a stop text.
type text struct {
	stops []string
	held  []byte // at most 3 bytes of a character, or the longest stop text less one, beyond what was shown
}

// push takes a token's bytes and returns what may be shown now, and whether a stop text ended it.
func (t *text) push(piece string) (show string, stopped bool) {
	t.held = append(t.held, piece...)
	whole := t.held[:wholeRunes(t.held)]
	cut := len(whole)
	for _, stop := range t.stops { // the stop text that begins first wins
		if i := strings.Index(string(whole), stop); i >= 0 && i < cut {
			cut, stopped = i, true
		}
	}
	if stopped {
		show = valid(whole[:cut])
		t.held = t.held[:0]
		return show, true
	}
	n := len(whole) - t.pending(string(whole))
	show = valid(whole[:n])
	t.held = append(t.held[:0], t.held[n:]...)
	return show, false
}

// flush returns what was held back, when no more will come.
func (t *text) flush() string {
	show := valid(t.held)
	t.held = t.held[:0]
	return show
}

// pending is the length of the longest end of s that begins a stop text.
func (t *text) pending(s string) (longest int) {
	for _, stop := range t.stops {
		for n := min(len(stop)-1, len(s)); n > longest; n-- {
			if strings.HasSuffix(s, stop[:n]) {
				longest = n
			}
		}
	}
	return longest
}

// wholeRunes is the length of b without an unfinished character at its end.
func wholeRunes(b []byte) int {
	for back := 1; back <= min(utf8.UTFMax-1, len(b)); back++ {
		if at := len(b) - back; utf8.RuneStart(b[at]) {
			if !utf8.FullRune(b[at:]) {
				return at
			}
			break
		}
	}
	return len(b)
}

// valid replaces bytes that are no characters: JSON cannot carry them.
func valid(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }
