// Package coordinator carries placement out: one loop in the cluster, on the node that owns shard 0, fenced by its epoch.
//
//	members ──────────────┐
//	group.report × nodes ─┴► view ──► placement.Plan ──► actions
//	                                                        │ journaled first, under the epoch and the expected sequence
//	                                                        ▼
//	                                          group.change, join, drop, transfer ──► outcomes, in the next row
//
// A row that is refused (Fenced, or another one wrote) ends the coordinator: it was deposed, and what it had decided
// was not done. What it asks nodes for carries the epoch too, and a change of a membership the version that it was decided
// on, so also an order that is late does no harm. Nothing is kept but the events, for people: each round looks
// at what is true and decides anew.
//
// Where a cluster does not exist yet there is no coordinator; Bootstrap is the loop that brings it about.
package coordinator
