// Package sink is a destination for results as a persistent actor: it follows what ends and writes each result there once.
//
//	results behind a cursor ──► gather: at most so many, so old ──► plan, journaled: "batch 7 is what lies between cursor a and b"
//	                                                                  │
//	   cursor b, count, journaled with the next plan ◄── written ◄── destination: one object, or one transaction, named by the 7
//
// Its one decision: which results a batch has is journaled before the first byte of it is written. What lies between two cursors never
// changes, so whoever writes batch 7 after a crash, on whichever node, writes the same rows under the same name, and what a reader sees
// is as if it had been written once. A destination that keeps rows (a database) has the task's id as its key besides.
//
// Its life, as the lifecycle table has it (a test compares them):
//
//	none    created   -> running
//	running planned   -> running
//	running delivered -> running
//	running skipped   -> running
//	running failed    -> running
//	running paused    -> paused
//	running deleted   -> deleted
//	paused  delivered -> paused
//	paused  resumed   -> running
//	paused  deleted   -> deleted
//	deleted created   -> running
//
// A driver on the node that owns the actor's shard does the work; while the sink runs, a timer row makes sure that there is one. What it
// does may be done twice, and what it reports is refused when its epoch is over or somebody else has reported already. Tasks never wait for
// a sink: it reads what is durable anyway, at its own pace.
//
// Left to others: how a destination is reached and which may be (dest), what a result is (actors/result), HTTP (node/api).
package sink
