// Package explain says of one task what happened to it, event by event, and what it waits for now, in words for a person at
// night. Both are decided from values alone; who gathers them is package node.
//
//	journal ── facts ──► Story ──► steps with their timings
//	   │
//	   └──── record ──► Why ◄── what the nodes say of their engines, who waits before it
package explain
