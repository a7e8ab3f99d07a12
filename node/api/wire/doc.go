// Package wire is the JSON of the HTTP API: what the server writes and the Go client
// reads. It knows no HTTP and no storage, so that a client is small.
//
//	task.Record ──► Task    GET /v1/tasks/{id}
//	            ──► Brief   GET /v1/tasks
//	            ──► Result  GET /v1/results, a line each
//	task.Fact   ──► Event   GET /v1/tasks/{id}/events
//	            ──► Explanation GET /v1/tasks/{id}/explain
//	error       ──► Problem every refusal (RFC 9457)
package wire
