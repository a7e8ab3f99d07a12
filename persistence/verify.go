package persistence

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/table"
	"github.com/dgraph-io/ristretto/v2/z"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Before Badger opens its files they are verified here, because Badger repairs in silence:
// it goes on without a table whose checksum is wrong, deletes tables that a cut
// MANIFEST no longer names, and cuts a memtable log at the first bad byte even when
// newer logs follow.
//
//	tables named by MANIFEST        memtable logs, oldest first
//	every block's checksum    ─►    n+1 … m │ m+1 … k │ k+1 …
//	newest transaction: n           no number may be missing
//
// The committer numbers transactions without a gap. So what passes is all
// that was written up to some transaction. Should that not be the newest one,
// the Raft log fills in the rest, or verifylog.go finds that it can not.
const remedyCorrupt = "stop the node, keep the data directory for inspection, and restore a backup into a new one"

func corrupt(path string, format string, args ...any) error {
	return fault.New(fault.Corrupt, "store.verify", path, format, args...).WithRemedy(remedyCorrupt)
}

// verifyStore checks the files of a Badger directory that was used before.
func verifyStore(dir string, o Options, c *ciphers) error {
	newest, err := verifyTables(dir, o, c)
	if err != nil {
		return err
	}
	logs, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	if err != nil {
		return dirFault(dir, err)
	}
	sort.Slice(logs, func(i, j int) bool { return fileNumber(logs[i]) < fileNumber(logs[j]) })
	for _, path := range logs {
		first, last, err := readMemLog(path, c)
		if err != nil {
			return err
		}
		if first == 0 {
			continue
		}
		if first > newest+1 {
			return corrupt(path, "transactions %d to %d are missing before it", newest+1, first-1)
		}
		newest = max(newest, last)
	}
	return nil
}

func fileNumber(path string) int {
	n, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)))
	return n
}

// verifyTables reads every table that MANIFEST names and returns the newest
// transaction in them. A table is mapped only while it is read.
func verifyTables(dir string, o Options, c *ciphers) (newest uint64, err error) {
	tables, err := readManifest(dir, badgerOptions(dir, o))
	if err != nil {
		return 0, err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	work := make(chan uint64)
	var errs []error
	for range 2 {
		wg.Go(func() {
			for id := range work {
				path := table.NewFilename(id, dir)
				var at uint64
				err := guard(path, func() (err error) {
					at, err = verifyTable(path, tables[id], c)
					return err
				})
				mu.Lock()
				newest = max(newest, at)
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	for id := range tables {
		work <- id
	}
	close(work)
	wg.Wait()
	return newest, errors.Join(errs...)
}

// verifyLive reads the tables of an open database once more: bits also flip
// while a node runs, and an iterator of Badger ends at a bad block without a word.
// Tables that are compacted away meanwhile do not count.
func verifyLive(db *badger.DB, stop <-chan struct{}) error {
	dir, coded := db.Opts().Dir, badger.TableManifest{Compression: db.Opts().Compression}
	live := db.Tables()
	var c *ciphers
	var keys map[uint64]badger.TableManifest // where there are any: of live and of younger tables
	if key := db.Opts().EncryptionKey; len(key) > 0 {
		var err error
		if keys, err = readManifest(dir, db.Opts()); err != nil {
			return err
		}
		if c, err = openCiphers(dir, key); err != nil {
			return err
		}
		defer c.close()
	}
	for _, t := range live {
		if stopped(stop) {
			return nil
		}
		path := table.NewFilename(t.ID, dir)
		coded.KeyID = keys[t.ID].KeyID
		err := guard(path, func() error { _, err := verifyTable(path, coded, c); return err })
		if _, gone := os.Stat(path); err != nil && gone == nil {
			return err
		}
	}
	return nil
}

// guard names the file in whatever goes wrong in f, a panic too.
func guard(path string, f func() error) error {
	err := recovered(f)
	var known *fault.Error
	if err == nil || errors.As(err, &known) && known.Key == path {
		return err
	}
	return corrupt(path, "%w", err)
}

const memLogHeader = 20 // bytes

// verifyTable walks all entries, which checks the index and every block on the way.
func verifyTable(path string, coded badger.TableManifest, c *ciphers) (newest uint64, err error) {
	f, err := z.OpenMmapFile(path, os.O_RDONLY, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close(-1) // unmaps; DecrRef on the table would delete the file
	if len(f.Data) == 0 {
		return 0, errors.New("the file is empty")
	}
	o := table.Options{ReadOnly: true, ChkMode: options.OnBlockRead, BlockSize: 4 << 10, Compression: coded.Compression}
	if o.DataKey, err = c.of(coded.KeyID); err != nil {
		return 0, err
	}
	if o.DataKey != nil {
		o.IndexCache = c.index
	}
	t, err := table.OpenTable(f, o)
	if err != nil {
		return 0, err
	}
	it := t.NewIterator(table.NOCACHE)
	defer it.Close()
	n := uint32(0)
	for it.Rewind(); it.Valid(); it.Next() {
		n++
	}
	if n != t.KeyCount() { // the iterator ends at a bad block without a word
		return 0, errors.New("a block does not have its checksum")
	}
	return t.MaxVersion(), nil
}

// readMemLog returns the first and last whole transaction of a memtable's log. It
// ends where Badger's own replay would.
//
//	header 20 │ entries: meta 1, user meta 1, varints: key, value, expiry │ key │ value │ crc32c 4
//
// A key ends in its transaction's number; an entry marked so closes the transaction. Key and value may be encrypted: cipher.go.
func readMemLog(path string, c *ciphers) (first, last uint64, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, corrupt(path, "%w", err)
	}
	const closes = 1 << 7
	if len(b) < memLogHeader {
		return 0, 0, nil
	}
	secret, err := c.memLog(b)
	if err != nil {
		return 0, 0, corrupt(path, "%w", err)
	}
	for r := (reader{b: b[memLogHeader:]}); ; {
		start := r.b
		meta := r.byte()
		r.byte()
		klen, vlen := r.uvarint(), r.uvarint()
		r.uvarint()
		key := r.take(klen)
		value := r.take(vlen)
		size := len(start) - len(r.b)
		sum := r.take(4)
		if r.bad || klen < 8 || binary.BigEndian.Uint32(sum) != crc32.Checksum(start[:size], castagnoli) {
			return first, last, nil
		}
		if meta&closes == 0 {
			continue
		}
		kv, err := secret.clear(start[size-len(key)-len(value):size], len(b)-len(start))
		if err != nil {
			return 0, 0, corrupt(path, "%w", err)
		}
		n, err := strconv.ParseUint(string(kv[len(key):]), 10, 64)
		if err != nil {
			return first, last, nil
		}
		switch {
		case first == 0:
			first = n
		case n != last+1:
			return 0, 0, corrupt(path, "transaction %d follows %d", n, last)
		}
		last = n
	}
}
