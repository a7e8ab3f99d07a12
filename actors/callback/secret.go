package callback

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Bounds of a secret, in bytes, as Standard Webhooks has them.
const (
	secretPrefix  = "whsec_"
	secretMin     = 24
	secretMax     = 64
	secretFileMax = 1 << 10
)

// NewSecret makes a random secret.
func NewSecret() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails: it would end the process
	return secretPrefix + base64.StdEncoding.EncodeToString(key)
}

const (
	tenantSecretLen  = 32 // bytes
	tenantSecretInfo = "open-autoglm callback secret of tenant "
)

// TenantSecret is the secret of one tenant, made of a node's: who has it can verify, and forge, what is signed for that tenant, and
// learns nothing of the node's or another tenant's. The default tenant is the operator's, whose secret is the node's itself.
func TenantSecret(secret, whose string) (string, error) {
	key, err := parseSecret(secret)
	if err != nil || whose == tenant.Default {
		return secret, err
	}
	if err := tenant.Check(whose); err != nil {
		return "", err
	}
	own, err := hkdf.Key(sha256.New, key, nil, tenantSecretInfo+whose, tenantSecretLen)
	if err != nil {
		return "", err
	}
	return secretPrefix + base64.StdEncoding.EncodeToString(own), nil
}

func parseSecret(s string) ([]byte, error) {
	text, ok := strings.CutPrefix(s, secretPrefix)
	if !ok {
		return nil, fmt.Errorf("it does not begin with %q", secretPrefix)
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("what follows its prefix is no base64") // the cause would quote it
	}
	if len(key) < secretMin || len(key) > secretMax {
		return nil, fmt.Errorf("it has %d bytes: use %d to %d", len(key), secretMin, secretMax)
	}
	return key, nil
}

// LoadOrCreateSecret reads the secret in path, or makes one there with mode 0600. Two processes
// that start together end with the same one.
func LoadOrCreateSecret(path string) (string, error) {
	for range 2 {
		s, err := loadSecret(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return s, err
		}
		if err := createSecret(path); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", fault.New(fault.Unavailable, "callback.secret", path, "%w", err)
		}
	}
	return loadSecret(path)
}

func loadSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fault.New(fault.Unavailable, "callback.secret", path, "%w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && st.Mode().Perm()&0o077 != 0 {
		return "", fault.New(fault.Refused, "callback.secret", path, "mode %v lets others read it", st.Mode().Perm()).
			WithRemedy("run chmod 600 on it, and change the secret if others are on this machine")
	}
	var b []byte
	if err == nil {
		b, err = io.ReadAll(io.LimitReader(f, secretFileMax))
	}
	if err != nil {
		return "", fault.New(fault.Unavailable, "callback.secret", path, "%w", err)
	}
	s := strings.TrimSpace(string(b))
	if _, err := parseSecret(s); err != nil {
		return "", fault.New(fault.Corrupt, "callback.secret", path, "%w", err).
			WithRemedy("put the right secret back, or remove the file to get a new one")
	}
	return s, nil
}

// createSecret writes beside and links, so that the file is there whole or not at all; a link,
// other than a rename, fails when somebody was faster.
func createSecret(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".secret-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(NewSecret() + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
