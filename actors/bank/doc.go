// Package bank is a worked example of kinds of one's own: accounts, and transfers between them that neither
// lose nor make a cent, whatever crashes when.
//
//	         Start                    Held, Held                 Settled, Settled
//	none ──────────► reserving ──────────────────► booking ──────────────────► done
//	                     │ Declined
//	                     ▼            Settled of what was held
//	                 cancelling ──────────────────────────────────────────────► failed
//
// A transfer is a persistent actor that reserves on both accounts, decides, and tells both. An account
// numbers each reservation by the version that made it, a number that is never used again; what it is told
// about a number that it does not have it has done before. So messages may be lost, repeated and come late, for ever, and an account
// remembers only the transfers under way: a reservation that a late message made is asked about until
// its transfer, which is over, lets it go. Deposits and withdrawals come from outside, so they are told apart by their request
// id (entity.Kind.Dedupe).
//
// Nothing here knows of nodes, shards or HTTP. Used by the examples, docs/actors.md and the chaos tests.
package bank
