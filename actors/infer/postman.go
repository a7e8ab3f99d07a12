package infer

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/open-autoglm/autoglm/actors/meter"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Postman brings outcomes of attempts to their tasks.
type Postman struct {
	Router *cluster.Router
	Meter  *meter.Meter
	Log    *slog.Logger
}

// Ends tells whether the outcome of a run is its attempt's: of two runs that is the first answer, or the last error. broken is of a run that was
// broken off for its engine's sake: its owner finds that out. of is the error that the attempt ends with.
func Ends(x *task.Work, m *meter.Meter, err error, broken bool) (of error, ends bool) {
	switch {
	case err == nil:
		ends = x.Win()
	case !broken:
		of, ends = x.Fail(err)
	}
	if x.IsSecond() && !x.Visits() {
		outcome := "lost"
		if err == nil && ends {
			outcome = "won"
		}
		m.Hedges.WithLabelValues(outcome).Inc()
	}
	return of, ends
}

// Bring records an outcome. It is tried until the lease ends.
func (p Postman) Bring(x *task.Work, answer task.Answer, err error) {
	if err == nil {
		if err = p.record(x, &task.Done{Attempt: x.Attempt, Epoch: x.Epoch, Answer: answer}); err == nil || fault.KindOf(err).Retryable() {
			return
		}
		// The task refuses it for ever, as too large perhaps: say so, rather than let its lease end.
		err = fmt.Errorf("the answer cannot be recorded: %w", err)
	}
	_ = p.record(x, &task.Lost{Attempt: x.Attempt, Epoch: x.Epoch, Err: err, RetryAfter: RetryAfterOf(err)}) // it is logged there
}

// record brings one message to its task, until the lease ends.
func (p Postman) record(x *task.Work, msg any) error {
	// Not the worker's context: an answer that is there is worth recording while the node stops.
	ctx, cancel := context.WithTimeout(context.Background(), x.Remaining())
	defer cancel()
	v, err := p.Router.Ask(ctx, task.Key(x.ID), msg)
	for fault.KindOf(err).Retryable() && wait(ctx, deliverAgain) == nil { // a full disk, a full queue: the answer is worth the wait
		v, err = p.Router.Ask(ctx, task.Key(x.ID), msg)
	}
	if _, late := v.(task.Dropped); late {
		p.Meter.Late.Inc()
	}
	if err != nil {
		p.Log.Warn("an attempt's outcome could not be recorded", "task", x.ID, "attempt", x.Attempt, "err", err)
	}
	return err
}
