// Package mutant builds autoglm with one of its promises taken out, to see whether the judge of package chaos notices.
// It is for tests: a checker that has never failed may be one that cannot.
//
//	source on disk ─► Edit: an expression that is there exactly once ─► overlay (or a copied module) ─► go build ─► binary
//	                        └ not there, or twice: an error                                                          │
//	                              chaos.Run: the same faults from the same seed  ◄─ the real binary: no violation ───┤
//	                                                                             ◄─ the mutant: violations ──────────┘
//
// Nothing in the source tree changes, and a mutation cannot go stale in silence: when the expression that it takes out
// is written otherwise, the build of the mutant fails.
package mutant
