package seal

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tink-crypto/tink-go/v2/daead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

const fileMax = 64 << 10 // bytes; KeysMax keys take 20 KiB

// ReadFile returns the bytes of a file with a secret, which others must not be able to read. (Its group may: that is how Kubernetes
// mounts a Secret.)
func ReadFile(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fileFault(path, err)
	}
	if m := st.Mode().Perm(); m&0o007 != 0 {
		return nil, fault.New(fault.Refused, "seal.file", path, "mode %v lets everybody on this machine at the key", m).
			WithRemedy("run chmod 600 on it (in Kubernetes: defaultMode: 0440), and rotate the key if others are on this machine")
	}
	if st.Size() > fileMax {
		return nil, fault.New(fault.TooLarge, "seal.file", path, "%d bytes, over the limit of %d", st.Size(), fileMax)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fileFault(path, err)
	}
	return b, nil
}

func fileFault(path string, err error) error {
	f := fault.New(fault.Unavailable, "seal.file", path, "%w", err)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f.Kind = fault.NotFound
		return f.WithRemedy("name the file with the key; `autoglm encryption-key new FILE` makes a first one, which opens nothing that is sealed already")
	case errors.Is(err, fs.ErrPermission):
		f.Kind = fault.Refused
		return f.WithRemedy("let the user that runs autoglm read it")
	}
	return f
}

// Create makes a file with a keyset of one new key, readable by its owner alone.
func Create(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fault.New(fault.Conflict, "seal.file", path, "the file exists").WithRemedy("choose another name: a keyset that is overwritten is lost with all that was sealed with it")
	}
	h, err := keyset.NewHandle(daead.AESSIVKeyTemplate())
	if err != nil {
		return fault.New(fault.Unknown, "seal.file", path, "%w", err)
	}
	return write(path, h, false)
}

// Step is what one call of Rotate did.
type Step string

// The steps of a rotation, in their order. All nodes must have the file of one step before the next is taken: a node that
// lacks a key cannot read what others seal with it.
const (
	Announced Step = "announced" // there is a new key, which opens; the old one still seals
	Switched  Step = "switched"  // the new key seals; the old ones still open
)

// Next says what to do after the step.
func (s Step) Next() string {
	if s == Announced {
		return "copy the file to every node, restart them one by one, then rotate again, with --deployed, to seal with the new key"
	}
	return "copy the file to every node and restart them one by one; keep the old keys in it: what was sealed with them still needs them"
}

// Rotate takes the next step of a rotation; deployed says that every node has the file of the last one, and with alone, which is for a
// keyset that one node has, both steps are one.
func Rotate(path string, deployed, alone bool) (Step, error) {
	text, err := ReadFile(path)
	if err != nil {
		return "", err
	}
	h, err := parse(text)
	if err != nil {
		return "", err
	}
	ks, err := material(h)
	if err != nil {
		return "", err
	}
	m := keyset.NewManagerFromHandle(h)
	newest, step := ks.Key[len(ks.Key)-1].KeyId, Switched
	if newest == ks.PrimaryKeyId {
		if len(ks.Key) >= KeysMax {
			return "", fault.New(fault.TooLarge, "seal.rotate", path, "the keyset has KeysMax (%d) keys", KeysMax)
		}
		if newest, err = m.Add(daead.AESSIVKeyTemplate()); err != nil {
			return "", fault.New(fault.Unknown, "seal.rotate", path, "%w", err)
		}
		step = Announced
	} else if !deployed && !alone {
		return "", fault.New(fault.Conflict, "seal.rotate", path, "the last step, %s, must be on every node before the next one", Announced).WithRemedy("%s", Announced.Next())
	}
	if step == Switched || alone {
		step = Switched
		if err := m.SetPrimary(newest); err != nil {
			return "", fault.New(fault.Invalid, "seal.rotate", path, "%w", err)
		}
	}
	if h, err = m.Handle(); err != nil {
		return "", fault.New(fault.Unknown, "seal.rotate", path, "%w", err)
	}
	return step, write(path, h, true)
}

// Key is what may be told of a key.
type Key struct {
	Print Print `json:"key"`
	Seals bool  `json:"seals"` // it is the primary one
	Opens bool  `json:"opens"` // false: disabled in the file
	Fresh bool  `json:"fresh"` // announced, and not yet used
}

// Info tells which keys are in a file, oldest first.
func Info(path string) ([]Key, error) {
	text, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	h, err := parse(text)
	if err != nil {
		return nil, err
	}
	ks, err := material(h)
	if err != nil {
		return nil, err
	}
	keys := make([]Key, len(ks.Key))
	used := false
	for i, k := range ks.Key {
		keys[i] = Key{Print: printOf(k), Seals: k.KeyId == ks.PrimaryKeyId, Opens: k.Status == tinkpb.KeyStatusType_ENABLED, Fresh: used}
		used = used || keys[i].Seals
	}
	return keys, nil
}

// write puts a keyset into a file, whole or not at all. replace: there is one.
func write(path string, h *keyset.Handle, replace bool) (err error) {
	var b bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewJSONWriter(&b)); err != nil {
		return fault.New(fault.Unknown, "seal.file", path, "%w", err)
	}
	b.WriteByte('\n')
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*") // mode 0600
	if err != nil {
		return fileFault(path, err)
	}
	defer os.Remove(f.Name()) // gone already, when all went well
	_, err = f.Write(b.Bytes())
	err = errors.Join(err, f.Sync(), f.Close())
	switch {
	case err != nil:
	case replace:
		err = os.Rename(f.Name(), path)
	default: // a link, other than a rename, fails when somebody was faster
		err = os.Link(f.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fileFault(path, err)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
