package grammar

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// itemsMax is the most that minItems and maxItems may say; llama.cpp writes repetitions out.
const itemsMax = 1000

// space is the white space between tokens of JSON. It is short, so that a model cannot lose itself in it.
func (c *converter) space() ref {
	return c.add("space", alt{seq{}, lit(" "), seq{lit("\n"), rep{of: class{{'\t', '\t'}, {' ', ' '}}, max: 12}}})
}

func (c *converter) array(o *object, path string) (expr, error) {
	low, _, err := count(o, "minItems", path, itemsMax)
	if err != nil {
		return nil, err
	}
	high, bounded, err := count(o, "maxItems", path, itemsMax)
	if err != nil {
		return nil, err
	}
	if !bounded {
		high = -1
	} else if high < low {
		return nil, &Error{Path: path, Keyword: "maxItems", Remedy: "it is less than minItems"}
	}
	if v, ok := o.get("uniqueItems"); ok && v != false {
		return nil, &Error{Path: path, Keyword: "uniqueItems", Remedy: "leave it out, and drop repeated items afterwards"}
	}
	items, ok := o.get("items")
	if !ok {
		items = true
	}
	if items == false || high == 0 {
		if low > 0 {
			return nil, &Error{Path: path, Keyword: "minItems", Remedy: "no items are allowed"}
		}
		return c.add("array", seq{lit("["), c.space(), lit("]")}), nil
	}
	item, err := c.schema(items, path+"/items")
	if err != nil {
		return nil, err
	}
	return c.list(c.add("item", item), low, high), nil
}

func (c *converter) list(item expr, low, high int) expr {
	more := rep{of: seq{lit(","), c.space(), item}, min: max(0, low-1), max: -1}
	if high > 0 {
		more.max = high - 1
	}
	filled := []expr{item, more, c.space()}
	if high == 1 {
		filled = []expr{item, c.space()}
	}
	if low == 0 {
		filled = []expr{optional(filled...)}
	}
	return c.add("array", append(append(seq{lit("["), c.space()}, filled...), lit("]")))
}

func (c *converter) object(o *object, path string) (expr, error) {
	properties := &object{}
	if v, ok := o.get("properties"); ok {
		if properties, ok = v.(*object); !ok {
			return nil, &Error{Path: path, Keyword: "properties", Remedy: "it must be an object of schemas"}
		}
	}
	needed := map[string]bool{}
	if v, ok := o.get("required"); ok {
		list, isList := v.([]any)
		if !isList {
			return nil, &Error{Path: path, Keyword: "required", Remedy: "it must be a list of names"}
		}
		for _, x := range list {
			name, isName := x.(string)
			if _, there := properties.get(name); !isName || !there {
				return nil, &Error{Path: path, Keyword: "required", Remedy: fmt.Sprintf("%s is not among the properties: describe it there", encode(x))}
			}
			needed[name] = true
		}
	}
	var pairs []pair
	for _, name := range properties.keys {
		value, err := c.schema(properties.values[name], path+"/properties/"+name)
		if err != nil {
			return nil, err
		}
		body := seq{lit(jsonText(name) + ":"), optional(lit(" ")), value}
		pairs = append(pairs, pair{c.add("pair", body), needed[name]})
	}
	extra, err := c.extra(o, properties.keys, path)
	if err != nil {
		return nil, err
	}
	return c.braces(pairs, extra), nil
}

type pair struct {
	expr   expr
	needed bool
}

// extra is a pair of no named property, or nil. Unsaid, JSON Schema would allow them; leaving them out is as valid.
func (c *converter) extra(o *object, names []string, path string) (expr, error) {
	v, ok := o.get("additionalProperties")
	if _, described := o.get("properties"); !ok && !described {
		v = true // an object of which nothing is said
	}
	if said := ok || v != nil; !said || v == false {
		return nil, nil
	}
	value, err := c.schema(v, path+"/additionalProperties")
	if err != nil {
		return nil, err
	}
	return c.add("extra", seq{c.otherKey(names), lit(":"), optional(lit(" ")), value}), nil
}

// braces writes the pairs in order, each needed one and any of the others, then extra ones.
func (c *converter) braces(pairs []pair, extra expr) expr {
	comma := func(e expr) expr { return seq{lit(","), c.space(), e} }
	// after(i): what may follow when some pair is there already and pairs[:i] are settled.
	after := func(i int) []expr {
		var out []expr
		for _, p := range pairs[i:] {
			if p.needed {
				out = append(out, comma(p.expr))
			} else {
				out = append(out, optional(comma(p.expr)))
			}
		}
		if extra != nil {
			out = append(out, rep{of: comma(extra), max: -1})
		}
		return out
	}
	var first []expr // the first pair may be any up to the first needed one
	empty := true
	for i, p := range pairs {
		then := after(i + 1)
		if len(then) > 1 {
			then = []expr{c.add("rest", seq(then))}
		}
		first = append(first, seq(append([]expr{p.expr}, then...)))
		if p.needed {
			empty = false
			break
		}
	}
	if empty && extra != nil {
		first = append(first, seq(append([]expr{extra}, after(len(pairs))...)))
	}
	body := seq{lit("{"), c.space()}
	switch {
	case len(first) == 0:
	case empty:
		body = append(body, optional(either(first), c.space()))
	default:
		body = append(body, either(first), c.space())
	}
	return c.add("object", append(body, lit("}")))
}

