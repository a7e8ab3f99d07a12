package task

import (
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// WorkMax is the largest work that goes to another node, in bytes of JSON. A task can outgrow it only by many
// long answers of its steps; then an engine on its owner's node must run it.
const WorkMax = persistence.WriteMax

// Room bounds the works that one answer carries: tasks are claimed while there is some left, and the last one
// may go over by up to WorkMax. It is safe for many goroutines.
type Room struct{ left atomic.Int64 }

// NewRoom returns room for so many bytes.
func NewRoom(bytes int) *Room {
	r := &Room{}
	r.left.Store(int64(bytes))
	return r
}

// errFull refuses a claim because the answer that it belongs to is full: not the task's fault.
var errFull = fault.New(fault.Overloaded, "task.claim", "", "the answer is full")

// take makes room for a task, or says why not. A nil Room has no end.
func (r *Room) take(id string, rec *Record) error {
	if r == nil {
		return nil
	}
	size := rec.size() + len(id)
	if size > WorkMax {
		return fault.New(fault.TooLarge, "task.claim", id, "it has %d bytes with its answers so far: WorkMax of %d may go to another node", size, WorkMax).
			WithRemedy("run an engine on every node, or split the task")
	}
	if r.left.Add(int64(-size))+int64(size) <= 0 {
		r.left.Add(int64(size))
		return errFull
	}
	return nil
}

// Bytes of JSON beside the texts, at most.
const (
	sizeBase    = 2048
	sizeAttempt = 1024
	sizePart    = 64
)

// size bounds the JSON of a record from above.
func (r *Record) size() int {
	n := sizeBase + len(r.Attempts)*sizeAttempt + textSize(r.Model) + textSize(r.Trace)
	for _, a := range r.Attempts {
		n += failureSize(a.Error) + textSize(a.Node) + textSize(a.Engine)
		if a.Answer != nil {
			n += placeSize(a.Answer.Second)
		}
	}
	for _, a := range r.Answers {
		n += textSize(a.Text) + len(a.Body) + textSize(a.Model) + placeSize(a.Second) + 9*sizePart
	}
	if p := r.Repair; p != nil {
		n += textSize(p.Text) + textSize(p.Error)
	}
	n += failureSize(r.Error) + failureSize(r.CallbackReason)
	if l := r.Line; l != nil {
		n += textSize(l.Batch) + textSize(l.CustomID) + textSize(l.Model) + 2*sizePart
	}
	s := r.Spec
	if s == nil {
		return n
	}
	n += len(s.Request) + textSize(s.Endpoint)
	n += textSize(s.ID) + textSize(s.Prompt) + textSize(s.System) + textSize(s.Model) + len(s.Format) + textSize(s.DataURL) + textSize(s.CallbackURL) + textSize(s.RetryOf)
	for _, m := range s.Messages {
		n += textSize(m.Role) + textSize(m.Content) + sizePart
	}
	for i := range s.Steps {
		n += s.Steps[i].jsonSize()
	}
	for _, t := range s.Stop {
		n += textSize(t) + sizePart
	}
	for k, v := range s.Metadata {
		n += textSize(k) + textSize(v) + sizePart
	}
	return n
}

func failureSize(f *Failure) int {
	if f == nil {
		return 0
	}
	return textSize(f.Message) + textSize(f.Remedy) + len(f.Body) + 2*sizePart
}

func placeSize(p *Place) int {
	if p == nil {
		return 0
	}
	return textSize(p.Node) + textSize(p.Engine) + sizePart
}

// textSize bounds a JSON string, written without HTML escapes.
func textSize(s string) int {
	n := 2 + len(s)
	for i, r := range s {
		switch {
		case r == '"' || r == '\\':
			n++
		case r < ' ' || r == 0x7f:
			n += 5
		case r == '\u2028' || r == '\u2029':
			n += 3
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"): // one byte that is no UTF-8
			n += 5
		}
	}
	return n
}
