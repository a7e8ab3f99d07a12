// Package cluster decides which node runs which actor: identity → shard → owner.
//
//	store.Leads ──► Shards ── Acquire(epoch) ──► Owner ──► shard actor ──► entity actors
//	                                              │  ▲ index rows, timers     │
//	Router.Ask(key, msg) ── hash(key) ── shard ───┘  └── appender ◄── Append ─┘
//	                                                       │ one proposal for many writes
//	                                                  persistence.Journal
//
// A shard is owned by the node that leads its Raft group and that has raised its
// epoch since. Everything of the shard runs here under that epoch: the actors,
// the group append, the timers, the observers of its index. A node that lost the
// lead may believe in itself for a moment; what it appends is refused (Fenced).
//
// What an entity is, and what its messages mean, is left to package actors: a
// Kind supplies the actor, this package finds, wakes and puts it to sleep.
package cluster
