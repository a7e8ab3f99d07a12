// Package gate decides what a stranger may say to which actor, and what he may see.
//
//	Ask, Tell ──► kind known? ─► open? ─► type open? ─► body exactly its type's ──► cluster.Router
//	State, Watch ► kind known? ─► open? ──────────────► Router.Read ─► fold ─► View, as JSON
//
// A kind is closed unless it says otherwise: the names in its Open may be sent, what its View returns may be
// seen. So a kind's own messages between its actors, like a task's claims, stay its own.
//
// Left to others: HTTP and the forms of an answer (node/api), which node has the actor (cluster).
package gate
