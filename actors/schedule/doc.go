// Package schedule is a recurring submission as a persistent actor: at the times that a cron expression names it submits a task.
//
//	timer row at the next planned time ──► driver: which times are due, is the former task still at work?
//	                                         │ decide, pure
//	                                         ▼
//	        journaled: "03:00 fires, next is 04:00" ──► submit NAME-LIFE-TIME ──► journaled: "submitted"
//
// Its one decision: that a time fires is journaled before its task is submitted, and the task's id is made of the schedule and of the planned
// time. So whoever goes on after a crash, on whichever node, submits the same task again, which is harmless, and no time is passed
// over: the next planned time moves only in the commit that says what became of the ones before it.
//
// A driver on the node that owns the actor's shard looks, decides and submits; what it reports names the version of the state that it saw,
// and is refused when that has changed. Which times an expression means, also where clocks are put forward or back, is in cron.go.
//
// Left to others: what a task may be (actors/task), how one is made (package node), HTTP (node/api).
package schedule
