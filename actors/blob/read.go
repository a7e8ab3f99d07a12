package blob

import (
	"context"
	"io"
	"sync"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Open reads blobs one behind the other, from an offset into the whole. It fetches some chunks ahead. A chunk that is missing or
// damaged is Corrupt, one that was deleted meanwhile NotFound. Close ends it; so does ctx.
func (s *Store) Open(ctx context.Context, refs []Ref, offset int64) io.ReadCloser {
	ctx, cancel := context.WithCancelCause(ctx)
	r := &reader{ctx: ctx, cancel: cancel, ahead: make(chan chan piece, inFlight-1)}
	r.wg.Go(func() { s.fetchAll(ctx, r, refs, max(0, offset)) })
	return r
}

// reader hands out chunks in order. Its fields but ahead belong to who reads.
type reader struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	ahead  chan chan piece // chunks on their way, in order; closed behind the last one
	left   []byte          // of the chunk in hand
	err    error           // once set, for ever
}

// piece is one chunk, or why there is none.
type piece struct {
	body []byte
	err  error
}

// Read gives what is there of the chunk in hand.
func (r *reader) Read(b []byte) (int, error) {
	for len(r.left) == 0 && r.err == nil {
		select {
		case next, ok := <-r.ahead:
			if !ok {
				r.err = io.EOF
				if r.ctx.Err() != nil { // it stopped fetching for that
					r.err = wrap("read", context.Cause(r.ctx))
				}
				continue
			}
			p := <-next
			r.left, r.err = p.body, p.err
		case <-r.ctx.Done():
			r.err = wrap("read", context.Cause(r.ctx))
		}
	}
	if len(r.left) == 0 {
		return 0, r.err
	}
	n := copy(b, r.left)
	r.left = r.left[n:]
	return n, nil
}

// Close is safe to call twice, and returns when nothing is under way.
func (r *reader) Close() error {
	r.cancel(fault.New(fault.Unavailable, "blob.read", "", "it is closed"))
	r.wg.Wait()
	return nil
}

// fetchAll keeps the queue of chunks filled.
func (s *Store) fetchAll(ctx context.Context, r *reader, refs []Ref, offset int64) {
	defer close(r.ahead)
	for _, ref := range refs {
		if offset >= ref.Bytes {
			offset -= ref.Bytes
			continue
		}
		for n := offset / ChunkBytes; n < ref.chunks(); n++ {
			skip := max(0, offset-n*ChunkBytes)
			c := make(chan piece, 1)
			select {
			case r.ahead <- c:
			case <-ctx.Done():
				return
			}
			r.wg.Go(func() {
				body, err := s.fetch(ctx, ref, n)
				if err != nil {
					c <- piece{err: wrap("read", err)}
					return
				}
				c <- piece{body: body[skip:]}
			})
		}
		offset = 0
	}
}

// fetch reads one chunk. A chunk never changes, so any owner's view will do, unless it is one without the chunk: then
// only the newest counts.
func (s *Store) fetch(ctx context.Context, ref Ref, n int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, chunkFor)
	defer cancel()
	key := chunkKey(ref.ID, n)
	logs, err := s.router.ReadAll(ctx, s.router.ShardOf(key), []persistence.Key{key})
	if err != nil {
		return nil, err
	}
	l := logs[0]
	if l.Last == 0 {
		if l, err = s.router.Read(ctx, key, 0); err != nil {
			return nil, err
		}
	}
	return unseal(ref, n, l)
}
