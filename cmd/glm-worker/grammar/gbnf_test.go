package grammar

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// gbnf reads the text of a grammar on its own terms, as llama.cpp does, so that the tests see what was written and not
// what was meant.
type gbnf struct {
	rules map[string]*node
	least map[string]float64 // the fewest steps to finish each rule
}

type node struct {
	kind       byte // 'c' class, 'r' reference, 's' sequence, 'a' alternatives, '*' repetition
	set        [][2]rune
	not        bool
	name       string
	kids       []*node
	low, high  int
	characters int
}

type reader struct {
	text string
	at   int
}

func parseGBNF(t testing.TB, text string) *gbnf {
	t.Helper()
	g := &gbnf{rules: map[string]*node{}, least: map[string]float64{}}
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		name, body, ok := strings.Cut(line, " ::= ")
		if !ok {
			t.Fatalf("no rule: %q", line)
		}
		r := &reader{text: body}
		n := r.alternatives()
		if r.at != len(body) {
			t.Fatalf("rule %s: cannot read %q", name, body[r.at:])
		}
		if g.rules[name] != nil {
			t.Fatalf("rule %s twice", name)
		}
		g.rules[name] = n
	}
	for name := range g.rules {
		g.least[name] = math.Inf(1)
	}
	for changed := true; changed; {
		changed = false
		for name, n := range g.rules {
			if c := g.cost(n) + 1; c < g.least[name] {
				g.least[name], changed = c, true
			}
		}
	}
	for name := range g.rules {
		if math.IsInf(g.least[name], 1) {
			t.Fatalf("rule %s never ends in\n%s", name, text)
		}
	}
	return g
}

func (r *reader) peek() byte {
	if r.at < len(r.text) {
		return r.text[r.at]
	}
	return 0
}

func (r *reader) spaces() {
	for r.peek() == ' ' {
		r.at++
	}
}

func (r *reader) alternatives() *node {
	n := &node{kind: 'a', kids: []*node{r.sequence()}}
	for r.peek() == '|' {
		r.at++
		n.kids = append(n.kids, r.sequence())
	}
	return n
}

func (r *reader) sequence() *node {
	n := &node{kind: 's'}
	for {
		r.spaces()
		var item *node
		switch c := r.peek(); {
		case c == '"':
			r.at++
			item = &node{kind: 's'}
			for r.peek() != '"' {
				ch := r.char()
				item.kids = append(item.kids, &node{kind: 'c', set: [][2]rune{{ch, ch}}})
			}
			r.at++
		case c == '[':
			item = r.class()
		case c == '(':
			r.at++
			item = r.alternatives()
			if r.peek() != ')' {
				panic("expected )")
			}
			r.at++
		case c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z':
			from := r.at
			for c := r.peek(); c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'; c = r.peek() {
				r.at++
			}
			item = &node{kind: 'r', name: r.text[from:r.at]}
		default:
			return n
		}
		n.kids = append(n.kids, r.repeated(item))
	}
}

func (r *reader) repeated(item *node) *node {
	rep := func(low, high int) *node { return &node{kind: '*', kids: []*node{item}, low: low, high: high} }
	switch r.peek() {
	case '?':
		r.at++
		return rep(0, 1)
	case '*':
		r.at++
		return rep(0, -1)
	case '+':
		r.at++
		return rep(1, -1)
	case '{':
		end := r.at + strings.IndexByte(r.text[r.at:], '}')
		low, high, both := strings.Cut(r.text[r.at+1:end], ",")
		r.at = end + 1
		a, _ := strconv.Atoi(low)
		b := a
		if both {
			if b = -1; high != "" {
				b, _ = strconv.Atoi(high)
			}
		}
		if a > 2000 || b > 2000 {
			panic("llama.cpp refuses more than 2000 repetitions")
		}
		return rep(a, b)
	}
	return item
}

func (r *reader) class() *node {
	r.at++
	n := &node{kind: 'c'}
	if r.peek() == '^' {
		n.not = true
		r.at++
	}
	for r.peek() != ']' {
		a := r.char()
		b := a
		if r.peek() == '-' && r.text[r.at+1] != ']' {
			r.at++
			b = r.char()
		}
		n.set = append(n.set, [2]rune{a, b})
	}
	r.at++
	return n
}

