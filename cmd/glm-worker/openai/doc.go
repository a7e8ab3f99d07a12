// Package openai serves one model over HTTP in the manner of the OpenAI API.
//
//	POST /v1/chat/completions ─► parse ─► template ─► tokens ──┐
//	POST /v1/completions      ─► parse ─────────────► tokens ──┼─► engine ─► Stream ─► JSON, or server-sent events
//	POST /v1/embeddings       ─► parse ─────────────► tokens ──┘
//	POST /tokenize · GET /v1/models · GET /health · GET /metrics
//
// What a request may say is written down in request.go, all of it: a field that would change the answer and is not
// supported is refused by name, never ignored. Faults are in OpenAI's form (fault.go), and each says what to do.
//
// Everything is bounded: the body, the connections, the texts before they are tokenized, the engine's queue behind it,
// and the time that a client takes to read.
package openai
