// Package actors joins the actors of a node into one tree and starts it.
//
//	POST ──► task (persistent actor) ──ready──► batcher ◄──credit── inference actor
//	              ▲    │                           │ claim              ▲   │
//	              │    └── journal (group append)  └──────── batch ─────┘   ▼
//	              └───────────────── answer ──────────────────────────── engine
//	              └── final ──► callback ──► task
//
// The tree:
//
//	root ─┬─ shard 0 … n-1 ── entities awake      (package cluster, entity, task)
//	      ├─ batcher                              (package batch)
//	      └─ inference actor, one an engine       (package infer)
//
// Batchers and queues of different nodes find each other through package far.
//
// What a task's states mean is in package task; where bytes are kept, in package
// persistence; HTTP, configuration and process life, in package node.
package actors
