package pki

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	gossipKeySize = 32 // bytes: AES-256
	gossipKeysMax = 2  // a ring holds more than one only while it is rotated
)

// Step is what one call of RotateGossipKey did.
type Step string

// The steps of a rotation, in their order. All nodes must have the files of one step before the next is taken: a node
// that is sent gossip under a key it does not hold is cut off.
const (
	Announced Step = "announced" // a new key is accepted, the old one still used
	Switched  Step = "switched"  // the new key is used, the old one still accepted
	Retired   Step = "retired"   // the old key is gone
)

// Next says what to do after the step.
func (s Step) Next() string {
	switch s {
	case Announced:
		return "copy gossip.key to every node, restart them one by one, then rotate again, with --deployed, to use the new key"
	case Switched:
		return "copy gossip.key to every node, restart them one by one, then rotate again, with --deployed, to drop the old key"
	}
	return "copy gossip.key to every node and restart them one by one; the old key is then worthless"
}

// ring holds gossip keys. The first is used to encrypt, all are accepted; fresh marks the one that an
// unfinished rotation brings in (-1: none).
type ring struct {
	keys  [][]byte
	fresh int
}

// rotate takes the next step of a rotation.
func (r ring) rotate(made []byte) (ring, Step) {
	switch {
	case len(r.keys) == 1:
		return ring{[][]byte{r.keys[0], made}, 1}, Announced
	case r.fresh == 0:
		return ring{r.keys[:1:1], -1}, Retired
	}
	return ring{[][]byte{r.keys[1], r.keys[0]}, 0}, Switched
}

// last is the step that a rotation under way took last, "" when none is. That the old key was dropped cannot be seen any more: what
// follows announces another one, which cuts nobody off who has the key in use.
func (r ring) last() Step {
	switch {
	case len(r.keys) == 1:
		return ""
	case r.fresh == 0:
		return Switched
	}
	return Announced
}

// encode writes one key a line, base64; the fresh one is marked.
func (r ring) encode() []byte {
	var b bytes.Buffer
	b.WriteString("# Gossip keys: the first encrypts, all are accepted. Secret.\n")
	for i, k := range r.keys {
		b.WriteString(base64.StdEncoding.EncodeToString(k))
		if i == r.fresh {
			b.WriteString(" new")
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// decodeRing reads what encode wrote.
func decodeRing(b []byte) (ring, error) {
	r := ring{fresh: -1}
	for n, line := range strings.Split(string(b), "\n") {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		k, err := base64.StdEncoding.DecodeString(f[0])
		if err != nil || len(k) != gossipKeySize {
			return ring{}, fault.New(fault.Corrupt, "pki.gossip", "", "line %d holds no key of %d bytes in base64", n+1, gossipKeySize)
		}
		if len(f) > 1 && f[1] == "new" {
			r.fresh = len(r.keys)
		}
		r.keys = append(r.keys, k)
	}
	if len(r.keys) == 0 || len(r.keys) > gossipKeysMax {
		return ring{}, fault.New(fault.Corrupt, "pki.gossip", "", "%d keys, want 1 to %d", len(r.keys), gossipKeysMax)
	}
	return r, nil
}

func newGossipKey() ([]byte, error) {
	k := make([]byte, gossipKeySize)
	if _, err := rand.Read(k); err != nil {
		return nil, fmt.Errorf("pki.gossip: %w", err)
	}
	return k, nil
}
