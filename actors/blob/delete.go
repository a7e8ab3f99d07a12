package blob

import (
	"context"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Delete empties the chunks of a whole blob. It may be called again after an error, and after it is done.
func (s *Store) Delete(ctx context.Context, ref Ref) error {
	for n := int64(0); n < ref.chunks(); n += buryBatch {
		var writes []persistence.Write
		for i := n; i < min(n+buryBatch, ref.chunks()); i++ {
			writes = append(writes, buryWrite(ref.ID, i))
		}
		if err := s.bury(ctx, writes); err != nil {
			return wrap("delete", err)
		}
	}
	return nil
}

// bury empties chunks. One that is not there has nothing to lose.
func (s *Store) bury(ctx context.Context, writes []persistence.Write) error {
	ctx, cancel := context.WithTimeout(ctx, chunkFor)
	defer cancel()
	for _, err := range s.router.Append(ctx, writes) {
		if err != nil && fault.KindOf(err) != fault.Conflict {
			return err
		}
	}
	return nil
}

// Sweep empties a blob of which nobody knows how long it became: its writer failed, or its node died. It goes forward and marks
// each chunk that it does not find, so that a write which is late is refused. A writer has at most inFlight chunks on
// their way, so that behind so many that are missing there is none, nor ever will be.
func (s *Store) Sweep(ctx context.Context, id string) error {
	for n := int64(0); ; n += buryBatch {
		found, err := s.sweep(ctx, id, n)
		if err != nil {
			return wrap("sweep", err)
		}
		if !found {
			return nil
		}
	}
}

// sweep empties one batch of chunks, and tells whether any of them was there.
func (s *Store) sweep(ctx context.Context, id string, from int64) (found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, chunkFor)
	defer cancel()
	marks := make([]persistence.Write, buryBatch)
	for i := range marks {
		marks[i] = noneWrite(id, from+int64(i))
	}
	var there []persistence.Write
	for i, err := range s.router.Create(ctx, marks) {
		switch fault.KindOf(err) {
		case fault.Conflict:
			there = append(there, buryWrite(id, from+int64(i)))
		default:
			if err != nil {
				return false, err
			}
		}
	}
	if len(there) == 0 {
		return false, nil
	}
	return true, s.bury(ctx, there)
}
