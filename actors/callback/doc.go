// Package callback hides how a task's end is told to the URL that the task named.
//
//	final task ──► Body(id, record) ──► Delivery{URL, ID, Timestamp, Body}
//	                                            │ Post: signed (Standard Webhooks), address checked
//	                                            ▼ when dialled, no redirect followed
//	               2xx ── acknowledged
//	               410, address not allowed ── Final: never again
//	               anything else ──► Next(try): 5 s, 5 min, 30 min … 24 h, ten tries in three days
//
// The body and the id of a task's callback are the same at every try, so a receiver that has seen
// the id may drop a repeat. What the receiver says is not kept, only its status: a callback_url
// must not be a way to read an internal server.
//
// Left to others: journaling each try, and never calling before the final state is committed
// (actors/task); the timers (actors/task); which addresses are allowed (egress, set by the node).
package callback
