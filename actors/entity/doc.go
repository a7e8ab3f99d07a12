// Package entity is the framework for persistent actors: the task is one, and a
// user's own kinds are built the same way.
//
//	message ──► Behavior(state) ──► Commit(events) ──► Append (group, Raft, fsync)
//	                 │ pure Apply, before anything is written      │ durable
//	                 ▼                                             ▼
//	               Reply / Refuse                state = next ──► Enter ──► replies, kept messages
//
// A Kind is data: how events fold into a state (Apply, pure), which behavior handles
// messages in a state (Behave), and, if wanted, what happens on entering it (Enter),
// how it is found again (Index, Count), when it wakes (Timer) and when it may
// sleep (Resident). An entity is awake only while it has something to do; waking
// it reads its snapshot and the rows after it.
//
// A commit never holds up a goroutine. While it is under way the entity keeps what
// arrives, in order; its state changes only after a quorum has the events. If the
// append fails the entity stops and is replayed, so memory never runs ahead of the
// journal. Effects belong into Enter or an answer: both run after the commit, and
// again after a crash, so they happen at least once.
//
// A message that comes with a request id (cluster.Command) is carried out once where the kind has Dedupe. What is open to
// the world outside the cluster a kind says with Open and View; package gate keeps to it.
package entity
