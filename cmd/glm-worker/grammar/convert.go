package grammar

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// elementsMax bounds a grammar: llama.cpp parses it for each request and walks it for each token.
const elementsMax = 40_000

// Error says what in a schema cannot be honoured, and what to write instead.
type Error struct {
	Path    string // of the schema concerned, as "#/properties/name"
	Keyword string // may be empty
	Remedy  string
}

func (e *Error) Error() string {
	if e.Keyword == "" {
		return fmt.Sprintf("the schema at %s is not supported: %s", e.Path, e.Remedy)
	}
	return fmt.Sprintf("the schema at %s is not supported: %q: %s", e.Path, e.Keyword, e.Remedy)
}

// FromSchema converts a JSON schema to GBNF with the start rule "root".
func FromSchema(schema []byte) (string, error) {
	v, err := decode(schema)
	if err != nil {
		return "", err
	}
	c := newConverter()
	c.root = v
	body, err := c.schema(v, "#")
	if err != nil {
		return "", err
	}
	return c.finish(body)
}

// AnyObject is the grammar of any JSON object.
func AnyObject() string {
	c := newConverter()
	text, err := c.finish(c.anyOf("object"))
	if err != nil {
		panic(err) // the same every time, and a test has seen it
	}
	return text
}

type converter struct {
	rules
	root any
	refs map[string]string // a $ref → its rule
	open map[string]bool   // refs being converted since the last character that is certain to be written
}

func newConverter() *converter {
	c := &converter{rules: rules{bodies: map[string]expr{}, named: map[string]string{}}, refs: map[string]string{}, open: map[string]bool{}}
	c.reserve("root")
	return c
}

func (c *converter) finish(body expr) (string, error) {
	c.bodies["root"] = body
	if name := c.endless(); name != "" {
		return "", &Error{Path: "#", Remedy: fmt.Sprintf("no finite value satisfies it (see %s): make the property that repeats it optional, or allow null", name)}
	}
	if n := c.cost(); n > elementsMax {
		return "", &Error{Path: "#", Remedy: fmt.Sprintf("its grammar has %d elements, at most %d: lower maxLength, maxItems or the repetitions in patterns", n, elementsMax)}
	}
	return c.String(), nil
}

// Keywords that say nothing about whether a value is valid.
var annotations = []string{"title", "description", "$schema", "$id", "$anchor", "$comment", "$defs", "definitions", "default", "examples",
	"deprecated", "readOnly", "writeOnly", "contentMediaType", "contentEncoding", "contentSchema"}

