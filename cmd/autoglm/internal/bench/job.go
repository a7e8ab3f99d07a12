package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// jobMax bounds the tasks of a job, and with them what is read of their results.
const jobMax = 10_000

// loaded is what a node did with an engine.
type loaded struct {
	job       jobTimes
	perSecond float64
	use       *usage
}

// jobTimes is how long a job's tasks took that were all there at the beginning.
type jobTimes struct {
	mean   time.Duration // from the job's beginning to a task's answer
	run    time.Duration // mean time in the engine
	tokens float64       // of a mean answer
}

// sequence is what an engine answered that was asked one thing at a time, as a program does that waits for each answer.
type sequence struct {
	answers int
	took    time.Duration
	mean    time.Duration // from the beginning to an answer
}

func (s sequence) perSecond() float64 { return rate(s.answers, s.took) }

// oneByOne asks the first engine for d, after one answer that warms it up.
func (d *driven) oneByOne(ctx context.Context, dur time.Duration) (s sequence, err error) {
	if err := d.ask(ctx, d.engines[0], 0); err != nil {
		return s, fmt.Errorf("bench.single: %w", err)
	}
	var sum time.Duration
	for began := time.Now(); s.took < dur && s.answers < jobMax; s.answers++ {
		if err := d.ask(ctx, d.engines[0], s.answers); err != nil {
			return s, fmt.Errorf("bench.single: %w", err)
		}
		s.took = time.Since(began)
		sum += s.took
	}
	s.mean = sum / time.Duration(s.answers)
	return s, nil
}

// job submits so many tasks at once and waits for their results. The first task of all comes before: loading a model is no part of it.
func (r *runner) job(ctx context.Context, n *node, d *driven, tasks int) (t jobTimes, err error) {
	for _, part := range []struct {
		prefix string
		tasks  int
	}{{"w", 1}, {"j", tasks}} {
		line, err := promptLine(part.prefix, d.queue, d.prompts)
		if err != nil {
			return t, err
		}
		st, err := n.status(ctx)
		if err != nil {
			return t, err
		}
		before := st.Tasks["completed"] + st.Tasks["failed"]
		if _, err := bulk(ctx, n, 1, part.tasks, line); err != nil {
			return t, err
		}
		if err := n.until(ctx, func(st *wire.Status) bool {
			return st.Tasks["completed"]+st.Tasks["failed"] >= before+int64(part.tasks)
		}); err != nil {
			return t, err
		}
	}
	c, err := client.New("http://"+n.addr, client.WithHTTPClient(n.control))
	if err != nil {
		return t, err
	}
	var all []wire.Result
	enough := errors.New("all are there")
	// Followed, as a result appears a little after its task has ended.
	if _, err := c.Results(ctx, client.Query{}, true, func(v wire.Result) error {
		if v.ID != "" && v.ID[0] == 'j' {
			all = append(all, v)
		}
		if len(all) == tasks {
			return enough
		}
		return nil
	}); !errors.Is(err, enough) {
		return t, fmt.Errorf("bench.job: %d of %d tasks have a result: %w", len(all), tasks, err)
	}
	return timesOf(all)
}

// timesOf sums up the results of a job; there is one at least.
func timesOf(all []wire.Result) (t jobTimes, err error) {
	began := *all[0].CreatedAt
	for _, v := range all {
		if v.EndedAt == nil || v.Usage == nil || v.Answer == "" {
			return t, fmt.Errorf("bench.job: task %s ended as %s without an answer: %v", v.ID, v.State, v.Error)
		}
		if v.CreatedAt.Before(began) {
			began = *v.CreatedAt
		}
	}
	var sum time.Duration
	var run float64
	for _, v := range all {
		sum += v.EndedAt.Sub(began)
		run += v.RunSeconds
		t.tokens += float64(v.Usage.CompletionTokens)
	}
	n := len(all)
	t.mean, t.run, t.tokens = sum/time.Duration(n), time.Duration(run/float64(n)*float64(time.Second)), t.tokens/float64(n)
	return t, nil
}
