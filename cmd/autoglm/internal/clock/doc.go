// Package clock lets a test set the wall clock of a node that runs, as an operator or NTP may set a machine's.
//
//	test ── Set ──► file: "-7m0s" ◄── looked at all the time ── Follow ◄── autoglm serve, when Env names the file
//
// It is in every binary, and idle without the variable, so that what the chaos tests break is what ships. A jump
// is one of the wall clock alone: what Go measures by the monotonic clock (time.Since, timers) goes on as on a machine whose
// clock is set.
package clock
