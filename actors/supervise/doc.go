// Package supervise hides how an actor's failure is cured: by its fault.Kind, and never by its type.
//
//	child panics ──► Failure ──► HandleFailure ──► Decide(kind, failures in Window)     pure
//	                                                 │
//	   stop   ◄── a bug, bad bytes, fenced ──────────┤  this child alone: one poison
//	   restart◄── not now: after Backoff's delay ────┤  task spares its neighbours
//	   escalate◄─ Limit failures in Window ──────────┤  not this child's fault: its
//	   give up◄── the same, with nobody above ───────┘  supervisor's supervisor decides
//
// Why not protoactor's own strategies: its "exponential" one is linear with at most 500 ns of
// jitter and no cap, its one-for-one restarts at once, and escalating under a root guardian
// panics.
//
// A delayed restart has a trap of its own: it may reach a child that was stopped meanwhile, and
// protoactor then brings that child back to life, unregistered. Guard wraps a producer so that
// such a restart is undone; use it for every kind of actor that this strategy supervises.
//
// While a child waits for its restart its mailbox is suspended: what arrives is kept, in order.
//
// Left to others: which Kind an error has (whoever makes it), and what replay restores (entity).
package supervise
