// Package dev runs a whole cluster on one machine: every node a process of its own, as in the field, and one
// supervisor that starts them, passes on what they say and stops them. It hides how a process lives and dies.
//
//	autoglm dev ──► Open: DIR locked, certificates, ports ──► Start ──► serve ─┐ one process a node,
//	                  │ DIR/dev.json: names, pids, addresses    ▲       serve ─┤ all told of each other
//	                  ▼                                         │       serve ─┘
//	               DIR/dev.sock ◄── autoglm dev start|stop|restart|add|status (Dial)
//
//	down ─StartNode─► starting ─/readyz is 200─► ready ─StopNode─► stopping ─► down
//	                      └───────── the process ends, or is killed ──────────► down, and stays there
//
// A node that dies is never started again unasked: that is what a user of dev, and a test of failures, wants to see.
// What a node does is left to `autoglm serve`; faults beyond signals are left to package chaos.
package dev
