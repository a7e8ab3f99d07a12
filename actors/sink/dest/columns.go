package dest

import (
	"strings"

	"github.com/open-autoglm/autoglm/actors/result"
)

// column is a column of a database's table. Its name and place are result.Columns'; here is what it holds.
type column struct {
	name     string
	postgres string // type
	sqlite   string // type
	value    func(r *result.Row) any
}

var columns = []column{
	{"task_id", "text PRIMARY KEY", "TEXT PRIMARY KEY NOT NULL", func(r *result.Row) any { return clean(r.TaskID) }},
	{"batch_id", "text", "TEXT", func(r *result.Row) any { return text(r.BatchID) }},
	{"custom_id", "text", "TEXT", func(r *result.Row) any { return text(r.CustomID) }},
	{"state", "text NOT NULL", "TEXT NOT NULL", func(r *result.Row) any { return r.State }},
	{"model", "text", "TEXT", func(r *result.Row) any { return text(r.Model) }},
	{"prompt", "text", "TEXT", func(r *result.Row) any { return text(r.Prompt) }},
	{"answer", "text", "TEXT", func(r *result.Row) any { return text(r.Answer) }},
	{"finish_reason", "text", "TEXT", func(r *result.Row) any { return text(r.FinishReason) }},
	{"prompt_tokens", "bigint NOT NULL", "INTEGER NOT NULL", func(r *result.Row) any { return r.PromptTokens }},
	{"completion_tokens", "bigint NOT NULL", "INTEGER NOT NULL", func(r *result.Row) any { return r.CompletionTokens }},
	{"created_at", "timestamptz NOT NULL", "TEXT NOT NULL", func(r *result.Row) any { return r.CreatedAt.UTC() }},
	{"ended_at", "timestamptz NOT NULL", "TEXT NOT NULL", func(r *result.Row) any { return r.EndedAt.UTC() }},
	{"attempts", "bigint NOT NULL", "INTEGER NOT NULL", func(r *result.Row) any { return r.Attempts }},
	{"error_kind", "text", "TEXT", func(r *result.Row) any { return text(r.ErrorKind) }},
	{"error_message", "text", "TEXT", func(r *result.Row) any { return text(r.ErrorMessage) }},
	{"metadata", "text", "TEXT", func(r *result.Row) any { return text(r.Metadata) }},
	{"response", "text", "TEXT", func(r *result.Row) any { return text(r.Response) }},
}

// text is what a database is given: nil, its NULL, for an empty one.
func text(s string) any {
	if s == "" {
		return nil
	}
	return clean(s)
}

// clean makes s what PostgreSQL can store: one answer that has a zero byte, or is no UTF-8, must not hold up all that come after it.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

func names() string {
	ns := make([]string, len(columns))
	for i, c := range columns {
		ns[i] = c.name
	}
	return strings.Join(ns, ", ")
}

// createTable is the statement that makes a table when it is missing.
func createTable(table string, typ func(c *column) string) string {
	defs := make([]string, len(columns))
	for i := range columns {
		defs[i] = columns[i].name + " " + typ(&columns[i])
	}
	return "CREATE TABLE IF NOT EXISTS " + table + " (" + strings.Join(defs, ", ") + ")"
}

// quoted is a table's name, with its schema, as an identifier of SQL. It has letters, digits and _ alone: see sink.Definition.
func quoted(table string) string { return `"` + strings.ReplaceAll(table, ".", `"."`) + `"` }
