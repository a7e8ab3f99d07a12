// Package chaos breaks a running cluster from a printed seed, and judges what its clients saw. It is for tests.
//
//	Workload: clients ──submit, get, cancel, list──► random nodes (package dev: processes; Net: their wires)
//	    │ every call, its answer, when                    ▲ kill -9, SIGSTOP, wiped folder, cut wires
//	    ▼                                                 │
//	 Recorder                            Schedule: seed ──► faults, one after the other, each healed
//	    │                                                 │ then: every task ends in time
//	    ▼                                                 ▼
//	 CheckHistory (porcupine: one linearizable life a task)   CheckFinals (nothing lost, one end, counts add up)
//
// RunBank does the same with the accounts and transfers of actors/bank, messaged through package actorclient:
// each account and each transfer has one linearizable life, and the money there is in the end is what was paid in and not out.
//
// The judge is pure: histories and final states in, violations out, so that it is itself tested against histories
// that are wrong on purpose. An answer that did not come may have happened or not, now or later: nothing is concluded
// from it alone.
package chaos
