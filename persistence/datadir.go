package persistence

import (
	"bytes"
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/uuid"
	"github.com/lni/dragonboat/v4/raftpb"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// A data directory holds
//
//	LOCK       the process that has it open
//	meta.json  what it is: identity
//	raft/      dragonboat's log of all groups
//	store/     Badger's files
const (
	lockName  = "LOCK"
	metaName  = "meta.json"
	raftName  = "raft"
	storeName = "store"
)

// dataDir is an open data directory.
type dataDir struct {
	path string
	lock *os.File
	identity
}

func (d *dataDir) raft() string  { return filepath.Join(d.path, raftName) }
func (d *dataDir) store() string { return filepath.Join(d.path, storeName) }

// openDataDir locks the directory and reads or makes its identity.
func openDataDir(o Options) (*dataDir, error) {
	d := &dataDir{path: o.Dir}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, dirFault(o.Dir, err)
	}
	if err := d.takeLock(); err != nil {
		return nil, err
	}
	if err := d.identify(o); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func dirFault(path string, err error) error {
	kind := fault.Unavailable
	if errors.Is(err, syscall.ENOSPC) {
		kind = fault.NoSpace
	}
	return (&fault.Error{Op: "store.open", Key: path, Kind: kind, Err: err}).WithRemedy("check the directory, its permissions and its disk")
}

// takeLock keeps a second process out; the lock goes with the process, however it ends.
func (d *dataDir) takeLock() error {
	path := filepath.Join(d.path, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return dirFault(path, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path)
		f.Close()
		return fault.New(fault.Unavailable, "store.open", d.path, "process %s has this data directory open",
			strings.TrimSpace(string(holder))).WithRemedy("stop that process, or give this one a data directory of its own")
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, fmt.Sprintln(os.Getpid()))); err != nil {
		f.Close()
		return dirFault(path, err)
	}
	d.lock = f
	return nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

func (d *dataDir) close() { d.lock.Close() }

// identify reads meta.json, or makes it in an empty directory.
func (d *dataDir) identify(o Options) error {
	path := filepath.Join(d.path, metaName)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		for _, name := range []string{raftName, storeName} {
			if _, err := os.Stat(filepath.Join(d.path, name)); err == nil {
				return fault.New(fault.Corrupt, "store.open", path, "is missing beside %s/", name).
					WithRemedy("it was lost, or a restore did not finish: restore a backup into a new directory")
			}
		}
		return d.create(o, true)
	}
	if err != nil {
		return dirFault(path, err)
	}
	if err := readJSON(b, &d.identity); err != nil {
		return fault.New(fault.Corrupt, "store.open", path, "%w", err).WithRemedy(remedyCorrupt)
	}
	if err := d.check(path); err != nil {
		return err
	}
	if o.Shards != 0 && o.Shards != d.Shards {
		return fault.New(fault.Invalid, "store.open", path, "the directory has %d shards, %d were asked for", d.Shards, o.Shards).
			WithRemedy("the number is fixed at creation: leave the setting away, or start a new data directory")
	}
	adopted := d.Cluster != o.Cluster
	if err := d.join(o); err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return dirFault(d.path, err)
	}
	if d.Complete {
		must := []string{filepath.Join(d.store(), "MANIFEST")}
		if d.Host == host {
			must = append(must, d.logDir(host))
		}
		for _, p := range must {
			if _, err := os.Stat(p); err != nil {
				return fault.New(fault.Corrupt, "store.open", p, "%w", err).WithRemedy(remedyCorrupt)
			}
		}
	}
	if adopted {
		if err := d.save(); err != nil {
			return err
		}
	}
	return d.rename(host)
}

// create writes the identity of a new directory. whole tells whether its shards are empty.
func (d *dataDir) create(o Options, whole bool) error {
	host, err := os.Hostname()
	if err != nil {
		return dirFault(d.path, err)
	}
	d.identity = identity{Shards: o.Shards, Deployment: deployment, Node: uuid.NewString(), Cluster: o.Cluster,
		Encrypted: len(o.EncryptionKey) > 0, Host: host, Created: o.Now().UTC()}
	if d.Shards == 0 {
		d.Shards = shardsDefault
	}
	d.Replicas = make([]localReplica, d.Shards)
	if o.Network == nil {
		d.found()
		d.Whole = whole
	}
	return d.save()
}

// logDir is where dragonboat keeps the log of the host's name.
func (d *dataDir) logDir(host string) string {
	return filepath.Join(d.raft(), host, fmt.Sprintf("%020d", d.Deployment), "logdb-0")
}

func jsonSum(b []byte) string {
	var compact bytes.Buffer
	if json.Compact(&compact, b) != nil {
		return "-"
	}
	return fmt.Sprintf("%08x", crc32.Checksum(compact.Bytes(), castagnoli))
}

// save writes meta.json in one step.
func (d *dataDir) save() error {
	if err := writeJSON(filepath.Join(d.path, metaName), d.stored()); err != nil {
		return dirFault(d.path, err)
	}
	return nil
}

// ReplaceFile replaces a file so that a crash leaves the old or the new one, on disk, and so does a crash right after
// it returned. For the small files that a node keeps in its data directory.
func ReplaceFile(path string, b []byte) error { return replaceFile(path, b, 0o644) }

// ReplaceSecretFile is ReplaceFile for what only this user may read.
func ReplaceSecretFile(path string, b []byte) error { return replaceFile(path, b, 0o600) }

func replaceFile(path string, b []byte, mode os.FileMode) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// rename takes the directory to a machine of another name: dragonboat files its log under
// the host's name and refuses another one, and a container gets a new name at every start.
// Each step may be repeated after a crash.
func (d *dataDir) rename(host string) error {
	if d.Host == host {
		return nil
	}
	flag := filepath.Join(d.raft(), "dragonboat.ds")
	if _, err := os.Stat(flag); err != nil && !d.Complete { // dragonboat was never here
		d.Host = host
		return d.save()
	}
	var s raftpb.RaftDataStatus
	if err := recovered(func() error { return readFlag(flag, &s) }); err != nil {
		return err
	}
	s.Hostname = host
	data, err := s.Marshal()
	if err != nil {
		return dirFault(flag, err)
	}
	if err := ReplaceFile(flag, append(flagSum(data), data...)); err != nil {
		return dirFault(flag, err)
	}
	from, to := filepath.Join(d.raft(), d.Host), filepath.Join(d.raft(), host)
	if _, err := os.Stat(from); err == nil {
		if err := errors.Join(os.Rename(from, to), syncDir(d.raft())); err != nil {
			return dirFault(to, err)
		}
	}
	d.Host = host
	return d.save()
}

// readFlag reads one of dragonboat's flag files: half an MD5 sum, then protobuf.
func readFlag(path string, m interface{ Unmarshal([]byte) error }) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fault.New(fault.Corrupt, "store.open", path, "%w", err).WithRemedy(remedyCorrupt)
	}
	if len(b) < 8 || !bytes.Equal(b[:8], flagSum(b[8:])) || m != nil && m.Unmarshal(b[8:]) != nil {
		return fault.New(fault.Corrupt, "store.open", path, "does not have its checksum").WithRemedy(remedyCorrupt)
	}
	return nil
}

func flagSum(b []byte) []byte {
	h := md5.Sum(b)
	return h[8:]
}
