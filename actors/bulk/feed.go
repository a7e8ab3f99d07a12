package bulk

import (
	"context"
	"errors"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	chunkLines  = 512     // made tasks together
	chunkBytes  = 1 << 20 // a line may be larger
	chunksMax   = 4       // being made durable at once
	submitRetry = 50 * time.Millisecond
	submitMax   = 5 * time.Second // between tries to create lines on a node or cluster that cannot now
)

// flow is what the feeder of a batch and who counts its ends share.
type flow struct {
	mu       sync.Mutex
	line     uint64 // created, all before it
	offset   int64
	next     uint64 // being created, all before it
	tried    uint64 // what came after may be a task, and nobody was told
	reach    uint64 // journaled: no line from it on is created
	paused   bool
	starved  bool // the feeder waits for reach
	priority *task.Priority
	room     chan struct{} // something of it has changed; holds one
}

func newFlow(s *State) *flow {
	f := &flow{line: s.Line, offset: s.Offset, next: s.Line, tried: s.Reach, room: make(chan struct{}, 1)}
	f.update(s)
	return f
}

// update takes in what is journaled.
func (f *flow) update(s *State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reach, f.paused, f.priority = s.Reach, s.Paused, s.Priority
	kick(f.room)
}

// at returns how far lines were created, and maybe created, and whether the feeder waits for reach.
func (f *flow) at() (line uint64, offset int64, tried uint64, starved bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.line, f.offset, max(f.line, f.tried), f.starved
}

// wait returns how many lines may be created now, at least one, and with which priority.
func (f *flow) wait(ctx context.Context) (n int, priority *task.Priority, err error) {
	for {
		f.mu.Lock()
		n, priority = 0, f.priority
		if f.reach > f.next && !f.paused {
			n = int(min(f.reach-f.next, chunkLines))
			f.tried = max(f.tried, f.next+uint64(n))
		}
		f.starved = n == 0 && !f.paused
		f.mu.Unlock()
		if n > 0 {
			return n, priority, ctx.Err()
		}
		select {
		case <-f.room:
		case <-ctx.Done():
			return 0, nil, context.Cause(ctx)
		}
	}
}

// sent says that so many lines are being created, and landed that they are.
func (f *flow) sent(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next += uint64(n)
}

func (f *flow) landed(n int, offset int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.line += uint64(n)
	f.offset = offset
}

// flight is a chunk that is being created.
type flight struct {
	lines  int
	offset int64 // behind it
	done   chan error
}

// feed makes lines tasks up to end, as far as it may at each time, some chunks side by side. When it returns nothing is under way.
func (d *driver) feed(ctx context.Context, s *State, f *flow, end uint64) error {
	line, offset, _, _ := f.at()
	if line >= end {
		return nil
	}
	r, _, err := d.Files.Open(ctx, s.Header.InputFile, offset)
	if err != nil {
		return err
	}
	defer r.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	flights := make(chan flight, chunksMax-1) // and the one that is waited for
	wg.Go(func() {
		for x := range flights { // in order: a line is created when all before it are
			if err := <-x.done; err != nil {
				cancel(err)
				for range flights { // nobody lands after one that did not
				}
				return
			}
			f.landed(x.lines, x.offset)
		}
	})
	err = d.send(ctx, s, f, newLines(r, offset, line, LineMax), end, flights, &wg)
	close(flights)
	wg.Wait()
	if failed := context.Cause(ctx); failed != nil {
		return failed
	}
	return err
}

func (d *driver) send(ctx context.Context, s *State, f *flow, in *lines, end uint64, flights chan<- flight, wg *sync.WaitGroup) error {
	for in.number < end {
		n, priority, err := f.wait(ctx)
		if err != nil {
			return err
		}
		chunk, err := d.read(in, s, n, priority)
		if err != nil {
			return err
		}
		f.sent(len(chunk))
		x := flight{len(chunk), in.offset, make(chan error, 1)}
		wg.Go(func() { x.done <- d.create(ctx, chunk) })
		select {
		case flights <- x:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// read takes the next lines of the input, at most n, and makes messages of them that create their tasks.
func (d *driver) read(in *lines, s *State, n int, priority *task.Priority) (chunk []*task.Submit, err error) {
	for size := 0; len(chunk) < n && size < chunkBytes; {
		number := in.number
		b, err := in.next()
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, errLineLong) {
				err = fault.New(fault.Corrupt, "bulk.feed", s.Header.InputFile, "line %d is not what it was: %w", number+1, err)
			}
			return nil, err
		}
		size += len(b)
		m, err := d.submit(b, number, s, priority)
		if err != nil {
			return nil, err
		}
		chunk = append(chunk, m)
	}
	return chunk, nil
}

// submit makes a line the message that creates its task. It is pure: the same line is the same task.
func (d *driver) submit(b []byte, number uint64, s *State, priority *task.Priority) (*task.Submit, error) {
	l, p := decode(b, s.Header.Endpoint)
	if p != nil {
		return nil, fault.New(fault.Corrupt, "bulk.feed", s.Header.InputFile, "line %d is not what it was: %s", number+1, p.Message)
	}
	spec, err := l.spec(tenant.Bare(LineID(d.id, number)))
	if err != nil {
		return nil, err
	}
	if spec.Priority == nil {
		spec.Priority = priority
	}
	deadline := s.ExpiresAt.UTC().Truncate(time.Microsecond)
	if spec.Deadline == nil || spec.Deadline.After(deadline) {
		spec.Deadline = &deadline
	}
	if spec.NotBefore != nil && !spec.NotBefore.Before(*spec.Deadline) { // it will expire, and not run
		late := spec.Deadline.Add(-time.Millisecond)
		spec.NotBefore = &late
	}
	if len(spec.Metadata) < task.MetadataMax {
		spec.Metadata = maps.Clone(spec.Metadata)
		if spec.Metadata == nil {
			spec.Metadata = map[string]string{}
		}
		spec.Metadata["batch_id"] = tenant.Bare(d.id)
	}
	return &task.Submit{Spec: spec, Model: l.model, Line: &task.Line{Batch: d.id, Number: number, CustomID: l.CustomID, Model: l.model}}, nil
}

// create makes lines tasks and returns when they are durable, all of them. What cannot be done now is tried until ctx ends.
func (d *driver) create(ctx context.Context, chunk []*task.Submit) error {
	for wait := submitRetry; len(chunk) > 0; wait = min(2*wait, submitMax) {
		var open []*task.Submit
		var last error
		for i, err := range d.Submit(ctx, chunk) {
			switch kind := fault.KindOf(err); {
			case err == nil:
			case kind.Retryable():
				open, last = append(open, chunk[i]), err
			case kind == fault.Conflict:
				if err := d.mine(ctx, chunk[i], err); err != nil {
					return err
				}
			default:
				return err
			}
		}
		if chunk = open; len(chunk) == 0 {
			break
		}
		d.Log.Info("lines of a batch cannot be created now", "batch", d.id, "lines", len(chunk), "err", last)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
	return nil
}

// mine returns nil when the task that has a line's id is the line's, though not with the same words: the priority of the batch was
// changed between a crash and now, say.
func (d *driver) mine(ctx context.Context, m *task.Submit, conflict error) error {
	r, seq, err := d.Tasks.Load(cluster.Reader{Context: ctx, Router: d.Router}, tenant.Beside(d.id, m.Spec.ID))
	if err == nil && (seq == 0 || r.Line == nil || *r.Line != *m.Line) {
		err = conflict
	}
	return err
}
