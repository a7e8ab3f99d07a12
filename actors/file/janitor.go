package file

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/blob"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
)

const (
	sweepsMax = 4             // sweepings at once on a node, so that requests find room beside them
	saidFor   = time.Minute   // how long an actor is told that it is done; its timer asks again
	sweepsFor = 6 * time.Hour // one sweeping; the next one goes on
)

// DefaultStaleAfter is how long an upload may be without progress before it is deleted.
const DefaultStaleAfter = time.Hour

// Janitor takes bytes away for the file and upload actors that this node owns. An actor asks for it again until it hears that
// it is done, so that a janitor may forget everything.
type Janitor struct {
	staleAfter time.Duration
	log        *slog.Logger
	counts     func() bool
	ctx        context.Context
	cancel     context.CancelFunc
	wg         sync.WaitGroup
	room       chan struct{} // sweepsMax tokens

	mu      sync.Mutex
	busy    map[persistence.Key]struct{}
	stopped bool
}

// NewJanitor returns one that takes a file for given up after staleAfter without progress (0: DefaultStaleAfter).
func NewJanitor(staleAfter time.Duration, log *slog.Logger) *Janitor {
	if staleAfter <= 0 {
		staleAfter = DefaultStaleAfter
	}
	j := &Janitor{staleAfter: staleAfter, log: log, room: make(chan struct{}, sweepsMax), busy: map[persistence.Key]struct{}{}}
	j.ctx, j.cancel = context.WithCancel(context.Background())
	return j
}

// Counts says when what files keep is counted: where all nodes do, so that whoever deletes one takes its bytes off. Without it they do. It is to be
// called before the janitor is used.
func (j *Janitor) Counts(when func() bool) { j.counts = when }

// kept is what is counted of so many bytes.
func (j *Janitor) kept(bytes int64) int64 {
	if j.counts != nil && !j.counts() {
		return 0
	}
	return bytes
}

// Kinds returns the kinds of files and uploads, for the node's actors.
func (j *Janitor) Kinds() []cluster.Kind {
	return []cluster.Kind{files(j).Register(), uploads(j).Register()}
}

// Stop ends what is under way; another owner, or the next start, goes on with it. It is safe to call twice.
func (j *Janitor) Stop() {
	j.mu.Lock()
	j.stopped = true
	j.mu.Unlock()
	j.cancel()
	j.wg.Wait()
}

// sweep runs work once at a time for an actor, and tells it done when that succeeds. It does not wait.
func (j *Janitor) sweep(router *cluster.Router, key persistence.Key, done any, work func(context.Context, *blob.Store) error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, busy := j.busy[key]; busy || j.stopped {
		return
	}
	j.busy[key] = struct{}{}
	j.wg.Go(func() {
		defer func() {
			j.mu.Lock()
			defer j.mu.Unlock()
			delete(j.busy, key)
		}()
		select {
		case j.room <- struct{}{}:
			defer func() { <-j.room }()
		case <-j.ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(j.ctx, sweepsFor)
		defer cancel()
		err := work(ctx, blob.New(router))
		if err == nil {
			var end context.CancelFunc
			ctx, end = context.WithTimeout(ctx, saidFor)
			defer end()
			_, err = router.Ask(ctx, key, done)
		}
		if err != nil && j.ctx.Err() == nil {
			j.log.Warn("a file's bytes cannot be taken away yet; it is tried again", "file", key.String(), "err", err)
		}
	})
}
