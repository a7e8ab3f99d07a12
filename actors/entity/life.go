package entity

import (
	"crypto/rand"
	"encoding/hex"
)

// NewLife returns a short random text that tells an entity, and what it made, from one that had its id before: ids of what people name are
// used again.
func NewLife() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
