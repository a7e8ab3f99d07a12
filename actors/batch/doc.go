// Package batch brings waiting tasks and free engine slots together.
//
//	inference actor ── Credit ──► batcher ── Claim (≤ credit) ──► task.Queue of a shard
//	       ▲                        │   ◄── claimed works ──────────┘ (one group append)
//	       └────── Batch ◄── window ┘        ripe by size, tokens, age, or nothing more coming
//
// Work is pulled: without credit nothing is claimed, so nothing piles up in memory
// between the journal and an engine. Queues say when they have something (Ready);
// nobody polls. What an engine does with a batch, and what becomes of an answer, is
// left to package infer; what a claim means, to package task.
package batch
