package grammar

import (
	"fmt"
	"strings"
)

// expr is a piece of a grammar.
type expr interface{}

type (
	lit   string   // these characters
	class []span   // one character of these
	seq   []expr   // one after the other; empty is the empty text
	alt   []expr   // one of them
	ref   string   // a rule's name
	span  [2]rune  // from, to, both included
	rep   struct { // repeated
		of       expr
		min, max int // max is -1 without end
	}
)

func optional(e ...expr) expr { return rep{of: one(e), max: 1} }

func one(e []expr) expr {
	if len(e) == 1 {
		return e[0]
	}
	return seq(e)
}

// either drops a choice that there is not.
func either(e []expr) expr {
	if len(e) == 1 {
		return e[0]
	}
	return alt(e)
}

// rules are a grammar under construction.
type rules struct {
	order  []string
	bodies map[string]expr
	named  map[string]string // a body's text → its rule, so that equal bodies share one
}

// add names a body and returns a reference to it.
func (r *rules) add(kind string, body expr) ref {
	text := show(body)
	if name, ok := r.named[text]; ok {
		return ref(name)
	}
	name := r.reserve(kind)
	r.bodies[name] = body
	r.named[text] = name
	return ref(name)
}

// reserve makes a name whose body comes later: rules may refer to themselves.
func (r *rules) reserve(kind string) string {
	name := kind
	for n := 2; ; n++ {
		if _, taken := r.bodies[name]; !taken {
			break
		}
		name = fmt.Sprintf("%s-%d", kind, n)
	}
	r.bodies[name] = nil
	r.order = append(r.order, name)
	return name
}

// String writes GBNF.
func (r *rules) String() string {
	var b strings.Builder
	for _, name := range r.order {
		fmt.Fprintf(&b, "%s ::= %s\n", name, show(r.bodies[name]))
	}
	return b.String()
}

func show(e expr) string {
	switch e := e.(type) {
	case lit:
		return quote(string(e))
	case class:
		return e.show()
	case ref:
		return string(e)
	case seq:
		if len(e) == 0 {
			return `""`
		}
		parts := make([]string, len(e))
		for i, x := range e {
			parts[i] = group(x, false)
		}
		return strings.Join(parts, " ")
	case alt:
		parts := make([]string, len(e))
		for i, x := range e {
			parts[i] = show(x)
		}
		return strings.Join(parts, " | ")
	case rep:
		return group(e.of, true) + times(e.min, e.max)
	}
	panic(fmt.Sprintf("grammar: unknown piece %T", e))
}

// group puts parentheses around what would fall apart.
func group(e expr, repeated bool) string {
	switch x := e.(type) {
	case alt:
		return "(" + show(x) + ")"
	case seq:
		if repeated || len(x) == 0 {
			return "(" + show(x) + ")"
		}
	case rep:
		if repeated {
			return "(" + show(x) + ")"
		}
	case lit:
		if repeated && len(x) != 1 { // only the last character of a literal would repeat in some readers
			return "(" + show(x) + ")"
		}
	}
	return show(e)
}

func times(low, high int) string {
	switch {
	case low == 0 && high == 1:
		return "?"
	case low == 0 && high < 0:
		return "*"
	case low == 1 && high < 0:
		return "+"
	case high < 0:
		return fmt.Sprintf("{%d,}", low)
	case low == high:
		return fmt.Sprintf("{%d}", low)
	}
	return fmt.Sprintf("{%d,%d}", low, high)
}

func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\x%02X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func (c class) show() string {
	var b strings.Builder
	b.WriteByte('[')
	for _, s := range c {
		b.WriteString(classRune(s[0]))
		if s[1] > s[0] {
			b.WriteByte('-')
			b.WriteString(classRune(s[1]))
		}
	}
	b.WriteByte(']')
	return b.String()
}

func classRune(r rune) string {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == ' ':
		return string(r)
	case r > 0xFFFF:
		return fmt.Sprintf(`\U%08X`, r)
	case r > 0x7F:
		return fmt.Sprintf(`\u%04X`, r)
	}
	return fmt.Sprintf(`\x%02X`, r) // among them ], \, - and ^, which mean something in a class
}

// cost is how many elements llama.cpp will keep for a piece; repetitions are written out there.
func cost(e expr) int {
	total := 1
	switch e := e.(type) {
	case lit:
		total = len(e)
	case class:
		total = 2 * len(e)
	case seq:
		for _, x := range e {
			total += cost(x)
		}
	case alt:
		for _, x := range e {
			total += 1 + cost(x)
		}
	case rep:
		each := 4 // a reference to a rule made for the group
		if c, ok := e.of.(class); ok {
			each = 2*len(c) + 3
		}
		total = cost(e.of) + each*max(e.max, e.min+1)
	}
	return total
}

// ends says whether some text of the piece is finite, given which rules are known to end.
func ends(e expr, known map[string]bool) bool {
	switch e := e.(type) {
	case ref:
		return known[string(e)]
	case seq:
		for _, x := range e {
			if !ends(x, known) {
				return false
			}
		}
	case alt:
		for _, x := range e {
			if ends(x, known) {
				return true
			}
		}
		return false
	case rep:
		return e.min == 0 || ends(e.of, known)
	}
	return true
}

// endless returns a rule that no finite text satisfies, or "". A model that enters one never comes out.
func (r *rules) endless() string {
	known := map[string]bool{}
	for grew := true; grew; {
		grew = false
		for _, name := range r.order {
			if !known[name] && ends(r.bodies[name], known) {
				known[name], grew = true, true
			}
		}
	}
	for _, name := range r.order {
		if !known[name] {
			return name
		}
	}
	return ""
}

func (r *rules) cost() (total int) {
	for _, name := range r.order {
		total += cost(r.bodies[name])
	}
	return total
}
