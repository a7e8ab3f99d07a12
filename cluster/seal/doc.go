// Package seal decides what of a row can be read by who has the disk but not the keys: its place, and nothing of its content.
//
//	actor ─► Write: data, snapshot, index values ─ Keys.Write ─► appender ─► Raft log, Badger, snapshots, backups
//	actor ◄─ the same in clear ─────────────────── Keys.Log, Keys.Value ◄── Journal.Read, Scan
//
// It stands in one place, the shard's owner (cluster.Owner), above Raft and below every kind: no kind can forget it, one of a
// user's own neither. Keys of journals, keys and names of indexes, and counters stay clear, for the store sorts and finds by them.
//
// A value is sealed with AES-SIV (Tink's deterministic AEAD, RFC 5297), bound to where it belongs: kind, id and sequence of a row or
// a snapshot, name and key of an index row. Deterministic for two reasons. The same write twice must stay the same bytes, so that
// the state machine takes a repeat, also one by another node, for a repeat. And there is no nonce to run out of: at 2^32 rows, days of
// work here, AES-GCM with random ones would have to change its key. What determinism tells is whether the same place got
// the same value again.
//
// A sealed value begins with a mark. One without it is clear, from before there were keys, and is read as it is. A nil *Keys
// is a node without keys: it writes clear, and says which key is missing when it meets something sealed.
//
// Keeping the keys is left to people and their tools (file.go makes and rotates the file), comparing them between nodes to package node,
// and what a data directory was sealed under to package cluster, which journals it.
package seal