// otherKey is a key that is none of names. It has no escapes, so that none of names can hide in one.
func (c *converter) otherKey(names []string) expr {
	plain := spans(plainSpans)
	any := rep{of: class(plain), max: -1}
	var not func(names []string) expr
	not = func(names []string) expr {
		byFirst := map[rune][]string{}
		var starts []rune
		whole := false // the key so far is one of names
		for _, n := range names {
			r, size := utf8.DecodeRuneInString(n)
			if size == 0 {
				whole = true
				continue
			}
			if byFirst[r] == nil {
				starts = append(starts, r)
			}
			byFirst[r] = append(byFirst[r], n[size:])
		}
		slices.Sort(starts)
		var out []expr
		if !whole {
			out = append(out, seq{})
		}
		others := plain
		for _, r := range starts {
			if !inside(plain, r) {
				continue // such a key needs an escape, which these never have
			}
			others = without(others, r)
			out = append(out, seq{class{{r, r}}, c.add("key", not(byFirst[r]))})
		}
		return either(append(out, seq{class(others), any}))
	}
	if len(names) == 0 {
		return c.quoted(any)
	}
	return c.quoted(not(names))
}

// quoted puts quotes around a string's content.
func (c *converter) quoted(content expr) expr { return seq{lit(`"`), content, lit(`"`)} }

// anyValue is any JSON value at all.
func (c *converter) anyValue() expr {
	if name, ok := c.refs["any"]; ok {
		return ref(name)
	}
	name := c.reserve("value")
	c.refs["any"] = name // no $ref is spelled so
	var out []expr
	for _, kind := range []string{"object", "array", "string", "number", "boolean", "null"} {
		out = append(out, c.anyOf(kind))
	}
	c.bodies[name] = alt(out)
	return ref(name)
}

// anyOf is any value of a kind.
func (c *converter) anyOf(kind string) expr {
	e, err := c.kind(kind, &object{values: map[string]any{}}, "#")
	if err != nil {
		panic(err) // the same every time, and a test has seen it
	}
	return e
}

// exclusive makes sure that no value fits two branches of a oneOf, as far as can be told from their types, constants
// and tags. A grammar cannot say "one, not both".
func (c *converter) exclusive(branches []any, path string) error {
	for i, a := range branches {
		for k, b := range branches[:i] {
			if !c.disjoint(a, b, 8) {
				return &Error{Path: path, Keyword: "oneOf", Remedy: fmt.Sprintf(
					"a value might fit both %d and %d: use anyOf, or give each branch a required property with another const", k, i)}
			}
		}
	}
	return nil
}

func (c *converter) disjoint(a, b any, depth int) bool {
	x, y := c.resolve(a), c.resolve(b)
	if x == nil || y == nil || depth == 0 {
		return false
	}
	if va, vb := constants(x), constants(y); va != nil && vb != nil {
		return !slices.ContainsFunc(va, func(s string) bool { return slices.Contains(vb, s) })
	}
	kx, ky := valueKinds(x), valueKinds(y)
	if kx == nil || ky == nil {
		return false
	}
	common := slices.ContainsFunc(kx, func(k string) bool { return slices.Contains(ky, k) })
	if !common {
		return true
	}
	if len(kx) != 1 || len(ky) != 1 || kx[0] != "object" {
		return false
	}
	px, _ := x.values["properties"].(*object)
	py, _ := y.values["properties"].(*object)
	if px == nil || py == nil {
		return false
	}
	return slices.ContainsFunc(listOf(x, "required"), func(name any) bool {
		tag, _ := name.(string)
		return slices.Contains(listOf(y, "required"), name) && px.values[tag] != nil && py.values[tag] != nil &&
			c.disjoint(px.values[tag], py.values[tag], depth-1)
	})
}

// resolve follows references to the schema itself; nil when there is none.
func (c *converter) resolve(v any) *object {
	for range 16 {
		o, ok := v.(*object)
		if !ok {
			return nil
		}
		target, ok := o.values["$ref"].(string)
		if !ok {
			return o
		}
		var err error
		if v, err = c.find(target, "#"); err != nil {
			return nil
		}
	}
	return nil
}

// constants are the values that a schema is limited to, so that equal ones read equal; nil where that is hard to tell.
func constants(o *object) (out []string) {
	values := listOf(o, "enum")
	if v, ok := o.get("const"); ok {
		values = []any{v}
	}
	for _, v := range values {
		switch v := v.(type) {
		case *object, []any:
			return nil
		case json.Number: // 1 and 1.0 are the same number
			f, err := v.Float64()
			if err != nil {
				return nil
			}
			out = append(out, fmt.Sprint(f))
		default:
			out = append(out, encode(v))
		}
	}
	return out
}

// valueKinds are the kinds of values a schema is known to be limited to; integers count as numbers.
func valueKinds(o *object) (out []string) {
	types, _ := typesOf(o, "#")
	if v, ok := o.get("const"); ok {
		types = append(types, kindOf(v))
	}
	for _, v := range listOf(o, "enum") {
		types = append(types, kindOf(v))
	}
	for _, t := range types {
		out = append(out, strings.Replace(t, "integer", "number", 1))
	}
	return out
}
