package clock

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Env names the file with the offset. No file is no offset.
const Env = "AUTOGLM_CHAOS_CLOCK"

const lookEvery = 20 * time.Millisecond

// Set writes an offset of whole seconds for those who follow the file.
func Set(path string, d time.Duration) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(d.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// Follow returns a wall clock that is off by what the file says, soon after it says so. stop ends the looking.
func Follow(path string) (now func() time.Time, stop func(), err error) {
	if !works() {
		return nil, nil, fault.New(fault.Refused, "clock.follow", path, "a time of this Go release is made otherwise: its wall clock cannot be shifted").
			WithRemedy("unset " + Env + ", and write package clock anew")
	}
	var off atomic.Int64 // seconds
	read := func() error {
		d, err := offset(path)
		if err == nil {
			off.Store(int64(d / time.Second))
		}
		return err
	}
	if err := read(); err != nil {
		return nil, nil, err
	}
	done := make(chan struct{})
	var looking sync.WaitGroup
	looking.Go(func() {
		t := time.NewTicker(lookEvery)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				_ = read() // what cannot be read leaves the clock as it is
			}
		}
	})
	var once sync.Once
	stop = func() { once.Do(func() { close(done) }); looking.Wait() }
	return func() time.Time { return shift(time.Now(), off.Load()) }, stop, nil
}

func offset(path string) (time.Duration, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fault.New(fault.Invalid, "clock.follow", path, "%w", err)
	}
	d, err := time.ParseDuration(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fault.New(fault.Invalid, "clock.follow", path, "%w", err).WithRemedy("write an offset like -5m0s into it")
	}
	return d, nil
}

// A time with a monotonic reading has its wall clock in its first word: a bit that says so, 33 bits of seconds since 1885, 30
// bits of nanoseconds. Nothing that package time exports changes one of the two clocks alone.
const (
	secondsAt   = 30
	secondsBits = 33
)

// shift changes the wall clock of t by so many seconds, and not its monotonic one.
func shift(t time.Time, seconds int64) time.Time {
	wall := (*uint64)(unsafe.Pointer(&t))
	const mask = (1<<secondsBits - 1) << secondsAt
	*wall = *wall&^mask | (*wall+uint64(seconds)<<secondsAt)&mask
	return t
}

// works tells whether shift does in this release of Go what it says.
func works() bool {
	t := time.Now()
	for _, s := range []int64{-600, 600} {
		x := shift(t, s)
		if x.Sub(t) != 0 || x.UnixNano()-t.UnixNano() != s*int64(time.Second) {
			return false
		}
	}
	return true
}
