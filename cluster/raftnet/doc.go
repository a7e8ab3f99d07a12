// Package raftnet connects the Raft groups of this node with those of its peers, on a port of its own so that large
// snapshots and small requests of package mesh do not wait for each other.
//
//	Dial(node id) ── Resolve ──► address, name ── TLS: exactly that name ──► conn
//	listener ──► handshake (bounded in number and time) ── the certificate's name ── NodeOf ──► Accept: conn, node id
//
// A connection is handed over only when the other end has proved its name. What is said on it is left to persistence.
package raftnet
