// Package hedge decides which works are run a second time, on another engine, because the first takes far longer than it should.
//
//	inference actors ── Began, Ended ──► Board ── times of what is alike ──► Rule.Late   pure
//	                                       │                                    │ the latest first, as many as the budget has
//	                  batcher ── Late ────►┘ ◄──────────────────────────────────┘
//
// What is alike is of one model and endpoint and of about the same tokens. A run is late when it is Rule.Factor times as old as three of
// four like it took, which holds while up to a quarter of all runs stall: a rarer quantile would be of the stalled ones. The budget is earned by
// runs that begin, so second runs add a known part to what engines do, at most.
//
// Where a second run goes is the batcher's to say, which one counts is package task's (Work.Second).
package hedge
