// Package far lets the engines of a node work on tasks that other nodes own.
//
//	batcher here ── Queue.Claim ── task.claim ──► owner there: one group append, the works come back
//	     ▲  └─ Ask (each second, while an engine has room) ── task.waiting ──► what waits there
//	     └──── Ready ◄── task.ready ── owner: something new waits, said to those that found it empty
//
//	owner ── RollCall ── task.held ──► node that has the attempt, as journaled: which are not in your hands?
//
// Nothing of it needs to arrive. A claim is asked again under its own id and gets the same works; what an
// owner tells and is lost, the next question finds; a work whose answer was lost is missing at the
// roll call and goes back to its queue. What an attempt is, and when it counts, is left to package task.
package far
