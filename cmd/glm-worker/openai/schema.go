package openai

import (
	"container/list"
	"sync"

	"github.com/open-autoglm/autoglm/cmd/glm-worker/engine"
	"github.com/open-autoglm/autoglm/cmd/glm-worker/grammar"
)

// schemasMax is how many schemas are kept converted. A batch of tasks has one schema, so a few are enough.
const schemasMax = 64

// schemas remembers the grammars of the schemas used last.
type schemas struct {
	mu    sync.Mutex
	known map[string]*list.Element // schema text → *converted
	order list.List                // the one used last in front; len == len(known) <= schemasMax
}

type converted struct{ schema, gbnf string }

// matcher makes what holds an answer to the format; nil where any text will do.
func (c *schemas) matcher(m *Model, f *responseFormat) (engine.Matcher, error) {
	if f == nil || f.Type == "text" {
		return nil, nil
	}
	gbnf := grammar.AnyObject()
	switch f.Type {
	case "json_object":
	case "json_schema":
		if f.JSONSchema == nil || len(f.JSONSchema.Schema) == 0 {
			return nil, invalid("response_format.json_schema.schema", "response_format.json_schema.schema is missing")
		}
		var err error
		if gbnf, err = c.convert(string(f.JSONSchema.Schema)); err != nil {
			return nil, refused(400, "invalid_request_error", "unsupported_schema", "response_format", "%v", err)
		}
	default:
		return nil, invalid("response_format.type", "response_format.type is %q: text, json_object or json_schema", f.Type)
	}
	matcher, err := m.NewGrammar(gbnf)
	if err != nil { // a bug of package grammar, but this request's alone
		return nil, refused(400, "invalid_request_error", "unsupported_schema", "response_format", "the schema's grammar is refused: %v", err)
	}
	return matcher, nil
}

func (c *schemas) convert(schema string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.known[schema]; ok {
		c.order.MoveToFront(e)
		return e.Value.(*converted).gbnf, nil
	}
	gbnf, err := grammar.FromSchema([]byte(schema))
	if err != nil {
		return "", err
	}
	if c.known == nil {
		c.known = map[string]*list.Element{}
	}
	c.known[schema] = c.order.PushFront(&converted{schema, gbnf})
	if c.order.Len() > schemasMax {
		oldest := c.order.Remove(c.order.Back()).(*converted)
		delete(c.known, oldest.schema)
	}
	return gbnf, nil
}
