// Package quota keeps tenants within what the operator gives them, over the whole cluster.
//
//	operator ── Set ──► the quotas: one persistent actor
//	                         │ its owner lends them out
//	node ── ask, each second: what I have in hand, and would like ──► Ledger ── shares, for leaseFor ──► node
//	batcher ── Reserve ──► Shares: running tasks, tokens a minute      (more waits)
//	API ────── Admit ────► Shares: requests a minute, tasks waiting    (more is 429)
//
// The sum of the shares that are lent and not over is never more than the quota: a node that is cut off goes on with its share until
// that ends, and then with nothing; who lends after a change of the owner waits until all shares of the one before are over.
// What a node does not use it gets less of at its next ask, and others get more.
//
// The Ledger and the Shares decide and have no clock of their own; asking and answering is thin.
package quota
