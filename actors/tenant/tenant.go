// Package tenant decides whose an actor is: its id says so. What belongs to tenant acme has ids like /acme/ID, what belongs to
// the default tenant has plain ones, as everything has on a node where nobody made tenants. So one tenant cannot name what is
// another's, by chance or on purpose, and two of them may use the same id:
//
//	request ── key ──► tenant in the context ── Own ──► /acme/ID ──► journals, indexes, counters of acme
//	answer  ◄───────────────────────────────── Bare ◄──┘
//
// Ids are put together and taken apart at the edge, package node; behind it an id is whole, and nobody asks who calls.
package tenant

import (
	"context"
	"strings"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Default is the tenant of whoever has no other: it is the operator's.
const Default = "default"

// NameMax is the length of a tenant's name, in bytes.
const NameMax = 40

// Check refuses what is no name: 1 to NameMax of a-z, 0-9 and -, not at the ends.
func Check(name string) error {
	ok := name != "" && len(name) <= NameMax && name[0] != '-' && name[len(name)-1] != '-'
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-')
	}
	if !ok {
		return fault.New(fault.Invalid, "tenant.check", "tenant", "is %.60q: use 1 to %d of a-z, 0-9 and -, with a letter or digit at both ends", name, NameMax)
	}
	return nil
}

// Join makes the whole id of what a tenant calls id. Whatever the client sent, the result is the tenant's.
func Join(name, id string) string {
	if name == Default && !strings.HasPrefix(id, "/") {
		return id
	}
	return "/" + name + "/" + id
}

// Split is the inverse of Join.
func Split(id string) (name, bare string) {
	rest, marked := strings.CutPrefix(id, "/")
	if name, bare, ok := strings.Cut(rest, "/"); marked && ok {
		return name, bare
	}
	return Default, id
}

// Of is the tenant that a whole id belongs to.
func Of(id string) string {
	name, _ := Split(id)
	return name
}

// Bare is what its tenant calls an id.
func Bare(id string) string {
	_, bare := Split(id)
	return bare
}

// Beside is another id of the same tenant.
func Beside(id, other string) string { return Join(Of(id), other) }

// Index is the name of the index that has a tenant's rows.
func Index(index, name string) string {
	if name == Default {
		return index
	}
	return index + "/" + name
}

type key struct{}

// With says for whom what is done under the context is done.
func With(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, key{}, name)
}

// From is for whom: Default where nobody said.
func From(ctx context.Context) string {
	if name, ok := ctx.Value(key{}).(string); ok {
		return name
	}
	return Default
}

// Own is the whole id of what the caller calls id.
func Own(ctx context.Context, id string) string { return Join(From(ctx), id) }

// Plain shows a text that names ids of the caller's as the caller knows them.
func Plain(ctx context.Context, text string) string { return PlainOf(From(ctx), text) }

// PlainOf shows a text that names ids of a tenant's as that tenant knows them.
func PlainOf(name, text string) string {
	if name == Default {
		return text
	}
	var plain strings.Builder
	prefix := Join(name, "")
	for {
		i := strings.Index(text, prefix)
		if i < 0 {
			return plain.String() + text
		}
		plain.WriteString(text[:i])
		if i > 0 && !strings.ContainsRune(" \"'([", rune(text[i-1])) { // within a word: a path of a URL, say
			plain.WriteString(prefix)
		}
		text = text[i+len(prefix):]
	}
}
