// Package trace carries a client's trace through the cluster, in the words of W3C Trace Context.
//
//	HTTP header ─► ctx ─► letters between nodes ─► task's first fact ─► engine's header
//	traceparent     └─► logs: trace_id                    └───────────► callback's header
//
// This program records no spans of its own. So it passes a traceparent on as it came, with the caller's parent in it: what an
// engine records then hangs under the caller's span, and not under one that nobody has. A request without one begins a
// trace. tracestate, which belongs to the tracing systems of those who record, is not passed on.
package trace
