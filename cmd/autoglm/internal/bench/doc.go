// Package bench is the command autoglm bench: it measures a node from outside, over HTTP, as a client would.
//
//	command ─ flags ─► runner ─► machine: cores, processor, fdatasync, load
//	                     │
//	                     ├─ once per benchmark and repeat ─► node: a child process with an empty data directory
//	                     │        ▲                              │
//	                     │     requests (conn, load)          /proc/PID: memory, processor time
//	                     ▼        │                              │
//	                  submit, drain, start, utilisation, waiting ┘
//	                     │ readings
//	                     ▼
//	                  report: median and range of the repeats, ratio to the aim ─► table or JSON
//
// Nothing is batched behind the reader's back: a submit is one HTTP request on a connection that is kept open, and it
// ends when its answer was read. With --nodes the node above is a cluster of processes (package dev), and requests go to
// all of them in turn:
//
//	failover   commits: a client for each shard ─► nodes that live;  kill -9 ─► first commit sent after the death
//	grow       mixed: 16 clients ─► all nodes;  join, join ─► placement at rest ─► drain ─► stop
//	idle       nobody
//
// The generator shares the processor with the node, so each row tells how many cores each
// of the two took (the node's worker processes not counted). Figures compare by ratio within one run on one machine; the
// package asserts none of them.
package bench
