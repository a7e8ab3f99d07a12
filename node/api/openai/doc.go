// Package openai serves OpenAI's API for official clients: the same paths, bodies and errors, over tasks.
//
// The decision: whatever a client of that API can ask becomes a task (or what has its own actor: a file, a batch), and
// whatever goes wrong is said in that API's words. Nothing above or below knows its error objects or its streams.
//
//	POST /v1/chat/completions ─┐
//	POST /v1/completions       │  Completions ──► one task, that carries the body as it is
//	POST /v1/embeddings        │                        │ final, or the client went away: cancelled
//	POST /v1/responses        ─┘  its answer's body ◄───┘
//	GET  /v1/models               what the engines of the cluster serve
//
// A noun is a file: its interface, its routes. Each may be left out.
//
// Left to others: hosts, origins and limits of all requests (node/api), what an engine understands of a body (actors/infer).
package openai
