package task

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"text/template"
	"text/template/parse"
)

// Limits of a rendering. None is of time, so that a retry renders the same.
const (
	RenderMax  = PromptMax // bytes
	RenderWork = 32 << 20  // bytes that functions read and write, and renderNode for each node that a loop meets
	renderNode = 64
)

var (
	errWork  = fmt.Errorf("the template does too much, alone or with the others before it: %d bytes of work are the limit", RenderWork)
	errLong  = fmt.Errorf("the rendered text is longer than %d bytes", RenderMax)
	errRange = errors.New("there is no such item") // at the index that a template asks for: answers decide
)

// builtin are text/template's own functions that stay: the others can format without end, or are for HTML.
var builtin = map[string]bool{"and": true, "or": true, "not": true, "eq": true, "ne": true, "lt": true, "le": true, "gt": true, "ge": true, "len": true}

// expense is what renderings have used so far, of RenderWork and RenderMax: those of one tool's call share it, or many small ones would be a large one.
type expense struct{ work, bytes int }

// A form is a parsed template, good for one rendering.
type form struct {
	t    *template.Template
	used *expense
	refs []ref
	data bool // it wants .data
	any  bool // it looks at .steps as a whole: what of it, only a rendering tells
}

// ref is a name of a step, as in .steps.NAME.json.
type ref struct{ name, what string }

// parseForm reads a template whose root has these fields.
func parseForm(text string, root ...string) (*form, error) {
	if len(text) > StepPromptMax {
		return nil, fmt.Errorf("it has %d bytes, the limit is %d", len(text), StepPromptMax)
	}
	f := &form{used: &expense{}}
	funcs := f.functions()
	t, err := template.New("prompt").Option("missingkey=error").Funcs(funcs).Funcs(template.FuncMap{"tick": f.tick}).Parse(text)
	if err != nil {
		return nil, plainError(err)
	}
	f.t = t
	if len(t.Templates()) > 1 {
		return nil, errors.New("it defines templates: use if, with and range only")
	}
	if t.Tree == nil || t.Root == nil {
		return f, nil
	}
	c := &checker{f: f, root: root, known: func(name string) bool { _, ours := funcs[name]; return ours || builtin[name] }}
	c.list(t.Root, true)
	return f, c.err
}

// checker walks a parsed template: it finds what is named, and puts a tick into each loop.
type checker struct {
	f     *form
	root  []string
	known func(string) bool
	nodes int
	err   error
}

func (c *checker) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

// list walks the nodes of a block; atRoot tells whether the dot is the root there.
func (c *checker) list(l *parse.ListNode, atRoot bool) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		c.nodes++
		switch n := n.(type) {
		case *parse.ActionNode:
			c.pipe(n.Pipe, atRoot)
		case *parse.IfNode:
			c.branch(&n.BranchNode, atRoot, atRoot)
		case *parse.WithNode:
			c.branch(&n.BranchNode, atRoot, false)
		case *parse.RangeNode:
			before := c.nodes
			c.branch(&n.BranchNode, atRoot, false)
			tick, err := template.New("").Funcs(template.FuncMap{"tick": c.f.tick}).Parse(fmt.Sprintf("{{tick %d}}", 1+c.nodes-before))
			if err != nil {
				c.fail("%w", err)
				return
			}
			n.List.Nodes = append([]parse.Node{tick.Root.Nodes[0]}, n.List.Nodes...)
		case *parse.TextNode, *parse.BreakNode, *parse.ContinueNode, *parse.CommentNode:
		default:
			c.fail("%.40q is not allowed: use if, with, range and functions only", n.String())
		}
	}
}

func (c *checker) branch(b *parse.BranchNode, atRoot, inside bool) {
	c.pipe(b.Pipe, atRoot)
	c.list(b.List, inside)
	c.list(b.ElseList, atRoot)
}

