package task

import (
	"bytes"
	"encoding/json"
	"errors"

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
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	if err := c.AddResource("schema.json", doc); err != nil {
		return f, nil, bad("json_schema.schema: %w", err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		return f, nil, bad("json_schema.schema: %w", err)
	}
	return f, s, nil
}

func validateFormat(raw json.RawMessage) error {
	_, _, err := CompileFormat(raw)
	return err
}
