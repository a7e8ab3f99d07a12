package task

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// A failed task stays failed, for ever. Who wants it tried again gets another task, whose id follows from that of the first: so a second
// wish finds the task that the first one made.
const retryMark = ".retry-"

// RetryID is the id of the task that tries another one again: ID.retry-1, and of that one ID.retry-2. An id that would get too long
// becomes a hash of it.
func RetryID(id string) string {
	base, n := id, 0
	if i := strings.LastIndex(id, retryMark); i > 0 {
		if k, err := strconv.Atoi(id[i+len(retryMark):]); err == nil && k > 0 && strconv.Itoa(k) == id[i+len(retryMark):] {
			base, n = id[:i], k
		}
	}
	next := base + retryMark + strconv.Itoa(n+1)
	if len(next) > IDMax {
		sum := sha256.Sum256([]byte(id))
		next = hex.EncodeToString(sum[:16]) + retryMark + "1"
	}
	return next
}

// Again is the spec of the task that tries a failed one again. Its times are gone: they were for the first, and a wish for now is no
// wish for then. The same task gives the same spec, whenever that is.
func (r *Record) Again(id string) (*Spec, error) {
	switch {
	case r.State != Failed:
		return nil, fault.New(fault.Conflict, "task.retry", id, "it is %v, and only failed tasks are tried again", r.State)
	case r.Line != nil:
		return nil, fault.New(fault.Conflict, "task.retry", id, "it is a line of batch %s", r.Line.Batch).WithRemedy("autoglm batch retry makes a batch of all its lines that failed")
	}
	s := *r.Spec
	s.ID, s.RetryOf, s.Deadline, s.NotBefore = RetryID(id), id, nil, nil
	return &s, nil
}

// triedAgain names the other task, once.
func (t *Task) triedAgain(c *context, m *TriedAgain) {
	r := c.State()
	switch {
	case r.RetriedAs == m.As:
		c.Reply(r)
	case r.State != Failed || r.RetriedAs != "" || m.As == "":
		c.Refuse(fault.New(fault.Conflict, "task.retry", c.ID(), "it is %v, and was tried again as %q", r.State, r.RetriedAs))
	default:
		c.Commit(Fact{Event: Retried, At: clock(c), As: m.As, Skip: true}) // for a program that does not know it, only a version passed
		c.ReplyWith(record)
	}
}
