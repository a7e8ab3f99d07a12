package persisttest

import (
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/persistence"
)

// Fail is a Journal whose Append number n (1, 2, …) is refused when Before returns an error, or
// loses its answer when After does. Both may be nil.
type Fail struct {
	persistence.Journal
	Before, After func(n int) error

	mu sync.Mutex
	n  int
}

// Append passes the call on, unless it is to fail.
func (f *Fail) Append(epoch uint64, writes []persistence.Write, timeout time.Duration, done func([]persistence.Outcome, error)) {
	f.mu.Lock()
	f.n++
	n := f.n
	f.mu.Unlock()
	if f.Before != nil {
		if err := f.Before(n); err != nil {
			done(nil, err)
			return
		}
	}
	f.Journal.Append(epoch, writes, timeout, func(out []persistence.Outcome, err error) {
		if f.After != nil && err == nil {
			if err = f.After(n); err != nil {
				out = nil
			}
		}
		done(out, err)
	})
}

// Appends returns how many Appends were asked for.
func (f *Fail) Appends() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}
