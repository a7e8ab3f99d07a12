package node

import (
	"encoding"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Setting is one key of Config.
type Setting struct {
	Key string // "batch.size_max"
	Env string // "AUTOGLM_BATCH_SIZE_MAX"
	Doc string
}

// Settings lists every key, in the order of Config.
func Settings() []Setting {
	var all []Setting
	walk("", reflect.ValueOf(Default()), func(key, doc string, _ reflect.Value) {
		env := EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
		all = append(all, Setting{Key: key, Env: env, Doc: doc})
	})
	return all
}

// walk calls f for each leaf of a config struct.
func walk(prefix string, v reflect.Value, f func(key, doc string, v reflect.Value)) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, squash, _ := strings.Cut(field.Tag.Get("koanf"), ",")
		switch {
		case squash != "":
			walk(prefix, v.Field(i), f)
		case field.Type.Kind() == reflect.Struct:
			walk(prefix+name+".", v.Field(i), f)
		default:
			f(prefix+name, field.Tag.Get("doc"), v.Field(i))
		}
	}
}

// Print writes the settings as YAML that Load reads, each under what it does. A secret
// is left out.
func (c Config) Print(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Settings of an autoglm node. Each may also be set in the environment (http.listen is\n" +
		"# AUTOGLM_HTTP_LISTEN) and, for the most used ones, by a flag; those come first.\n")
	section := ""
	walk("", reflect.ValueOf(c), func(key, doc string, v reflect.Value) {
		indent := ""
		if s, name, ok := strings.Cut(key, "."); ok {
			if s != section {
				fmt.Fprintf(&b, "\n%s:\n", s)
				section = s
			}
			key, indent = name, "  "
		}
		fmt.Fprintf(&b, "%s# %s\n", indent, doc)
		switch text, hidden := yamlOf(v, indent); {
		case hidden:
			fmt.Fprintf(&b, "%s# %s: (set, not shown)\n", indent, key)
		default:
			fmt.Fprintf(&b, "%s%s: %s\n", indent, key, text)
		}
	})
	_, err := io.WriteString(w, b.String())
	return err
}

func yamlOf(v reflect.Value, indent string) (text string, hidden bool) {
	switch x := v.Interface().(type) {
	case Secret:
		return `""`, x != ""
	case time.Duration:
		return x.String(), false
	case encoding.TextMarshaler:
		t, _ := x.MarshalText() // only Size, which cannot fail
		return string(t), false
	case string:
		return strconv.Quote(x), false
	case []string:
		quoted := make([]string, len(x))
		for i, s := range x {
			quoted[i] = strconv.Quote(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]", false
	case map[string]string:
		var b strings.Builder
		for _, k := range slices.Sorted(maps.Keys(x)) {
			fmt.Fprintf(&b, ", %q: %q", k, x[k])
		}
		return "{" + strings.TrimPrefix(b.String(), ", ") + "}", false
	case *LimitsConfig:
		var b strings.Builder
		walk("", reflect.ValueOf(*x), func(key, _ string, v reflect.Value) {
			if !v.IsZero() {
				t, _ := yamlOf(v, "")
				b.WriteString(", " + key + ": " + t)
			}
		})
		return "{" + strings.TrimPrefix(b.String(), ", ") + "}", false
	case []EngineConfig:
		var b strings.Builder
		for _, e := range x {
			lead := "\n" + indent + "  - "
			walk("", reflect.ValueOf(e), func(key, _ string, v reflect.Value) {
				if v.IsZero() {
					return
				}
				if env, ok := v.Interface().(map[string]string); ok { // a variable may hold a secret
					v = reflect.ValueOf(masked(env))
				}
				t, _ := yamlOf(v, "")
				b.WriteString(lead + key + ": " + t)
				lead = "\n" + indent + "    "
			})
		}
		return strings.TrimPrefix(b.String(), " "), false
	}
	return fmt.Sprint(v.Interface()), false
}
