// Package batch brings waiting tasks and free engine slots together.
//
//	inference actor ── Credit ──► batcher ── Claim (≤ credit) ──► Queue of a shard, of this node or another
//	       ▲                        │   ◄── claimed works ──────────┘ (one group append)
//	       └────── Batch ◄── window ┘        ripe by size, tokens, age, or nothing more coming
//
// Work is pulled: without credit nothing is claimed, so nothing piles up in memory
// between the journal and an engine. Queues say when they have something (Ready);
// nobody polls, but for other nodes' queues once a second while there is credit: what those
// told may be lost. What an engine does with a batch, and what becomes of an answer, is
// left to package infer; what a claim means, to package task. Works that take too long are given to a second engine; which those are says
// package hedge.
package batch