func (r *reader) char() rune {
	if r.peek() == '\\' {
		width := map[byte]int{'x': 2, 'u': 4, 'U': 8}[r.text[r.at+1]]
		if width > 0 {
			v, err := strconv.ParseInt(r.text[r.at+2:r.at+2+width], 16, 32)
			if err != nil {
				panic(err)
			}
			r.at += 2 + width
			return rune(v)
		}
		c := r.text[r.at+1]
		if !strings.ContainsRune(`"\[]`, rune(c)) {
			c = map[byte]byte{'n': '\n', 't': '\t', 'r': '\r'}[c]
		}
		if c == 0 {
			panic("unknown escape " + r.text[r.at:])
		}
		r.at += 2
		return rune(c)
	}
	c, size := utf8.DecodeRuneInString(r.text[r.at:])
	r.at += size
	return c
}

func (g *gbnf) cost(n *node) (c float64) {
	switch n.kind {
	case 'r':
		if _, ok := g.rules[n.name]; !ok {
			panic("undefined rule " + n.name)
		}
		return g.least[n.name]
	case 'c':
		return 0.001
	case 's':
		for _, k := range n.kids {
			c += g.cost(k)
		}
		return c
	case 'a':
		c = math.Inf(1)
		for _, k := range n.kids {
			c = min(c, g.cost(k))
		}
		return c
	}
	if n.low == 0 {
		return 0
	}
	return float64(n.low) * g.cost(n.kids[0])
}

// generate writes a random text of the grammar, with preference for short ways out once fuel is used up.
func (g *gbnf) generate(r *rand.Rand) string {
	var b strings.Builder
	fuel := 60 + r.IntN(200)
	g.write(&b, r, g.rules["root"], &fuel)
	return b.String()
}

func (g *gbnf) write(b *strings.Builder, r *rand.Rand, n *node, fuel *int) {
	switch n.kind {
	case 'c':
		s := n.set[r.IntN(len(n.set))]
		c := s[0] + rune(r.IntN(int(min(s[1]-s[0], 90)+1)))
		if r.IntN(20) == 0 {
			c = s[r.IntN(2)]
		}
		b.WriteRune(c)
	case 'r':
		*fuel--
		g.write(b, r, g.rules[n.name], fuel)
	case 's':
		for _, k := range n.kids {
			g.write(b, r, k, fuel)
		}
	case 'a':
		k := n.kids[r.IntN(len(n.kids))]
		if *fuel <= 0 {
			for _, other := range n.kids {
				if g.cost(other) < g.cost(k) {
					k = other
				}
			}
		}
		g.write(b, r, k, fuel)
	case '*':
		times := n.low
		for *fuel > 0 && (n.high < 0 || times < n.high) && r.IntN(3) > 0 {
			times++
			*fuel--
		}
		for range times {
			g.write(b, r, n.kids[0], fuel)
		}
	}
}

// accepts says whether the grammar allows a text: sets of places after which each piece may end.
func (g *gbnf) accepts(text string) bool {
	type call struct {
		n  *node
		at int
	}
	memo := map[call]map[int]bool{}
	var ends func(n *node, at int) map[int]bool
	ends = func(n *node, at int) map[int]bool {
		key := call{n, at}
		if m, ok := memo[key]; ok {
			return m
		}
		out := map[int]bool{}
		memo[key] = out
		switch n.kind {
		case 'c':
			c, size := utf8.DecodeRuneInString(text[at:])
			for _, s := range n.set {
				if size > 0 && s[0] <= c && c <= s[1] {
					out[at+size] = true
				}
			}
		case 'r':
			for e := range ends(g.rules[n.name], at) {
				out[e] = true
			}
		case 'a':
			for _, k := range n.kids {
				for e := range ends(k, at) {
					out[e] = true
				}
			}
		case 's':
			places := map[int]bool{at: true}
			for _, k := range n.kids {
				next := map[int]bool{}
				for p := range places {
					for e := range ends(k, p) {
						next[e] = true
					}
				}
				places = next
			}
			for p := range places {
				out[p] = true
			}
		case '*':
			places, seen := map[int]bool{at: true}, map[int]bool{}
			for i := 0; len(places) > 0 && (n.high < 0 || i <= n.high); i++ {
				next := map[int]bool{}
				for p := range places {
					if i >= n.low {
						out[p] = true
					}
					for e := range ends(n.kids[0], p) {
						if n.high >= 0 || !seen[e] || i < n.low {
							next[e] = true
							seen[e] = true
						}
					}
				}
				places = next
			}
		default:
			panic(fmt.Sprint("kind ", n.kind))
		}
		return out
	}
	return ends(g.rules["root"], 0)[len(text)]
}
