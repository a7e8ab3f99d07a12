// Package apikey is the keys that clients show: each a persistent actor, which knows whose it is, what it may, until when, and the
// hash of the key. The key itself is said once, to who made it, and kept nowhere.
//
//	Create ──► active ── Rotate ──► active, with another secret; the one before is good for a while, if that was asked for
//	             └────── Revoke ──► revoked, for ever
//
// A key's text names its actor, so that a node finds it without a search, and ends with a checksum, so that a text which is cut or
// mistyped is refused without a look at the store. The secret in it has 256 random bits: a plain hash is enough, there is nothing to guess.
package apikey