func (c *checker) pipe(p *parse.PipeNode, atRoot bool) {
	if p == nil {
		return
	}
	for _, cmd := range p.Cmds {
		for _, arg := range cmd.Args {
			c.arg(arg, atRoot)
		}
	}
}

func (c *checker) arg(n parse.Node, atRoot bool) {
	c.nodes++
	switch n := n.(type) {
	case *parse.IdentifierNode:
		if !c.known(n.Ident) {
			c.fail("function %q is not allowed: see docs/steps.md", n.Ident)
		}
	case *parse.FieldNode:
		if atRoot {
			c.field(n.Ident)
		}
	case *parse.VariableNode:
		if n.Ident[0] == "$" {
			if len(n.Ident) == 1 {
				c.f.any = true
				return
			}
			c.field(n.Ident[1:])
		}
	case *parse.DotNode:
		c.f.any = c.f.any || atRoot
	case *parse.ChainNode:
		c.arg(n.Node, atRoot)
	case *parse.PipeNode:
		c.pipe(n, atRoot)
	}
}

// field notes what is named of the root.
func (c *checker) field(path []string) {
	known := false
	for _, r := range c.root {
		known = known || r == path[0]
	}
	switch {
	case !known:
		c.fail("it names .%s, which is not there: use %s", path[0], "."+strings.Join(c.root, ", ."))
	case path[0] == "data":
		c.f.data = true
	case path[0] == "steps" && len(path) == 1:
		c.f.any = true
	case path[0] == "steps" && len(path) == 2:
		c.f.refs = append(c.f.refs, ref{name: path[1]})
	case path[0] == "steps":
		c.f.refs = append(c.f.refs, ref{path[1], path[2]})
	}
}

// render runs the template. Equal values give equal texts: maps are walked in the order of their keys.
func (f *form) render(root map[string]any) (string, error) {
	b := limited{before: f.used.bytes}
	if err := f.t.Execute(&b, root); err != nil {
		return "", plainError(err)
	}
	f.used.bytes += b.Len()
	return b.String(), nil
}

// limited is a buffer with an end.
type limited struct {
	bytes.Buffer
	before int // bytes of others, that count too
}

func (l *limited) Write(p []byte) (int, error) {
	if l.before+l.Len()+len(p) > RenderMax {
		return 0, errLong
	}
	return l.Buffer.Write(p)
}

// plainError keeps text/template's words but for the name that we gave it.
func plainError(err error) error {
	return &formError{strings.TrimPrefix(strings.TrimPrefix(err.Error(), "template: "), "prompt:"), err}
}

type formError struct {
	text  string
	cause error
}

func (e *formError) Error() string { return "line " + e.text }
func (e *formError) Unwrap() error { return e.cause }

// spend takes from what is left.
func (f *form) spend(n int) error {
	if f.used.work += n; f.used.work > RenderWork {
		return errWork
	}
	return nil
}

// tick is called once a turn of a loop.
func (f *form) tick(nodes int) (string, error) { return "", f.spend(nodes * renderNode) }

