// Package infer hides what answers a conversation: a URL, a child process, or nothing but an echo.
//
// The decision: an engine is an OpenAI-compatible endpoint, and everything that can go wrong with it
// is turned, here and once, into a fault.Kind, so that nobody above looks at a status code, an errno
// or an exit signal again.
//
//	batch of requests
//	      │  as many at a time as Limit allows (AIMD: grows by one, halves on Overloaded)
//	┌─────▼──────┐ HTTP   ──► any base URL, or unix socket: chat/completions, health, models
//	│ Engine.Do  │ Child  ──► HTTP on the socket of one glm-worker, or of any other server that a Command
//	└─────┬──────┘            starts; Pool starts, probes, drains, kills and restarts it with backoff; not
//	      │                   ready = Unavailable at once
//	      │        Echo   ──► the last user message, for benchmarks and tests
//	Response, or a fault: Timeout · Unavailable · Overloaded (RetryAfterOf) · TooLarge · NotFound ·
//	                      Refused · Invalid
//
// What one process may use is in limits.go, as a plan on whatever grounds there are; cgroup.go and childattr_linux.go carry it out.
//
// Limit and Estimator are pure values; their owner (the inference actor, the batcher) feeds them.
//
// Left to others: which task goes to which engine, when to try again and how often (actors/task,
// actors/batch), and what the process behind the socket does (cmd/glm-worker).
package infer
