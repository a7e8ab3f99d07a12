package node

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

const goneEvery = time.Second // between two looks at whether the data directory is still there

// ErrDataGone is why a node ends whose data directory was removed: there is nothing left to stop in order, and what it would write
// now is lost.
var ErrDataGone = errors.New("the data directory is gone")

// dirWatch ends a node whose directory was removed or unmounted under it. Its open files go on to work, so nothing else notices.
type dirWatch struct {
	stop func() // safe to call twice
}

func watchDir(dir string, look <-chan time.Time, gone func(error)) *dirWatch {
	done := make(chan struct{})
	first, _ := os.Stat(dir) // nil: it is gone already, and the first look says so
	var once sync.Once
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-look:
			case <-done:
				return
			}
			now, err := os.Stat(dir)
			if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(first, now) { // below a mount there is another folder
				gone(fault.New(fault.Unavailable, "node", dir, "%w: it was removed or unmounted while the node ran", ErrDataGone).
					WithRemedy("put it back, or start the node with an empty one: a node of a cluster is filled again by the others"))
				return
			}
		}
	})
	return &dirWatch{stop: func() { once.Do(func() { close(done) }); wg.Wait() }}
}
