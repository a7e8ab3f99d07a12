// Package retention deletes what an operator's settings name as kept for long enough, and nothing else.
//
//	each shard owned here, now and then:
//	  ended index, oldest first ──► decide: old enough? no sink behind? no line? ──► Forget ──► the task decides ──► erased
//	  batches, audit entries, files: the same by their own indexes
//
// Its one decision: what is to go is found by the indexes that are there anyway, and whether it may go is decided by the actor itself, whose turn
// is between all others of its: a task whose callback is still being tried refuses. So a pass may be cut off anywhere, run twice, or on
// two nodes that both believe to own a shard, and deletes the same. Nothing is remembered but where the next pass begins.
//
// What it must not take from others it is told: up to where the sinks are. What a batch needs (its lines) goes with the batch, and how is
// package bulk's.
package retention
