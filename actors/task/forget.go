package task

import (
	"time"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Forget deletes a final task with all that it left: what an operator's retention, or a client, asks for. The answer is Forgotten; one that may not be
// deleted yet refuses with a Conflict, one that is not there with NotFound. Its id is as if it had never been used.
type Forget struct {
	Ended time.Time `json:"ended,omitzero"`  // only the task that ended then: its id may be of another one by now; zero: any
	Batch string    `json:"batch,omitempty"` // by the batch, by its whole id, whose line it is: others leave lines alone
}

// Forgotten answers Forget.
type Forgotten struct{}

// mayForget tells why the task may not be deleted, nil when it may.
func (r *Record) mayForget(id string, m *Forget) error {
	no := func(remedy, format string, args ...any) error {
		return fault.New(fault.Conflict, "task.delete", id, format, args...).WithRemedy("%s", remedy)
	}
	switch {
	case !r.State.Final():
		return no("wait for its end, or cancel it first", "it is %v", r.State)
	case !m.Ended.IsZero() && !m.Ended.Equal(r.EndedAt):
		return no("look again", "another task has its id by now")
	case r.Callback == CallbackWaiting:
		return no("wait until its receiver has heard of it, or the tries are used up", "its callback is not delivered yet")
	case r.Line != nil && m.Batch != r.Line.Batch:
		return no("set retention.batches: the lines go with their batch", "it is a line of a batch, whose files are made of it")
	}
	return nil
}

// forget erases the task, if it may be.
func (t *Task) forget(c *context, m *Forget) {
	r := c.State()
	if err := r.mayForget(c.ID(), m); err != nil {
		c.Refuse(err)
		return
	}
	c.Erase()
	c.Reply(Forgotten{})
}

// countDeleted counts the tasks that were deleted, so that those that were ever submitted are the sum of all states and this. To programs that do not
// know it, it is no state.
const countDeleted = countTasks + "deleted"

// unindexed deletes the rows that a final task has.
func (r *Record) unindexed(id string) []persistence.Index {
	rows := append(index(id, Record{State: Running}, *r), persistence.Index{Name: indexOf(IndexAll, id), Key: AllKey(r.CreatedAt, id)})
	kept := rows[:0]
	for _, row := range rows {
		if row.Name != IndexRunning { // it left that one when it ended
			row.Value, row.Delete = nil, true
			kept = append(kept, row)
		}
	}
	return kept
}
