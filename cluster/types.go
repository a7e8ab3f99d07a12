package cluster

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Types names the messages and answers of a kind that may travel between nodes, as JSON. A
// name is for ever: an older or newer program on the other side knows a type by it alone, ignores fields
// it does not know, and refuses a name it does not know.
type Types struct {
	byName map[string]reflect.Type
	names  map[reflect.Type]string
}

// NewTypes returns an empty set.
func NewTypes() *Types {
	return &Types{byName: map[string]reflect.Type{}, names: map[reflect.Type]string{}}
}

// Add registers the type of v, a struct or a pointer to one, which is also the form that Decode
// returns. A name or type that is there already is a programming error and panics.
func (t *Types) Add(name string, v any) *Types {
	typ := reflect.TypeOf(v)
	if _, dup := t.byName[name]; dup || name == "" || typ == nil || t.names[typ] != "" {
		panic("cluster.Types: " + name + " is registered twice, or is nothing")
	}
	t.byName[name], t.names[typ] = typ, name
	return t
}

// Encode returns the name and JSON of a value; nil has the name "".
func (t *Types) Encode(v any) (name string, body []byte, err error) {
	if v == nil {
		return "", nil, nil
	}
	if t != nil {
		name = t.names[reflect.TypeOf(v)]
	}
	if name == "" {
		return "", nil, fault.New(fault.Invalid, "cluster.types", "", "%T does not travel between nodes", v).WithRemedy("register it in the kind's Types")
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // a page of HTML would grow by half, perhaps past what may travel
	if err := e.Encode(v); err != nil {
		return "", nil, fault.New(fault.Invalid, "cluster.types", name, "%w", err)
	}
	return name, bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// Has tells whether a name is registered.
func (t *Types) Has(name string) bool { return t != nil && t.byName[name] != nil }

// Check tells whether Decode would take body, and refuses fields that it would ignore: a message that a person
// wrote may be misspelt.
func (t *Types) Check(name string, body []byte) error {
	if !t.Has(name) {
		return fault.New(fault.Invalid, "cluster.types", name, "no message of this name is known here")
	}
	typ := t.byName[name]
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(reflect.New(typ).Interface()); err != nil {
		return fault.New(fault.Invalid, "cluster.types", name, "does not decode: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return fault.New(fault.Invalid, "cluster.types", name, "something follows its JSON")
	}
	return nil
}

// Decode is the inverse of Encode.
func (t *Types) Decode(name string, body []byte) (any, error) {
	if name == "" {
		return nil, nil
	}
	var typ reflect.Type
	if t != nil {
		typ = t.byName[name]
	}
	if typ == nil {
		return nil, fault.New(fault.Invalid, "cluster.types", name, "no message of this name is known here").WithRemedy("the other node may run a newer version: upgrade this one")
	}
	ptr := typ.Kind() == reflect.Pointer
	if ptr {
		typ = typ.Elem()
	}
	v := reflect.New(typ)
	if err := json.Unmarshal(body, v.Interface()); err != nil {
		return nil, fault.New(fault.Invalid, "cluster.types", name, "does not decode: %w", err)
	}
	if ptr {
		return v.Interface(), nil
	}
	return v.Elem().Interface(), nil
}
