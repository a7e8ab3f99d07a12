package blob

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	chunkFor = time.Minute            // a chunk is written or read for so long, over all tries: a shard has a new owner within seconds
	busyWait = 100 * time.Millisecond // before a try again after Overloaded
)

// Write makes the bytes of r the blob id, at most max of them (0: no limit, more: TooLarge), and gives them to hashes in order.
// When it returns without an error all of them are durable. After an error some chunks may be there, and some may still
// come: Sweep takes care of both. An id is used once.
func (s *Store) Write(ctx context.Context, id string, r io.Reader, max int64, hashes ...io.Writer) (Ref, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	room := make(chan struct{}, inFlight)
	var wg sync.WaitGroup
	defer wg.Wait() // before the cancel above: nothing of ours is under way when we return
	ref := Ref{ID: id}
	for n := int64(0); ; n++ {
		// Not reused: a try that was given up may still hold the chunk before.
		row := make([]byte, sumBytes+ChunkBytes)
		got, err := fill(r, row[sumBytes:])
		if err != nil && err != io.EOF {
			cancel(err)
			return ref, wrap("write", err)
		}
		ended := err == io.EOF
		row = row[:sumBytes+got]
		if ref.Bytes += int64(got); max > 0 && ref.Bytes > max {
			err := fault.New(fault.TooLarge, "blob.write", id, "more than %d bytes", max)
			cancel(err)
			return ref, err
		}
		if got > 0 {
			for _, h := range hashes {
				_, _ = h.Write(row[sumBytes:]) // a hash takes everything
			}
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return ref, wrap("write", context.Cause(ctx))
			}
			w := persistence.Write{Key: chunkKey(id, n), Data: seal(row)}
			wg.Go(func() {
				defer func() { <-room }()
				if err := s.create(ctx, w); err != nil {
					cancel(err)
				}
			})
		}
		if ended {
			break
		}
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ref, wrap("write", context.Cause(ctx))
	}
	return ref, nil
}

// create writes one chunk, patiently: one that is refused costs the whole blob.
func (s *Store) create(ctx context.Context, w persistence.Write) error {
	ctx, cancel := context.WithTimeout(ctx, chunkFor)
	defer cancel()
	for {
		err := s.router.Create(ctx, []persistence.Write{w})[0]
		if fault.KindOf(err) != fault.Overloaded {
			return err
		}
		t := time.NewTimer(busyWait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
}

// fill reads until b is full or r ends. Unlike io.ReadFull it tells an end from a reader that says io.ErrUnexpectedEOF itself,
// as the one of a multipart body does when the client went away: that blob is not whole.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var got int
		got, err = r.Read(b[n:])
		n += got
	}
	return n, err
}
