package task

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Format is a parsed response_format.
type Format struct {
	Type   string `json:"type"` // text, json_object, json_schema
	Schema struct {
		Name   string          `json:"name"`
		Schema json.RawMessage `json:"schema"`
		Strict bool            `json:"strict"`
	} `json:"json_schema"`
}

// errNoLoader answers every remote $ref: a schema must be whole, nothing is fetched.
var errNoLoader = errors.New("remote $ref is not loaded: put the definition into $defs")

type noLoader struct{}

func (noLoader) Load(string) (any, error) { return nil, errNoLoader }

// schemaURL names a schema in messages; a relative name would get this process's folder before it.
const schemaURL = "file:///schema.json"

// CompileFormat parses raw and compiles its schema, which is nil for the formats
// without one. An empty raw is text.
func CompileFormat(raw json.RawMessage) (Format, *jsonschema.Schema, error) {
	f := Format{Type: "text"}
	if len(raw) == 0 {
		return f, nil, nil
	}
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "task.validate", "response_format", format, args...)
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return f, nil, bad("is no response format: %w", err)
	}
	switch f.Type {
	case "text", "json_object":
		return f, nil, nil
	case "json_schema":
	default:
		return f, nil, bad("has type %q: use text, json_object or json_schema", f.Type)
	}
	if len(f.Schema.Schema) == 0 {
		return f, nil, bad("has no json_schema.schema")
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(f.Schema.Schema))
	if err != nil {
		return f, nil, bad("json_schema.schema: %w", err)
	}
	if n := expanded(doc, doc, map[string]int{}, 0); n > schemaExpandMax {
		return f, nil, bad("json_schema.schema expands to more than %d subschemas through its $refs: checking an answer would take for ever", schemaExpandMax)
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	if err := c.AddResource(schemaURL, doc); err != nil {
		return f, nil, bad("json_schema.schema: %w", err)
	}
	s, err := c.Compile(schemaURL)
	if err != nil {
		return f, nil, bad("json_schema.schema: %w", err)
	}
	return f, s, nil
}

// schemaExpandMax bounds the subschemas of a schema with every local $ref written out:
// a validator walks all of them, and fifty lines can stand for 2^50.
const schemaExpandMax = 20_000

// expanded counts the nodes of schema with its local $refs written out, up to a little
// over schemaExpandMax. A $ref into itself counts once: an answer's depth bounds it.
// known holds the counts of definitions; a negative one is being counted.
func expanded(root, schema any, known map[string]int, depth int) int {
	if depth > 500 {
		return schemaExpandMax + 1
	}
	n := 1
	add := func(v any) {
		if n <= schemaExpandMax {
			n += expanded(root, v, known, depth+1)
		}
	}
	switch v := schema.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			switch c, ok := known[ref]; {
			case !ok:
				known[ref] = -1
				c = 1
				if target, found := pointed(root, ref); found {
					c = expanded(root, target, known, depth+1)
				}
				known[ref] = c
				n += c
			case c > 0:
				n += c
			}
		}
		for _, x := range v {
			add(x)
		}
	case []any:
		for _, x := range v {
			add(x)
		}
	}
	return min(n, schemaExpandMax+1)
}

// pointed follows a local JSON pointer ("#/$defs/x").
func pointed(root any, ref string) (any, bool) {
	path, local := strings.CutPrefix(ref, "#")
	if !local {
		return nil, false
	}
	at := root
	for step := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		if step == "" {
			continue
		}
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		switch v := at.(type) {
		case map[string]any:
			at = v[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(v) {
				return nil, false
			}
			at = v[i]
		default:
			return nil, false
		}
	}
	return at, at != nil
}

func validateFormat(raw json.RawMessage) error {
	_, _, err := CompileFormat(raw)
	return err
}
