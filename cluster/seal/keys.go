package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/tink-crypto/tink-go/v2/daead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Keys is a keyset in use. It is safe for many goroutines; nil is none.
type Keys struct {
	daead   tink.DeterministicAEAD
	ids     map[uint32]bool // that it opens
	prints  []Print         // of the same, in the order in which they were made
	primary Print           // of the key that seals
	standby bool
}

// Print tells a key from every other one and nothing of what it is: "id-hash". Two keys of one id differ in it.
type Print string

const siv = "type.googleapis.com/google.crypto.tink.AesSivKey"

// KeysMax bounds a keyset: a rotation adds a key, and old ones stay for as long as there are rows under them.
const KeysMax = 100

// Parse reads a keyset as File makes it: Tink's JSON, or its base64, which is easier to carry in a variable. A standby opens what is
// sealed and seals nothing.
func Parse(text []byte, standby bool) (*Keys, error) {
	h, err := parse(text)
	if err != nil {
		return nil, err
	}
	ks, err := material(h)
	if err != nil {
		return nil, err
	}
	k := &Keys{ids: map[uint32]bool{}, standby: standby}
	for _, key := range ks.Key {
		if key.Status != tinkpb.KeyStatusType_ENABLED {
			continue
		}
		p := printOf(key)
		k.ids[key.KeyId] = true
		k.prints = append(k.prints, p)
		if key.KeyId == ks.PrimaryKeyId {
			k.primary = p
		}
	}
	if k.daead, err = daead.New(h); err != nil {
		return nil, bad("%w", err)
	}
	return k, nil
}

func bad(format string, args ...any) *fault.Error {
	return fault.New(fault.Invalid, "seal.keys", "", "this is no keyset for rows: "+format, args...).
		WithRemedy("make one with `autoglm encryption-key new FILE`; a copy must be whole")
}

// parse never quotes what it reads: it is secret.
func parse(text []byte) (*keyset.Handle, error) {
	text = bytes.TrimSpace(text)
	if len(text) > 0 && text[0] != '{' {
		raw, err := base64.StdEncoding.DecodeString(string(text))
		if err != nil {
			return nil, bad("neither JSON nor base64")
		}
		text = raw
	}
	h, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(text)))
	if err != nil {
		return nil, bad("it does not decode")
	}
	ks, err := material(h)
	if err != nil {
		return nil, err
	}
	if len(ks.Key) > KeysMax {
		return nil, bad("%d keys, more than KeysMax (%d)", len(ks.Key), KeysMax)
	}
	for _, key := range ks.Key {
		if key.GetKeyData().GetTypeUrl() != siv || key.OutputPrefixType != tinkpb.OutputPrefixType_TINK {
			return nil, bad("key %d is not of the form AES256_SIV", key.KeyId)
		}
	}
	return h, nil
}

func material(h *keyset.Handle) (*tinkpb.Keyset, error) {
	var mem keyset.MemReaderWriter
	if err := insecurecleartextkeyset.Write(h, &mem); err != nil {
		return nil, bad("%w", err)
	}
	return mem.Keyset, nil
}

// printOf hashes a key of 64 random bytes: nothing of it can be found that way.
func printOf(key *tinkpb.Keyset_Key) Print {
	h := sha256.New()
	h.Write([]byte("autoglm: which key is this?\x00"))
	h.Write(key.KeyData.Value)
	return Print(fmt.Sprintf("%d-%s", key.KeyId, hex.EncodeToString(h.Sum(nil)[:8])))
}

// Seals returns the print of the key under which rows are sealed from now on, "" when they are not.
func (k *Keys) Seals() Print {
	if k == nil || k.standby {
		return ""
	}
	return k.primary
}

// Opens returns the prints of the keys that open rows, oldest first.
func (k *Keys) Opens() []Print {
	if k == nil {
		return nil
	}
	return slices.Clone(k.prints)
}

// Check tells whether everything under the keys of these prints can be opened: nil, or a Refused fault.
func (k *Keys) Check(under []Print) error {
	for _, p := range under {
		if k == nil {
			return fault.New(fault.Refused, "seal.check", "", "the data is sealed with key %s, and this node was given no keys", p).WithRemedy(remedyKeys)
		}
		if !slices.Contains(k.prints, p) {
			return fault.New(fault.Refused, "seal.check", "", "the data is sealed with key %s, which is not among this node's keys (%v)", p, k.prints).WithRemedy(remedyKeys)
		}
	}
	return nil
}

const remedyKeys = "give it the keyset that the data was written with (encryption.key_file, or AUTOGLM_ENCRYPTION_KEY), with its older keys: " +
	"`autoglm encryption-key info FILE` shows which are in a file. Nothing was changed"

// idOf returns the id of the key under which Tink made b, and whether b is long enough.
func idOf(b []byte) (id uint32, ok bool) {
	if len(b) < overhead-len(mark)-1 || b[0] != 1 {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[1:]), true
}
