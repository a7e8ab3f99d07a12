package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/open-autoglm/autoglm/actors/quota"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// readQuotas reads the quotas of a file.
func readQuotas(app *cli.App, file string) (specs []quota.Terms, err error) {
	var b []byte
	switch file {
	case "":
		return nil, cli.Usage("give the file with the quotas: -f FILE")
	case "-":
		b, err = io.ReadAll(app.In)
	default:
		b, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, cli.Usage("--file: %v", err)
	}
	specs, err = parseQuotas(b)
	if err != nil {
		return nil, cli.Usage("%s, %s", file, fault.Shown(err))
	}
	if len(specs) == 0 {
		return nil, cli.Usage("%s has no quota in it", file)
	}
	return specs, nil
}

// parseQuotas reads documents, one for each tenant. What no quota has is an error: a limit that was misspelt, or cut to a whole number, would be
// none, or another.
func parseQuotas(b []byte) (specs []quota.Terms, err error) {
	dec := yaml.NewDecoder(bytes.NewReader(b))
	for number := 1; ; number++ {
		var doc yaml.Node
		if err = dec.Decode(&doc); errors.Is(err, io.EOF) {
			return specs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("document %d is no YAML: %s", number, strings.TrimPrefix(err.Error(), "yaml: "))
		}
		var s quota.Terms
		if err = fits(doc.Content[0], reflect.TypeFor[quota.Terms](), ""); err == nil {
			err = doc.Decode(&s)
			s = s.Numbered()
		}
		if err == nil {
			err = s.Check()
		}
		if err == nil && slices.ContainsFunc(specs, func(o quota.Terms) bool { return o.Tenant == s.Tenant }) {
			err = fmt.Errorf("tenant %s has another document before: put both into one", s.Tenant)
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", number, err)
		}
		specs = append(specs, s)
	}
}

// fits tells, with the line and in a user's words, what of a YAML value is not of a type's form.
func fits(n *yaml.Node, t reflect.Type, path string) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	name := path
	if name == "" {
		name = "the document"
	}
	want, ok := "", false
	switch t.Kind() {
	case reflect.Struct:
		if n.Kind == yaml.MappingNode {
			return fieldsFit(n, t, path)
		}
		want = "fields, each as NAME: VALUE"
	case reflect.Slice:
		if n.Kind == yaml.SequenceNode {
			for i, e := range n.Content {
				if err := fits(e, t.Elem(), fmt.Sprintf("%s[%d]", path, i)); err != nil {
					return err
				}
			}
			return nil
		}
		want = "a list, each entry on a line of its own that begins with -"
	case reflect.String: // a number is one, too: priorities: 9
		want, ok = "a text", n.Kind == yaml.ScalarNode && n.Tag != "!!null"
	case reflect.Float64:
		want, ok = "a number", n.Tag == "!!float" || n.Tag == "!!int"
	default:
		want, ok = "a whole number", n.Tag == "!!int" && n.Decode(new(int)) == nil
	}
	if ok {
		return nil
	}
	given := "is something else"
	if n.Kind == yaml.ScalarNode {
		given = "is " + cli.Cut(n.Value, 40)
	}
	if n.Tag == "!!null" {
		given = "is empty"
	}
	return fmt.Errorf("line %d: %s %s: use %s", n.Line, name, given, want)
}

// fieldsFit is fits for what has fields.
func fieldsFit(n *yaml.Node, t reflect.Type, path string) error {
	types, names := map[string]reflect.Type{}, []string(nil)
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		types[name], names = f.Type, append(names, name)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		field := strings.TrimPrefix(path+"."+key.Value, ".")
		switch of, known := types[key.Value]; {
		case !known:
			return fmt.Errorf("line %d: %s is no field of a quota: use one of %s", key.Line, field, strings.Join(names, ", "))
		case seen[key.Value]:
			return fmt.Errorf("line %d: %s is there twice", key.Line, field)
		default:
			if err := fits(n.Content[i+1], of, field); err != nil {
				return err
			}
		}
		seen[key.Value] = true
	}
	return nil
}
