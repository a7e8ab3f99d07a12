package persistence_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// TestTheStoreIsEncrypted: in no file of it, and another key, or none, is told from damage, for what is damaged is set aside.
func TestTheStoreIsEncrypted(t *testing.T) {
	const word = "Zq7xKv2mPw9sRt4uBn6cLd8e"
	key := bytes.Repeat([]byte{1}, 32)
	dir := t.TempDir()
	s := open(t, persistence.Options{Dir: dir, Shards: 1, EncryptionKey: key})
	own := persisttest.Own(t, s.Journal(0))
	own.OK(persistence.Write{Key: persistence.Key{Kind: "task", ID: "1"}, Data: []byte(word)})
	killed := copyDir(t, dir)
	require.NoError(t, s.Close())
	for _, base := range []string{dir, killed} {
		found := map[string]bool{}
		require.NoError(t, filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			rel, _ := filepath.Rel(base, path)
			if bytes.Contains(b, []byte(word)) {
				found[strings.SplitN(rel, string(filepath.Separator), 2)[0]] = true
			}
			return err
		}))
		require.Equal(t, map[string]bool{"raft": true}, found, "Raft's log is not covered, and package doc says so")
		for name, bad := range map[string][]byte{"none": nil, "other": bytes.Repeat([]byte{2}, 32), "shorter": bytes.Repeat([]byte{1}, 16)} {
			_, err := persistence.Open(persistence.Options{Dir: base, EncryptionKey: bad})
			require.Equal(t, fault.Refused, fault.KindOf(err), "%s: %v", name, err)
			require.Contains(t, fault.RemedyOf(err), "store.encryption_key_file")
		}
		s := open(t, persistence.Options{Dir: base, EncryptionKey: key})
		l, err := s.Journal(0).Read(persistence.Key{Kind: "task", ID: "1"}, 0)
		require.NoError(t, err)
		require.Equal(t, word, string(l.Rows[0].Data))
		require.NoError(t, s.Close())
	}
	_, err := persistence.Open(persistence.Options{Dir: t.TempDir(), EncryptionKey: key[:15]})
	require.Equal(t, fault.Invalid, fault.KindOf(err))
}
