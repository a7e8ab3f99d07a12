package members

import (
	"bytes"
	"slices"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

func checkKeys(keys [][]byte) error {
	if len(keys) == 0 || len(keys) > keysMax {
		return fault.New(fault.Invalid, "members.keys", "", "%d keys: 1 to %d are needed", len(keys), keysMax)
	}
	for i, k := range keys {
		if len(k) != keySize {
			return fault.New(fault.Invalid, "members.keys", "", "key %d has %d bytes, not %d", i+1, len(k), keySize).
				WithRemedy("make one with autoglm init")
		}
	}
	return nil
}

// SetKeys replaces the keys of gossip while it runs: the first encrypts, all decrypt. To rotate without
// losing a packet give every node first (old, new), then (new, old), then (new).
func (l *List) SetKeys(keys [][]byte) error {
	if err := checkKeys(keys); err != nil {
		return err
	}
	ring := l.config.Keyring
	if ring == nil {
		return fault.New(fault.Refused, "members.keys", "", "gossip was started without a key").WithRemedy("restart the node with keys")
	}
	l.updating.Lock()
	defer l.updating.Unlock()
	for _, k := range keys {
		if err := ring.AddKey(k); err != nil {
			return fault.New(fault.Invalid, "members.keys", "", "%w", err)
		}
	}
	if err := ring.UseKey(keys[0]); err != nil {
		return fault.New(fault.Invalid, "members.keys", "", "%w", err)
	}
	for _, old := range ring.GetKeys() {
		if !slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, old) }) {
			if err := ring.RemoveKey(old); err != nil {
				return fault.New(fault.Unknown, "members.keys", "", "%w", err)
			}
		}
	}
	l.log.Info("gossip keys replaced", "keys", len(keys))
	return nil
}
