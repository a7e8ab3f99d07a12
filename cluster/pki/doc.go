// Package pki decides who a node is: a name in a cluster, certified by the cluster's own authority, and never an
// address (pods change theirs).
//
//	Init ──► DIR/ca.crt ca.key cluster.json *.key *.secret  stay with the operator
//	         DIR/nodes/NAME/node.crt node.key ca.crt        all that node NAME needs
//	                        gossip.key cluster.json              │ copied
//	                        api.crt api.key admin.hash           │
//	                                                             ▼
//	                                              Load ──► Identity
//	             Server() ── any node of this cluster ◄── TLS 1.3 ──► exactly this node ── Client(peer)
//	                              PeerName ── autoglm://CLUSTER/NAME, the URI in the certificate
//
// Both sides of a connection show a certificate of the same authority and the same cluster id; who dials names
// the node expected, and another node of the cluster does not pass for it. New files are noticed while a node
// works. Listening, dialling and what is said are left to mesh and raftnet.
package pki