// Keywords by the kind of value that they are about.
var about = map[string][]string{
	"object": {"properties", "required", "additionalProperties"},
	"array":  {"items", "minItems", "maxItems", "uniqueItems"},
	"string": {"minLength", "maxLength", "pattern", "format"},
	"number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}

// What to do instead of keywords that are not honoured.
var remedies = map[string]string{
	"allOf": "write the merged schema", "not": "say what is allowed instead", "if": "write the cases as anyOf", "then": "write the cases as anyOf",
	"else": "write the cases as anyOf", "patternProperties": "name the properties, or use additionalProperties", "propertyNames": "name the properties",
	"minProperties": "list the needed ones as required", "maxProperties": "leave it out", "dependentRequired": "write the cases as anyOf",
	"dependentSchemas": "write the cases as anyOf", "dependencies": "write the cases as anyOf", "prefixItems": "use an object with named properties",
	"contains": "leave it out", "minContains": "leave it out", "maxContains": "leave it out", "unevaluatedProperties": "use additionalProperties",
	"unevaluatedItems": "use items", "$dynamicRef": "use $ref", "$recursiveRef": "use $ref",
}

// schema converts one schema to a piece that every value of is valid under it.
func (c *converter) schema(v any, path string) (expr, error) {
	o, ok := v.(*object)
	switch {
	case v == true:
		return c.anyValue(), nil
	case v == false:
		return nil, &Error{Path: path, Remedy: "false allows no value at all"}
	case !ok:
		return nil, &Error{Path: path, Remedy: fmt.Sprintf("a schema is an object, not %s", encode(v))}
	}
	keys := slices.DeleteFunc(slices.Clone(o.keys), func(k string) bool { return slices.Contains(annotations, k) })
	for _, k := range keys {
		if remedy, ok := remedies[k]; ok && !(k == "allOf" && len(listOf(o, k)) == 1) {
			return nil, &Error{Path: path, Keyword: k, Remedy: remedy}
		}
	}
	// Keywords that are the whole schema: what stands beside them would have to be merged.
	for _, whole := range []string{"$ref", "allOf", "anyOf", "oneOf", "const", "enum"} {
		if !slices.Contains(keys, whole) {
			continue
		}
		rest := slices.DeleteFunc(slices.Clone(keys), func(k string) bool {
			return k == whole || (k == "type" && (whole == "const" || whole == "enum"))
		})
		if len(rest) > 0 {
			return nil, &Error{Path: path, Keyword: rest[0], Remedy: "it stands beside " + whole + ": write it into the schemas there"}
		}
		return c.whole(o, whole, path)
	}
	return c.typed(o, keys, path)
}

func (c *converter) whole(o *object, keyword, path string) (expr, error) {
	v, _ := o.get(keyword)
	switch keyword {
	case "$ref":
		return c.reference(v, path)
	case "allOf":
		return c.schema(listOf(o, keyword)[0], path+"/allOf/0")
	case "const":
		return c.literals(o, []any{v}, keyword, path)
	case "enum":
		return c.literals(o, listOf(o, keyword), keyword, path)
	}
	branches := listOf(o, keyword)
	if len(branches) == 0 {
		return nil, &Error{Path: path, Keyword: keyword, Remedy: "it must be a list of schemas, not empty"}
	}
	if keyword == "oneOf" {
		if err := c.exclusive(branches, path); err != nil {
			return nil, err
		}
	}
	var out []expr
	for i, b := range branches {
		e, err := c.schema(b, fmt.Sprintf("%s/%s/%d", path, keyword, i))
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return either(out), nil
}

func listOf(o *object, key string) []any {
	list, _ := o.values[key].([]any)
	return list
}

// reference converts what a $ref points to, once; a schema may contain itself.
func (c *converter) reference(v any, path string) (expr, error) {
	target, ok := v.(string)
	if !ok || !strings.HasPrefix(target, "#") {
		return nil, &Error{Path: path, Keyword: "$ref", Remedy: fmt.Sprintf("%s lies outside this schema: copy it into $defs", encode(v))}
	}
	if c.open[target] {
		return nil, &Error{Path: path, Keyword: "$ref", Remedy: target + " refers to itself without anything between"}
	}
	if name, ok := c.refs[target]; ok {
		return ref(name), nil
	}
	found, err := c.find(target, path)
	if err != nil {
		return nil, err
	}
	name := c.reserve("ref")
	c.refs[target], c.open[target] = name, true
	body, err := c.schema(found, target)
	delete(c.open, target)
	if err != nil {
		return nil, err
	}
	c.bodies[name] = body
	return ref(name), nil
}

// find follows a JSON pointer.
func (c *converter) find(target, path string) (any, error) {
	v := c.root
	if target == "#" {
		return v, nil
	}
	missing := &Error{Path: path, Keyword: "$ref", Remedy: target + " is not there: only JSON pointers such as #/$defs/name are followed"}
	pointer, ok := strings.CutPrefix(target, "#/")
	if !ok {
		return nil, missing
	}
	for _, step := range strings.Split(pointer, "/") {
		o, ok := v.(*object)
		if !ok {
			return nil, missing
		}
		if v, ok = o.get(strings.NewReplacer("~1", "/", "~0", "~").Replace(step)); !ok {
			return nil, missing
		}
	}
	return v, nil
}

// literals are the values of const and enum, less those that the type beside them excludes.
func (c *converter) literals(o *object, values []any, keyword, path string) (expr, error) {
	types, err := typesOf(o, path)
	if err != nil {
		return nil, err
	}
	var out []expr
	seen := map[string]bool{}
	for _, v := range values {
		kind, text := kindOf(v), encode(v)
		if types != nil && !slices.Contains(types, kind) && !(kind == "integer" && slices.Contains(types, "number")) || seen[text] {
			continue
		}
		seen[text] = true
		out = append(out, lit(text))
	}
	if len(out) == 0 {
		return nil, &Error{Path: path, Keyword: keyword, Remedy: "it must list at least one value, of the schema's type"}
	}
	return either(out), nil
}

func typesOf(o *object, path string) ([]string, error) {
	v, ok := o.get("type")
	if !ok {
		return nil, nil
	}
	var types []string
	switch v := v.(type) {
	case string:
		types = []string{v}
	case []any:
		for _, x := range v {
			s, _ := x.(string)
			types = append(types, s)
		}
	}
	for _, t := range types {
		if !slices.Contains(kinds, t) {
			return nil, &Error{Path: path, Keyword: "type", Remedy: fmt.Sprintf("%q is none of %s", t, strings.Join(kinds, ", "))}
		}
	}
	if len(types) == 0 {
		return nil, &Error{Path: path, Keyword: "type", Remedy: "it must be a name or a list of names"}
	}
	return types, nil
}

// typed converts a schema made of type and keywords about types. Without a type the keywords tell which is meant.
func (c *converter) typed(o *object, keys []string, path string) (expr, error) {
	types, err := typesOf(o, path)
	if err != nil {
		return nil, err
	}
	used := map[string]string{} // kind → a keyword about it
	for _, k := range keys {
		if k == "type" {
			continue
		}
		kind := ""
		for name, words := range about {
			if slices.Contains(words, k) {
				kind = name
			}
		}
		if kind == "" {
			return nil, &Error{Path: path, Keyword: k, Remedy: "this keyword is not known here: leave it out"}
		}
		used[kind] = k
	}
	if types == nil {
		for _, kind := range kinds {
			if used[kind] != "" {
				types = append(types, kind)
			}
		}
		if len(types) > 1 {
			return nil, &Error{Path: path, Keyword: used[types[1]], Remedy: "say with type which kind of value is meant"}
		}
	}
	if types == nil {
		return c.anyValue(), nil
	}
	if slices.Contains(types, "number") { // every integer is one
		types = slices.DeleteFunc(slices.Clone(types), func(t string) bool { return t == "integer" })
	}
	var out []expr
	for _, t := range types {
		e, err := c.kind(t, o, path)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return either(out), nil
}

func (c *converter) kind(kind string, o *object, path string) (expr, error) {
	switch kind {
	case "object", "array":
		before := c.open // a bracket comes first, so what is inside may refer to what is open
		c.open = map[string]bool{}
		defer func() { c.open = before }()
		if kind == "array" {
			return c.array(o, path)
		}
		return c.object(o, path)
	case "string":
		return c.text(o, path)
	case "number":
		return c.number(o, path)
	case "integer":
		return c.integer(o, path)
	case "boolean":
		return alt{lit("true"), lit("false")}, nil
	}
	return lit("null"), nil
}

// whole reads a keyword that is a count.
func count(o *object, key, path string, most int) (n int, ok bool, err error) {
	v, ok := o.get(key)
	if !ok {
		return 0, false, nil
	}
	number, _ := v.(json.Number)
	i, err := number.Int64()
	if err != nil || i < 0 || i > int64(most) {
		return 0, false, &Error{Path: path, Keyword: key, Remedy: fmt.Sprintf("it must be a whole number from 0 to %d", most)}
	}
	return int(i), true, nil
}
