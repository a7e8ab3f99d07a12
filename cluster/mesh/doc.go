// Package mesh lets nodes ask each other: one request, one answer, both over protoactor's remote and only through one
// gate.
//
//	Ask ─► letter ─► protoactor's writer ─ mTLS ─► guard ─► gate ─► Handler of the op, a goroutine of its own
//	 ▲                 (dials node names:             │ the certificate's name = the letter's
//	 │                  pki proves them)              ▼ everything else is refused
//	calls ◄── gate ◄── guard ◄─ mTLS ─ protoactor's writer ◄─ letter ◄─ Answer or fault
//
// A PID's address is a node's name here, never host:port, so what is dialled is what the certificate must say. The gate is
// the only actor of an actor system of mesh's own: even a hole in the guard leads to no other actor.
//
// A letter may be lost: protoactor says nothing when a batch is not sent. So every Ask has an end of its own, and ends
// at once when its connection does. Who repeats a request keeps its ID; handlers must not mind. Which node owns what,
// retries and membership are left to others.
package mesh
