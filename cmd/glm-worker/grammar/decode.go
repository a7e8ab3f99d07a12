package grammar

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Limits of a schema.
const (
	bytesMax = 256 << 10
	depthMax = 64
)

// object is a JSON object with its keys in order: properties come out in the order they are written.
type object struct {
	keys   []string
	values map[string]any
}

func (o *object) get(key string) (any, bool) {
	v, ok := o.values[key]
	return v, ok
}

// decode reads JSON into object, []any, string, json.Number, bool and nil.
func decode(text []byte) (any, error) {
	if len(text) > bytesMax {
		return nil, fmt.Errorf("the schema has %d bytes: at most %d", len(text), bytesMax)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	v, err := value(d, 0)
	if err != nil {
		return nil, fmt.Errorf("the schema is not JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the schema is not JSON: something follows its end")
	}
	return v, nil
}

func value(d *json.Decoder, depth int) (any, error) {
	if depth > depthMax {
		return nil, fmt.Errorf("nested deeper than %d", depthMax)
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		o := &object{values: map[string]any{}}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			name := key.(string) // the decoder refuses any other key
			if _, twice := o.values[name]; twice {
				return nil, fmt.Errorf("key %q appears twice", name)
			}
			if o.values[name], err = value(d, depth+1); err != nil {
				return nil, err
			}
			o.keys = append(o.keys, name)
		}
		_, err = d.Token()
		return o, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := value(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.Token()
		return list, err
	}
	return t, nil
}

// encode writes a decoded value back, as the model should: compact, nothing escaped without need.
func encode(v any) string {
	switch v := v.(type) {
	case *object:
		parts := make([]string, len(v.keys))
		for i, k := range v.keys {
			parts[i] = jsonText(k) + ":" + encode(v.values[k])
		}
		return "{" + join(parts) + "}"
	case []any:
		parts := make([]string, len(v))
		for i, x := range v {
			parts[i] = encode(x)
		}
		return "[" + join(parts) + "]"
	case string:
		return jsonText(v)
	case json.Number:
		return v.String()
	case bool:
		if v {
			return "true"
		}
		return "false"
	}
	return "null"
}

func join(parts []string) string {
	var b []byte
	for i, p := range parts {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, p...)
	}
	return string(b)
}

func jsonText(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always can be
	return string(bytes.TrimRight(b.Bytes(), "\n"))
}

// Names that JSON Schema gives to kinds of values.
var kinds = []string{"object", "array", "string", "number", "integer", "boolean", "null"}

// kindOf names a decoded value's kind.
func kindOf(v any) string {
	switch v := v.(type) {
	case *object:
		return "object"
	case []any:
		return "array"
	case string:
		return "string"
	case json.Number:
		if slices.ContainsFunc([]byte(v.String()), func(c byte) bool { return c == '.' || c == 'e' || c == 'E' }) {
			return "number"
		}
		return "integer"
	case bool:
		return "boolean"
	}
	return "null"
}
