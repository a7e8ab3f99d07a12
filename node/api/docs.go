package api

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html/template"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// docsHTML is the page at /docs. It is rendered once, on the server, without scripts: it
// works offline and needs nothing from elsewhere.
//
//go:embed docs.html
var docsHTML string

type docsOp struct {
	*huma.Operation
	Answers []docsAnswer
	Bodies  []docsAnswer
}

type docsAnswer struct {
	Status, Media, Type, Text string
}

type docsType struct {
	Name   string
	Fields []docsField
}

type docsField struct {
	Name, Type, Text string
}

// docsPage renders the OpenAPI document for people.
func docsPage(doc *huma.OpenAPI) ([]byte, error) {
	var ops []docsOp
	for _, path := range doc.Paths {
		for _, op := range []*huma.Operation{path.Get, path.Post, path.Delete} {
			if op != nil {
				ops = append(ops, docsOpOf(op))
			}
		}
	}
	slices.SortFunc(ops, func(a, b docsOp) int {
		return strings.Compare(a.Tags[0]+a.Path+a.Method, b.Tags[0]+b.Path+b.Method)
	})
	var types []docsType
	for name, s := range doc.Components.Schemas.Map() {
		t := docsType{Name: name}
		for field, p := range s.Properties {
			t.Fields = append(t.Fields, docsField{Name: field, Type: schemaWords(p), Text: p.Description})
		}
		slices.SortFunc(t.Fields, func(a, b docsField) int { return strings.Compare(a.Name, b.Name) })
		types = append(types, t)
	}
	slices.SortFunc(types, func(a, b docsType) int { return strings.Compare(a.Name, b.Name) })
	tmpl, err := template.New("docs").Parse(docsHTML)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = tmpl.Execute(&out, map[string]any{"Info": doc.Info, "Ops": ops, "Types": types})
	return out.Bytes(), err
}

func docsOpOf(op *huma.Operation) docsOp {
	d := docsOp{Operation: op}
	for status, resp := range op.Responses {
		if len(resp.Content) == 0 {
			d.Answers = append(d.Answers, docsAnswer{Status: status, Text: resp.Description})
		}
		for media, m := range resp.Content {
			d.Answers = append(d.Answers, docsAnswer{Status: status, Media: media, Type: schemaWords(m.Schema), Text: resp.Description})
		}
	}
	if op.RequestBody != nil {
		for media, m := range op.RequestBody.Content {
			d.Bodies = append(d.Bodies, docsAnswer{Media: media, Type: schemaWords(m.Schema)})
		}
	}
	byStatus := func(a, b docsAnswer) int { return strings.Compare(a.Status+a.Media, b.Status+b.Media) }
	slices.SortFunc(d.Answers, byStatus)
	slices.SortFunc(d.Bodies, byStatus)
	return d
}

// schemaWords names a schema's type in a word or two.
func schemaWords(s *huma.Schema) string {
	switch {
	case s == nil:
		return ""
	case s.Ref != "":
		return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
	case len(s.OneOf) > 0:
		var words []string
		for _, o := range s.OneOf {
			words = append(words, schemaWords(o))
		}
		return strings.Join(words, " or ")
	case s.Items != nil:
		return "array of " + schemaWords(s.Items)
	case len(s.Enum) > 0:
		b, _ := json.Marshal(s.Enum)
		return string(b)
	case s.Format != "":
		return s.Type + " (" + s.Format + ")"
	}
	return s.Type
}

func typeOf(v any) reflect.Type { return reflect.TypeOf(v) }
