package persistence

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// A backup is a folder with one stream per shard, all of the same transaction, and
// backup.json, written last: without it the folder is no backup.
const (
	backupName   = "backup.json"
	backupFormat = 1

	// epochLeap is what a restore adds to the epochs: owners of the cluster that the backup
	// was taken of, and those it had since, never meet an epoch they know.
	epochLeap = 1 << 20

	backupLook = 4 << 20 // bytes written between two looks at the disk
)

type backupManifest struct {
	Format  int            `json:"format"`
	Created time.Time      `json:"created"`
	Shards  []backupStream `json:"shards"`
}

type backupStream struct {
	File  string `json:"file"`
	Bytes int64  `json:"bytes"`
	streamInfo
}

// Backup writes all shards as of one transaction to dir while the node goes on.
func (s *store) Backup(ctx context.Context, dir string) error {
	const op = "store.backup"
	if err := emptyDir(op, dir); err != nil {
		return err
	}
	for shard := range s.dir.Shards {
		if s.hosted(shard) == 0 {
			return fault.New(fault.Unavailable, op, dir, "this node has no replica of shard %d", shard).
				WithRemedy("back up on a node that has a replica of every shard")
		}
	}
	if err := verifyLive(s.badger, ctx.Done()); err != nil {
		return err
	}
	if err := s.settle(); err != nil {
		return backupFault(op, dir, err)
	}
	v := s.db.view()
	defer v.close()
	m := backupManifest{Format: backupFormat, Created: s.opts.Now().UTC()}
	for shard := range s.dir.Shards {
		x := backupStream{File: fmt.Sprintf("shard-%04d.stream", shard)}
		meta, err := readMeta(v, shard)
		if err == nil {
			err = create(filepath.Join(dir, x.File), func(f io.Writer) (err error) {
				out := &careful{w: f, dir: dir, keep: s.opts.DiskReserve / 2}
				x.streamInfo, err = writeStream(out, shard, v, meta, ctx.Done())
				x.Bytes = out.n
				return err
			})
		}
		if ctx.Err() != nil {
			err = &fault.Error{Op: op, Key: dir, Kind: fault.Timeout, Err: ctx.Err()}
		}
		if err != nil {
			return backupFault(op, dir, err)
		}
		m.Shards = append(m.Shards, x)
	}
	return backupFault(op, dir, writeJSON(filepath.Join(dir, backupName), m))
}

func backupFault(op, dir string, err error) error {
	if err == nil || fault.KindOf(err) != fault.Unknown {
		return err
	}
	kind := fault.Unavailable
	if errors.Is(err, syscall.ENOSPC) {
		kind = fault.NoSpace
	}
	return (&fault.Error{Op: op, Key: dir, Kind: kind, Err: err}).WithRemedy("the folder is not complete: remove it and try again")
}

// emptyDir makes dir, or accepts an empty one.
func emptyDir(op, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return backupFault(op, dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return backupFault(op, dir, err)
	}
	if len(entries) > 0 {
		return fault.New(fault.Conflict, op, dir, "the folder is not empty").WithRemedy("name a new folder; nothing is overwritten")
	}
	return nil
}

