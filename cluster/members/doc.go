// Package members decides whom a node believes to be alive: gossip over memberlist.
//
//	Update, Rumor ──► List ──► memberlist ◄── UDP/TCP, AES-GCM, label = cluster id ──► peers
//	                   ▲  callbacks, under memberlist's lock: copied, never called back
//	                   │
//	   table ◄── join, update, leave ──► Members(), Changed()
//	   queue ◄── rumors, states      ──► OnRumor, Merge     (one goroutine)
//	   loop  ◄── conflicts, clock    ──► seeds asked again  (one goroutine)
//
// It only suggests: who owns a shard is Raft's decision and who gets a replica is package
// placement's. So a wrong belief costs a look, never data; and an old packet sent again by somebody on the network, which
// memberlist does not detect, brings old news back for a moment and no more.
//
// # Names and boots
//
// A member's name is stable; each start of its process has a Boot that sorts by time. A
// restart is one update to the others. Two living processes with one name are told apart by
// their boots: the later one is the newcomer and hears of it (Options.OnConflict).
//
// # Staying together
//
// A node that sees nobody asks its seeds for ever. One that sees others still asks, now and then,
// the seeds and the lost members that it does not see: so two halves that gave each other up meet again.
package members
