// Package actorclient talks to persistent actors in a cluster, from outside.
//
//	c, err := actorclient.New([]string{"http://10.0.0.1:8080", "http://10.0.0.2:8080"})
//	account := c.Actor("account", "alice")
//	balance, err := actorclient.Ask[bank.Balance](ctx, account, "Deposit", bank.Deposit{Cents: 500})
//
//	Ask ─► request id ─► node 1 ──x  busy, away, or silent for a while
//	                 └─► node 2 ──► the actor's owner: carried out, or known under this id
//
// What it decides: every Ask has a request id, made here unless the caller has one, and is sent again under it to the next
// node until it is answered or its context ends. Where the kind remembers requests (entity.Kind.Dedupe) the message
// is carried out exactly once if Ask returns without an error; messages of other kinds must bear being carried out twice. Only a
// request that was carried out is remembered: where one try had no answer and the next was refused, the first may be carried out
// yet, and Ask says that it does not know.
//
// Errors are faults (package persistence/fault), with the kind and remedy that the node gave.
package actorclient
