// Package node is one process: it builds the parts, joins them, starts and stops
// them in order. It is the only place that knows them all.
//
//	start: port (says what is waited for) ─► store (Raft, Badger) ─► engines (children) ─► actors ─► API
//	stop:  port says goodbye, then closes ─► drain: what runs may end ─► engines ─► actors ─► store
//
//	         ┌────────────── node ───────────────┐
//	 HTTP ──►│ api ─► service ─► actors.System    │
//	         │                    │      │        │
//	         │           persistence   infer.Pool │──► glm-worker × n (unix sockets)
//	         └───────────────────────────────────┘
//
// Every limit of the system is a field of Config. A part that cannot start names
// its remedy; a node that lost its store or its shards says so on /readyz.
package node
