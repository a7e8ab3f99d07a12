// Package file keeps files: what a client uploads, and what a batch gives back. A file is a persistent actor that says whether
// its bytes are whole; the bytes are blobs.
//
//	            Begin            Finish            Delete, or expires_at
//	none ─────► uploading ─────► processed ─────────────► deleted ── Swept ──► (a name that was)
//	  │             └── Delete, or no Progress for StaleAfter ──► deleted
//	  └── Adopt: made of the parts of an upload, or rendered by a batch ──► processed
//
// Its one decision: the actor is journaled before the first byte and after the last one, so that after any crash it knows what
// there may be. A file is seen once it is processed, and its bytes go after it is deleted: by the Janitor of the node that owns
// the actor, which a timer of the actor wakes until it is done. Nothing half-made stays.
//
// An upload (kind "upload") gathers parts, each a blob of its own, in any order. Completing it makes a file of some
// of them in the order that the client says, without copying a byte:
//
//	           Part… PartDone…       Complete                Adopt by the file
//	pending ─────────────────► pending ──────► completing ──────────────────► completed   (other parts are swept)
//	  └── Cancel, or expires_at ──► cancelled, expired                                    (all parts are swept)
//
// HTTP is left to node/api/openai, what an output file reads like to the batch (see Outputs).
package file
