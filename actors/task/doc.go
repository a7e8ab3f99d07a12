// Package task is one LLM task as a persistent actor: its spec, the facts of its
// life, the record they add up to, the behaviors of its states, and the queue that
// it waits in.
//
// Its life, as the lifecycle table has it (a test compares them):
//
//	none      submitted        -> pending
//	pending   claimed          -> running
//	pending   cancel_asked     -> cancelled
//	pending   expired          -> failed
//	running   step_done        -> pending
//	running   answered         -> completed
//	running   attempt_failed   -> pending
//	running   lease_lost       -> pending
//	running   owner_moved      -> pending
//	running   returned         -> pending
//	running   refused          -> failed
//	running   cancel_asked     -> cancelled
//	running   expired          -> failed
//	completed callback_sent    -> completed
//	completed callback_lost    -> completed
//	completed callback_gave_up -> completed
//	failed    callback_sent    -> failed
//	failed    callback_lost    -> failed
//	failed    callback_gave_up -> failed
//	failed    retried          -> failed
//	cancelled callback_sent    -> cancelled
//	cancelled callback_lost    -> cancelled
//	cancelled callback_gave_up -> cancelled
//
// Execution is at least once: an attempt may run and its answer be lost. The recorded
// result is exactly once: a final state never changes, and an answer counts only
// under the attempt and epoch that hold the task. An attempt goes on when the shard's owner changes, and ends with the
// process that claimed it.
//
// What it asks next follows from its spec and its answers alone:
//
//	Spec, Answers ── walk ──► place ── Ask(data) ──► messages
//	                            │
//	                            └── Ends ──► step_done or answered
//
// Who fetches data and asks engines is package infer.
package task
