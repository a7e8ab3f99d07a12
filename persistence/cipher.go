package persistence

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/fb"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/y"
	"github.com/dgraph-io/ristretto/v2"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Badger's own encryption, where Options has a key for it: tables, memtable logs and its registry of data keys are AES-CTR. It covers
// the store/ folder and nothing else: Raft's log, snapshots on their way and backups are as clear as the rows are.

// lockedFault tells that the key is not the directory's. meta.json says whether there is one at all, so that a registry of a directory without
// a key, when it does not decode, is damage.
func lockedFault(path string, format string, args ...any) error {
	return fault.New(fault.Refused, "store.open", path, format, args...).
		WithRemedy("set store.encryption_key_file to the key that this data directory began with (none, if it began without); to change it, write a backup and restore " +
			"it with the other key, or let a node of a cluster begin with an empty directory. Nothing was changed")
}

// unlock opens Badger's registry of keys to read, so that a wrong key is told from damage before anything is taken for damaged. nil: there is
// nothing encrypted.
func (s *store) unlock() (*ciphers, error) {
	key := s.opts.EncryptionKey
	if s.dir.Encrypted != (len(key) > 0) {
		if s.dir.Encrypted {
			return nil, lockedFault(s.dir.path, "its store is encrypted, and no key was given")
		}
		return nil, lockedFault(s.dir.path, "a key for the store was given, and it is not encrypted")
	}
	if !s.dir.Encrypted {
		return nil, nil
	}
	return openCiphers(s.dir.store(), key)
}

// ciphers reads files that Badger encrypted.
type ciphers struct {
	keys  *badger.KeyRegistry
	index *ristretto.Cache[uint64, *fb.TableIndex] // Badger wants one where tables are encrypted
}

const cipherIndexes = 4 << 20 // bytes of tables' indexes kept while tables are verified

func openCiphers(dir string, key []byte) (c *ciphers, err error) {
	c = &ciphers{}
	err = recovered(func() (err error) {
		c.keys, err = badger.OpenKeyRegistry(badger.KeyRegistryOptions{Dir: dir, ReadOnly: true, EncryptionKey: key})
		return err
	})
	path := filepath.Join(dir, badger.KeyRegistryFileName)
	switch {
	case errors.Is(err, badger.ErrEncryptionKeyMismatch):
		return nil, lockedFault(path, "its store was encrypted with another key, or this file is damaged")
	case err != nil:
		return nil, corrupt(path, "%w", err)
	}
	c.index, err = ristretto.NewCache(&ristretto.Config[uint64, *fb.TableIndex]{NumCounters: 1 << 10, MaxCost: cipherIndexes, BufferItems: 64})
	if err != nil {
		return nil, fault.New(fault.Unknown, "store.verify", path, "%w", err)
	}
	return c, nil
}

func (c *ciphers) close() {
	if c != nil {
		c.index.Close()
	}
}

// of returns the data key of a number, nil for 0, which is none.
func (c *ciphers) of(id uint64) (*pb.DataKey, error) {
	if id == 0 {
		return nil, nil
	}
	if c == nil {
		return nil, fmt.Errorf("it is encrypted with key %d, and the store is not", id)
	}
	return c.keys.DataKey(id)
}

// memLogCipher decrypts entries of a memtable's log: its header names the key and begins the counter, which ends in
// where an entry begins.
//
//	key 8 │ counter 12
type memLogCipher struct {
	key     *pb.DataKey
	counter []byte
}

func (c *ciphers) memLog(header []byte) (memLogCipher, error) {
	key, err := c.of(binary.BigEndian.Uint64(header))
	return memLogCipher{key, header[8:memLogHeader]}, err
}

// clear returns key and value of the entry at an offset, which lie one after the other in kv.
func (m memLogCipher) clear(kv []byte, at int) ([]byte, error) {
	if m.key == nil {
		return kv, nil
	}
	return y.XORBlockAllocate(kv, m.key.Data, binary.BigEndian.AppendUint32(append(make([]byte, 0, 16), m.counter...), uint32(at)))
}

// readManifest tells which tables there are, and how each is coded.
func readManifest(dir string, o badger.Options) (map[uint64]badger.TableManifest, error) {
	path := filepath.Join(dir, badger.ManifestFilename)
	f, err := os.Open(path)
	if err != nil {
		return nil, corrupt(path, "%w", err)
	}
	defer f.Close()
	var m badger.Manifest
	err = guard(path, func() (err error) {
		m, _, err = badger.ReplayManifestFile(f, 0, o)
		return err
	})
	return m.Tables, err
}
