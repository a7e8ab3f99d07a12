package persistence

import (
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// reserve keeps some of the disk free. Badger maps its files: on a full disk the kernel
// kills the process with SIGBUS in the middle of a write, and it can not be opened again before
// there is room. So writes are refused early, and reads go on.
//
// Between two looks at the disk it counts what is being written. Free bytes are less what
// Badger has mapped but not filled: memtable logs are sparse files of twice
// their size, and each byte appended is written up to three times (Raft log, memtable log,
// table) before compaction frees any of it.
type reserve struct {
	path   string
	keep   uint64 // bytes that stay free
	log    *slog.Logger
	now    func() time.Time
	statfs func(path string) (free uint64, err error)

	mu       sync.Mutex
	looked   time.Time // monotonic
	free     uint64    // at looked
	written  uint64    // since then
	refusing bool
}

const (
	lookEvery  = 50 * time.Millisecond
	writeTimes = 3 // a byte appended takes this many on the disk, for a while
)

func newReserve(path string, keep uint64, log *slog.Logger, now func() time.Time) (*reserve, error) {
	r := &reserve{path: path, keep: keep, log: log, now: now, statfs: diskFree}
	if _, err := r.look(); err != nil {
		return nil, err
	}
	return r, nil
}

func diskFree(path string) (uint64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}

// admit asks for what one Append writes: bytes of updates and of creates, which make journals.
// refused is nil, or why the creates alone must stay out: what exists may go on, and end,
// where nothing new begins. err is why nothing may be written.
func (r *reserve) admit(updates, creates int) (refused, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now().Sub(r.looked) >= lookEvery {
		if _, err := r.lookLocked(); err != nil {
			return nil, &fault.Error{Op: "reserve.admit", Key: r.path, Kind: fault.Unavailable, Err: err}
		}
	}
	if creates > 0 {
		if refused = r.fitsLocked(updates+creates, r.keep); refused != nil {
			creates = 0
		}
	}
	if updates > 0 {
		if err := r.fitsLocked(updates+creates, r.keep/2); err != nil {
			return nil, err
		}
	}
	r.written += uint64(updates+creates) * writeTimes
	return refused, nil
}

// room tells whether bytes from a peer may be written: a replica takes part in what others began
// down to a quarter of the reserve, and then falls behind rather than fill the disk.
func (r *reserve) room(bytes int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now().Sub(r.looked) >= lookEvery {
		if _, err := r.lookLocked(); err != nil {
			return false
		}
	}
	if r.fitsLocked(bytes, r.keep/4) != nil {
		return false
	}
	r.written += uint64(bytes) * writeTimes
	return true
}

// fitsLocked tells whether need bytes stay free after size more.
func (r *reserve) fitsLocked(size int, need uint64) error {
	free := r.free - min(r.free, r.written+uint64(size)*writeTimes)
	if free >= need {
		return nil
	}
	return fault.New(fault.NoSpace, "reserve.admit", r.path, "%s free, %s are kept free", mib(r.free), mib(need)).
		WithRemedy("free %s on the disk of %s; reading goes on, and writing resumes by itself", mib(need-free), r.path)
}

func mib(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// look asks the disk now.
func (r *reserve) look() (Space, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lookLocked()
}

func (r *reserve) lookLocked() (Space, error) {
	free, err := r.statfs(r.path)
	if err != nil {
		return Space{}, err
	}
	r.looked, r.free, r.written = r.now(), free, 0
	s := Space{Free: free, Reserve: r.keep, Refusing: free < r.keep}
	if s.Refusing != r.refusing {
		r.refusing = s.Refusing
		if s.Refusing {
			r.log.Warn("disk reserve reached: no new journals", "path", r.path, "free", free, "reserve", r.keep)
		} else {
			r.log.Info("disk reserve restored", "path", r.path, "free", free, "reserve", r.keep)
		}
	}
	return s, nil
}
