package bulk

import (
	"bytes"

	"github.com/open-autoglm/autoglm/actors/task"
)

// Outcomes of lines, for metrics.
const (
	LineCompleted = "completed"
	LineFailed    = "failed"
	LineNever     = "never_run" // of a batch that was cancelled or expired
)

// Counted counts what a report said, once it is journaled.
func (b *Batches) Counted(r Report, s State) {
	b.mu.Lock()
	lines, ended := b.o.Counted, b.o.Ended
	b.mu.Unlock()
	f := r.Fact
	if lines != nil && f.Event == Progressed && f.Progress != nil && r.From != nil {
		lines(LineCompleted, f.Progress.Completed-r.From.Completed)
		lines(LineFailed, f.Progress.Failed-r.From.Failed)
	}
	if !s.Phase.Final() {
		return
	}
	if lines != nil {
		lines(LineNever, s.Rest.Lines)
	}
	if ended != nil {
		ended(s.Phase.Status())
	}
}

// Unfinished walks the batches of a shard that are not final, of all tenants, until f returns false.
func Unfinished(scan task.Scan, f func(id string) bool) error {
	return scan(IndexInput, nil, nil, func(key, _ []byte) bool {
		_, id, ok := bytes.Cut(key, []byte{0})
		return !ok || f(string(id))
	})
}
