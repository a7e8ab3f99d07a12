// Package persistence decides what is durable: a write is, once a quorum of its shard's
// replicas has it on disk in the Raft log and this replica has it on disk in Badger. Replicas that do not lead
// commit theirs to Badger a moment later, many entries at once (settle.go).
//
//	Journal.Append ─► reserve ─► command ─► Raft group of the shard ─► log: one fsync for all groups
//	                                            │ committed
//	     answer ◄── committer ◄── state machine ┘   sequence, epoch, duplicate?
//	                   │ many shards, one transaction, one fsync
//	                Badger ◄── Journal.Read, Scan: point reads and pinned views, no lock, no Raft
//
// A journal is the rows of one persistent actor, numbered from 1; a snapshot stands for the
// rows up to its own. An append names the sequence it follows, so a retry is recognized
// and a stale writer refused. Who may write at all is decided by the shard's
// epoch: Acquire raises it, and commands of an older one do nothing.
//
// Every shard is a Raft group of its own, with replicas on several nodes:
//
//	node A, leads         node B                node C
//	  replica 1 ═══════════ replica 2 ═══════════ replica 3 (learner until it has caught up)
//	       └── transport: frames over a Network that knows who the peer is; a gate at the receiver
//
// A replica comes to a node as a learner (Change on the leader, Join there), catches up from the log or, where
// that was cut, from a snapshot loaded as a new generation of rows, and is promoted by another Change. It goes the
// other way: Change, Drop. meta.json says first what is about to be, so Open finishes what a crash cut short. Raft's belief
// in a leader is told by Leads with the leader's node; what an owner may write is still the epoch's to say. Proposals are
// never forwarded: a node that does not lead refuses an Append at once.
//
// Which crash can lose what:
//
//	process killed         nothing acknowledged; a torn tail holds only what nobody was told
//	power lost             the same, as far as the disk keeps what it said to have synced
//	one file damaged       Open refuses and names it (verify.go), unless the Raft log can
//	                       still fill it in; a later bit flip fails the read, with fault.Corrupt
//	answer lost            the outcome is unknown; the same Append again is answered Dup or applied
//	disk full              refused early (reserve.go), reads go on
//	data directory lost    what Backup has, or nothing of groups whose other replicas are a quorum: the
//	                       node comes back with another id, and other replicas take the place of its own
//	cut off from a quorum  nothing; Append and Barrier end in Timeout or Unavailable
//
// Recovery at Open: verify the files, load each shard's meta row (applied index, epoch,
// generation), compare it with the log, let Raft replay what is newer, stand for election where
// nobody else votes.
//
// A file a noun: command (what the log carries), statemachine and apply (what an entry does),
// settle (commits put off), pieces (large bodies), committer (one transaction for many shards; views), badger (keys and options), builders (what Badger keeps in memory), groups (dragonboat),
// transport, link, gate, netframe and registry (its network), leads, members and membership (who belongs to
// a group), change, placing and transfer (replicas and the lead come, move and go), shard and read (the Journal), keep (the log and the disk stay bounded),
// reserve, stream and backup, verify and verifylog, datadir and identity, open.
//
// It leaves to others what the bytes of a row mean, who becomes an owner (cluster), where
// replicas should live and when, and how nodes find and authenticate each other (Network).
package persistence
