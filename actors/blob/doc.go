// Package blob keeps bytes in the cluster: as many as the disks hold, in constant memory, on the replicas of the shards.
//
//	Write ── 255 KiB ──► chunk b.0 ─┐ Create, some at a time        Open ── some ahead ──► chunk b.0 ─┐
//	      ── 255 KiB ──► chunk b.1 ─┼──► its shard ──► quorum            ◄── in order ───  chunk b.1 ─┼── CRC
//	      ── the rest ─► chunk b.2 ─┘                                                      chunk b.2 ─┘
//
// Its one decision: a blob is chunks, and each chunk is a journal of one row, spread over all shards by its name. Nothing is
// shared between blobs, nothing is rewritten, and nobody is awake for a chunk. A chunk is as large as a body may be that the store
// writes in one transaction with its row, so that four of them make one proposal.
//
// What a blob is called, who it belongs to and when it goes is left to package file. Deleting leaves a few bytes of a
// chunk: its name, so that it can never be written again, however late a writer is.
package blob