// functions are ours, see docs/steps.md.
func (f *form) functions() template.FuncMap {
	text := func(s string) (string, error) {
		if len(s) > RenderMax {
			return "", errLong
		}
		return s, f.spend(len(s))
	}
	each := func(change func(string) string) func(string) (string, error) {
		return func(s string) (string, error) {
			if err := f.spend(len(s)); err != nil {
				return "", err
			}
			return text(change(s))
		}
	}
	return template.FuncMap{
		"trim":     each(strings.TrimSpace),
		"lower":    each(strings.ToLower),
		"upper":    each(strings.ToUpper),
		"urlquery": each(urlEscape),
		"truncate": func(n int, s string) (string, error) {
			for i := range s {
				if n--; n < 0 {
					return text(s[:i])
				}
			}
			return text(s)
		},
		"lines": func(s string) ([]string, error) {
			if err := f.spend(len(s) + 16*strings.Count(s, "\n")); err != nil || s == "" {
				return nil, err
			}
			return strings.Split(strings.TrimSuffix(s, "\n"), "\n"), nil
		},
		"join": func(list any, sep string) (string, error) {
			var b limited
			v := reflect.ValueOf(list)
			if !v.IsValid() || v.Kind() != reflect.Slice {
				return "", fmt.Errorf("join takes a list, not %T", list)
			}
			for i := range v.Len() {
				if i > 0 {
					if _, err := b.WriteString(sep); err != nil || b.Len() > RenderMax {
						return "", errLong
					}
				}
				if _, err := fmt.Fprint(&b, v.Index(i).Interface()); err != nil {
					return "", err
				}
			}
			return text(b.String())
		},
		"json": func(v any) (string, error) {
			var b limited
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			if err := e.Encode(v); err != nil {
				return "", err
			}
			return text(strings.TrimSuffix(b.String(), "\n"))
		},
		"index": func(v any, keys ...any) (any, error) {
			for _, k := range keys {
				var ok bool
				if v, ok = item(v, k); !ok {
					return nil, fmt.Errorf("%v: %w", k, errRange)
				}
			}
			return v, f.spend(renderNode)
		},
		"get": func(v, key, otherwise any) (any, error) {
			if found, ok := item(v, key); ok {
				return found, f.spend(renderNode)
			}
			return otherwise, f.spend(renderNode)
		},
	}
}

// urlEscape makes a text safe as one part of a URL's path, or as a value in its query.
func urlEscape(s string) string {
	if strings.Trim(s, ".") == "" {
		return strings.ReplaceAll(s, ".", "%2E") // as it is, it would climb in a path
	}
	return strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
}

// item is what an object has under a name, or a list at a place.
func item(v, key any) (any, bool) {
	switch at := key.(type) {
	case string:
		switch m := v.(type) {
		case map[string]any:
			found, ok := m[at]
			return found, ok
		case map[string]string:
			found, ok := m[at]
			return found, ok
		}
	case int:
		switch l := v.(type) {
		case []any:
			if at >= 0 && at < len(l) {
				return l[at], true
			}
		case []string:
			if at >= 0 && at < len(l) {
				return l[at], true
			}
		}
	}
	return nil, false
}

// jsonValue parses an answer for templates: whole numbers are int64, so that they compare with 1.
func jsonValue(text string) (any, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return numbers(v), nil
}

func numbers(v any) any {
	switch x := v.(type) {
	case json.Number:
		if n, err := x.Int64(); err == nil {
			return n
		}
		if f, err := x.Float64(); err == nil {
			return f
		}
		return x.String()
	case map[string]any:
		for k := range x {
			x[k] = numbers(x[k])
		}
	case []any:
		for i := range x {
			x[i] = numbers(x[i])
		}
	}
	return v
}

// sampleText stands for a text that is not known yet.
const sampleText = "text"

// sample makes a value that keeps to a schema; ok is false where the schema leaves too much open to say what it would look like.
func sample(root, schema any, depth int) (v any, ok bool) {
	s, is := schema.(map[string]any)
	if !is || depth > 32 {
		return nil, false
	}
	if r, is := s["$ref"].(string); is {
		at, found := pointed(root, r)
		if !found {
			return nil, false
		}
		return sample(root, at, depth+1)
	}
	if e, is := s["enum"].([]any); is && len(e) > 0 {
		return numbers(e[0]), true
	}
	switch s["type"] {
	case "string":
		return sampleText, true
	case "integer":
		return int64(1), true
	case "number":
		return 1.5, true
	case "boolean":
		return true, true
	case "array":
		one, ok := sample(root, s["items"], depth+1)
		return []any{one}, ok
	case "object":
		fields, _ := s["properties"].(map[string]any)
		m := map[string]any{}
		for k, f := range fields {
			if m[k], ok = sample(root, f, depth+1); !ok {
				return nil, false
			}
		}
		return m, len(m) > 0
	}
	return nil, false
}
