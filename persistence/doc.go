// Package persistence decides what is durable: a write is, once a quorum of its shard's
// replicas has it on disk in the Raft log and this replica has it on disk in Badger.
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
// Which crash can lose what:
//
//	process killed         nothing acknowledged; a torn tail holds only what nobody was told
//	power lost             the same, as far as the disk keeps what it said to have synced
//	one file damaged       Open refuses and names it (verify.go), unless the Raft log can
//	                       still fill it in; a later bit flip fails the read, with fault.Corrupt
//	answer lost            the outcome is unknown; the same Append again is answered Dup or applied
//	disk full              refused early (reserve.go), reads go on
//	data directory lost    what Backup has, or what the other replicas of the groups have
//
// Recovery at Open: verify the files, load each shard's meta row (applied index, epoch,
// generation), compare it with the log, let Raft replay what is newer, stand for election.
//
// A file a noun: command (what the log carries), statemachine and apply (what an entry does),
// committer (one transaction for many shards; views), badger (keys and options), groups and
// transport (dragonboat), shard (the Journal), keep (the log and the disk stay bounded),
// reserve, stream and backup, verify and verifylog, datadir, open.
//
// It leaves to others what the bytes of a row mean, who becomes an owner (cluster), and where
// replicas live: today every group has this node's replica alone.
package persistence