// create writes a new file and syncs it and its folder.
func create(path string, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(f, 256<<10)
	if err = write(out); err == nil {
		err = out.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// careful counts what it writes and stops before it fills the disk, which may be the one of
// the data directory.
type careful struct {
	w     io.Writer
	dir   string
	keep  uint64
	n     int64
	until int64 // bytes at which to look again
}

func (c *careful) Write(b []byte) (int, error) {
	if c.n >= c.until {
		c.until = c.n + backupLook
		free, err := diskFree(c.dir)
		if err != nil {
			return 0, err
		}
		if free < c.keep+backupLook {
			return 0, fault.New(fault.NoSpace, "store.backup", c.dir, "%s free, %s are kept free", mib(free), mib(c.keep)).
				WithRemedy("back up to another disk; the folder is not complete: remove it")
		}
	}
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// Restore makes a data directory of a backup. All checksums are verified before anything is
// written. The new directory is a node alone, of a new identity, whose epochs are
// beyond all that the old cluster may have reached. key is Options.EncryptionKey of the new directory, whatever the old one had.
func Restore(ctx context.Context, dataDirectory, backupDir string, key []byte) error {
	const op = "store.restore"
	m, err := readBackup(ctx, backupDir)
	if err != nil {
		return err
	}
	if err := emptyDir(op, dataDirectory); err != nil {
		return err
	}
	o, err := Options{Dir: dataDirectory, Shards: len(m.Shards), EncryptionKey: key}.withDefaults()
	if err != nil {
		return err
	}
	size := int64(0)
	for _, x := range m.Shards {
		size += x.Bytes
	}
	free, err := diskFree(dataDirectory)
	if err != nil {
		return backupFault(op, dataDirectory, err)
	}
	if need := uint64(size)*writeTimes + 4*uint64(o.MemTableBytes); free < need {
		return fault.New(fault.NoSpace, op, dataDirectory, "%s free, %s needed", mib(free), mib(need)).WithRemedy("restore to a larger disk")
	}
	d := &dataDir{path: dataDirectory}
	if err := d.takeLock(); err != nil {
		return err
	}
	defer d.close()
	if err := restoreRows(ctx, d.store(), o, m, backupDir); err != nil {
		return backupFault(op, dataDirectory, err)
	}
	return d.create(o, false) // last: without it the directory is refused
}

// readBackup reads backup.json and verifies every stream.
func readBackup(ctx context.Context, dir string) (backupManifest, error) {
	const op = "store.restore"
	var m backupManifest
	path := filepath.Join(dir, backupName)
	b, err := os.ReadFile(path)
	if err != nil {
		return m, fault.New(fault.NotFound, op, path, "%w", err).WithRemedy("the folder is no backup, or its backup did not finish")
	}
	if err := readJSON(b, &m); err != nil {
		return m, fault.New(fault.Corrupt, op, path, "%w", err).WithRemedy("use another backup")
	}
	if m.Format != backupFormat || len(m.Shards) == 0 || len(m.Shards) > shardsMax {
		return m, fault.New(fault.Invalid, op, path, "format %d with %d shards; this program reads format %d", m.Format, len(m.Shards), backupFormat)
	}
	for shard, want := range m.Shards {
		got, err := scanStream(ctx, filepath.Join(dir, want.File), func(_, _ []byte) error { return nil })
		if err == nil && (got != want.streamInfo || got.Shard != shard) {
			err = fmt.Errorf("the stream is another one than in %s", backupName)
		}
		if err != nil {
			kind := fault.Corrupt
			if ctx.Err() != nil {
				kind = fault.Timeout
			}
			return m, fault.New(kind, op, filepath.Join(dir, want.File), "%w", err).WithRemedy("use another backup")
		}
	}
	return m, nil
}

func scanStream(ctx context.Context, path string, row func(key, value []byte) error) (streamInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return streamInfo{}, err
	}
	defer f.Close()
	return readStream(f, ctx.Done(), row)
}

// restoreRows loads the streams into a new database.
func restoreRows(ctx context.Context, dir string, o Options, m backupManifest, from string) (err error) {
	db, err := badger.OpenManaged(badgerOptions(dir, o))
	if err != nil {
		return err
	}
	c, b := newCommitter(db, 1), trimBuilders(db)
	defer func() {
		c.close()
		b.close()
		err = errors.Join(err, db.Close())
	}()
	for shard, x := range m.Shards {
		f, err := os.Open(filepath.Join(from, x.File))
		if err != nil {
			return err
		}
		info, err := load(c, f, dataPrefix(nil, shard, 1), ctx.Done())
		f.Close()
		if err != nil {
			return err
		}
		var b batch
		b.set(metaKey(shard), meta{generation: 1, epoch: info.Epoch + epochLeap}.encode()) // applied 0: a new log
		if err := c.commit(&b); err != nil {
			return err
		}
	}
	return nil
}

// summedJSON is a JSON value with a checksum of its compact form.
type summedJSON struct {
	Value json.RawMessage `json:"value"`
	Sum   string          `json:"crc32c"`
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		b, err = json.MarshalIndent(summedJSON{Value: b, Sum: jsonSum(b)}, "", "  ")
	}
	if err != nil {
		return err
	}
	return ReplaceFile(path, append(b, '\n'))
}

func readJSON(b []byte, v any) error {
	var s summedJSON
	if json.Unmarshal(b, &s) != nil || s.Sum != jsonSum(s.Value) {
		return errors.New("does not have its checksum")
	}
	return json.Unmarshal(s.Value, v)
}
