// Package api is the node's HTTP face: REST over a Service, with NDJSON streams, an
// OpenAPI 3.1 description, and problem+json (RFC 9457) for every refusal.
//
//	request ─► observe   request id, access log, metrics, a panic becomes a 500
//	        ─► guard     alone on loopback: only local names, no foreign browser page
//	        ─► limit     so many requests and streams at once, else 429
//	        ─► mux ─┬─► huma      get, list, cancel, status, backup
//	                ├─► streams   submit, events, results: plain net/http, described by hand
//	                └─► connect   ActorService (actorv1) on a gate.Gate: Connect, gRPC, gRPC-Web
//	                        │
//	                        └─► Service (node) ─► fault.Kind ─► status (wire.ProblemOf)
//
// A decision made here: JSON is decoded strictly. A misspelt field is an error that names
// it, because an offline task that silently lacks its callback_url is noticed days later.
//
// Left to others: what a task is and whether it is valid (actors/task), how it becomes
// durable (Service), and the JSON's shape (wire).
package api
