// Package grammar turns a JSON schema into a grammar that llama.cpp can hold an answer to (GBNF).
//
//	schema ─► decode (order kept, bounded) ─► convert ─► rules ─► checks ─► GBNF text
//	                                            │                   └ each rule can end; not too large
//	                                            └ a keyword that it cannot honour: an Error that names it and the way out
//
// The promise is one-sided and exact: whatever the grammar allows is valid under the schema. The reverse need not hold:
// properties come in the schema's order, white space is short, numbers have at most 16 digits, a property that the
// schema does not name appears only where additionalProperties says so. A model loses nothing by that.
//
// No keyword is ever skipped: it is honoured, or it is an annotation such as title, or the schema is refused.
package grammar
