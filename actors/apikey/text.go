package apikey

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"strings"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// A key is "ag_", its id, "_", and the secret with a checksum in base64url.
const (
	mark        = "ag_"
	idLen       = 12 // characters of base32: 60 bits
	secretBytes = 32
	sumBytes    = 4
)

var idCoding = base32.NewEncoding("abcdefghijkmnpqrstuvwxyz23456789").WithPadding(base32.NoPadding)

var textLen = len(mark) + idLen + 1 + base64.RawURLEncoding.EncodedLen(secretBytes+sumBytes)

// newText makes a key; an empty id stands for a new one.
func newText(id string) (text, keyID string, err error) {
	var b [8 + secretBytes]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", "", fault.New(fault.Unavailable, "apikey.create", "", "no random bytes: %w", err)
	}
	if id == "" {
		id = idCoding.EncodeToString(b[:8])[:idLen]
	}
	text = mark + id + "_"
	secret := append([]byte(nil), b[8:]...)
	secret = binary.BigEndian.AppendUint32(secret, crc32.ChecksumIEEE(append([]byte(text), secret...)))
	return text + base64.RawURLEncoding.EncodeToString(secret), id, nil
}

// ID is the id in a key's text; ok is false for what no key can be.
func ID(text string) (id string, ok bool) {
	if len(text) != textLen || !strings.HasPrefix(text, mark) || text[len(mark)+idLen] != '_' {
		return "", false
	}
	head := text[:len(mark)+idLen+1]
	secret, err := base64.RawURLEncoding.Strict().DecodeString(text[len(head):])
	if err != nil || len(secret) != secretBytes+sumBytes || // line ends are skipped in decoding
		crc32.ChecksumIEEE(append([]byte(head), secret[:secretBytes]...)) != binary.BigEndian.Uint32(secret[secretBytes:]) {
		return "", false
	}
	return head[len(mark) : len(head)-1], true
}

// Hash is what is kept of a key.
func Hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// is compares in constant time.
func is(hash, kept string) bool { return subtle.ConstantTimeCompare([]byte(hash), []byte(kept)) == 1 }

// A Root is the operator's first key as a node's configuration has it: what is needed to know the key when it comes, not to make it.
type Root struct{ ID, Hash string }

// NewRoot makes the operator's first key.
func NewRoot() (text string, r Root, err error) {
	text, id, err := newText("")
	return text, Root{id, Hash(text)}, err
}

// String is the form for a file: id and hash.
func (r Root) String() string { return r.ID + ":" + r.Hash }

// ParseRoot reads a Root, or makes one of a key itself.
func ParseRoot(s string) (Root, error) {
	s = strings.TrimSpace(s)
	if id, ok := ID(s); ok {
		return Root{id, Hash(s)}, nil
	}
	id, hash, ok := strings.Cut(s, ":")
	if b, err := hex.DecodeString(hash); !ok || len(id) != idLen || err != nil || len(b) != sha256.Size {
		return Root{}, fault.New(fault.Invalid, "apikey.root", "access.admin_key", "is neither a key nor the id and hash of one").
			WithRemedy("make one with autoglm key root")
	}
	return Root{id, hash}, nil
}

// Is tells whether a text with the root's id is the key.
func (r Root) Is(text string) bool { return is(Hash(text), r.Hash) }
