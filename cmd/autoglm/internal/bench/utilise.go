package bench

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// driven is an engine that can be driven directly, and through a node.
type driven struct {
	engines []infer.Engine
	each    int    // requests at once for each engine, directly and by the node
	model   string // asked of the engine directly
	queue   string // model of the tasks; empty: the node's default
	prompts []prompt
	flags   []string // of serve, for the same engines
	shared  bool     // the very engine that is driven directly is the nodes', too
	note    string
	stop    func() // ends what drives it directly; before a node has it, where it cannot be shared
}

// implausible is the share of the direct answers above which the two runs did not have the same machine: a node cannot
// make an engine faster, but for measuring noise.
const implausible = 1.03

// utilisationBench drives an engine as hard as it takes it, first directly and then through a node with a backlog, and
// compares the answers per second. The node counts an answer once it is recorded.
func (r *runner) utilisationBench(ctx context.Context, dir string) ([]reading, error) {
	prepare := r.fixed
	switch {
	case r.o.engine == engineEmbedded:
		prepare = r.embedded
	case isURL(r.o.engine):
		prepare = r.behind
	}
	d, err := prepare(ctx, dir)
	if err != nil {
		return nil, err
	}
	stop := sync.OnceFunc(d.stop)
	defer stop()
	single, err := d.oneByOne(ctx, r.o.duration)
	if err != nil {
		return nil, err
	}
	direct, err := d.direct(ctx, r.o.duration, d.engines, d.each)
	if err != nil {
		return nil, err
	}
	if !d.shared {
		stop() // the node starts workers of its own
	}
	got, err := r.through(ctx, dir, d, direct, single.answers)
	if err != nil {
		return nil, err
	}
	note := d.note
	through := got.perSecond
	if through > implausible*direct {
		note = "NOT COMPARABLE: other work slowed the direct run more; " + note
	}
	return []reading{
		{figure: figBusy, value: 100 * through / direct, unit: "%", note: note},
		{figure: "answers through the node", value: through, unit: "answers/s", use: got.use},
		{figure: "answers driven directly", value: direct, unit: "answers/s"},
		{figure: "tokens through the node", value: through * got.job.tokens, unit: "tokens/s", note: figure(got.job.tokens) + " an answer"},
		{figure: "answers one at a time", value: single.perSecond(), unit: "answers/s", note: "each takes " + (time.Duration(float64(time.Second) / single.perSecond())).Round(10*time.Microsecond).String()},
		{figure: "through the node, against one at a time", value: through / single.perSecond(), unit: "times"},
		{figure: "mean latency of a job, one at a time", value: single.mean.Seconds(), unit: "s", note: fmt.Sprintf("%d tasks, from its beginning to each answer", single.answers)},
		{figure: "mean latency of a job through the node", value: got.job.mean.Seconds(), unit: "s",
			note: fmt.Sprintf("%s times; in the engine %s s each", figure(got.job.mean.Seconds()/single.mean.Seconds()), figure(got.job.run.Seconds()))},
	}, nil
}

// fixed starts an engine of known speed. Its server is in this process, so it is part of the client's cores.
func (r *runner) fixed(context.Context, string) (*driven, error) {
	slots := urlSlots * r.o.nodes
	e, err := startFixed(slots, r.o.latency)
	if err != nil {
		return nil, err
	}
	h, err := infer.NewHTTP(infer.HTTPOptions{URL: e.url, Concurrency: slots})
	if err != nil {
		e.stop()
		return nil, fmt.Errorf("bench.engine: %w", err)
	}
	stop := func() { h.Close(); e.stop() }
	note := fmt.Sprintf("%d slots of %v: at most %s answers/s", slots, r.o.latency, figure(ceiling(slots, r.o.latency)))
	return &driven{engines: []infer.Engine{h}, each: slots, model: "fixed", queue: "fixed", prompts: []prompt{{Text: "Write the date as YYYY-MM-DD: 3 March 2024"}},
		flags: []string{"--engine", e.url}, shared: true, note: note, stop: stop}, nil
}

// ask has an engine answer prompt i, of which they are asked in turn, greedily as a node does.
func (d *driven) ask(ctx context.Context, e infer.Engine, i int) error {
	p := d.prompts[i%len(d.prompts)]
	_, err := e.Do(ctx, &infer.Request{Model: d.model, Messages: []infer.Message{{Role: "user", Content: p.Text}}, MaxTokens: p.MaxTokens, Temperature: new(float64), Key: "bench"})
	return err
}

// direct keeps so many slots of each engine busy for d after a warm-up and returns the answers per second.
func (d *driven) direct(ctx context.Context, dur time.Duration, engines []infer.Engine, each int) (float64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var answered, next atomic.Int64
	end := time.Now().Add(warmUp(dur) + dur)
	var wg sync.WaitGroup
	for _, e := range engines {
		for range each {
			wg.Go(func() {
				for time.Now().Before(end) && ctx.Err() == nil {
					if err := d.ask(ctx, e, int(next.Add(1)-1)); err != nil {
						cancel(fmt.Errorf("bench.direct: %w", err))
						return
					}
					answered.Add(1)
				}
			})
		}
	}
	perSecond, err := speed(ctx, warmUp(dur), dur, func() (int64, error) { return answered.Load(), nil })
	wg.Wait()
	return perSecond, err
}

// speed tells how fast count grows, in a stretch of time d after a warm-up.
func speed(ctx context.Context, warm, d time.Duration, count func() (int64, error)) (float64, error) {
	if err := waitUntil(ctx, time.Now().Add(warm)); err != nil {
		return 0, err
	}
	first, err := count()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := waitUntil(ctx, began.Add(d)); err != nil {
		return 0, err
	}
	last, err := count()
	if err != nil {
		return 0, err
	}
	if last <= first {
		return 0, fmt.Errorf("bench.utilisation: no answer came within %v: give a longer --duration", d)
	}
	return rate(int(last-first), time.Since(began)), nil
}

// through does the same with a node between: a job of so many tasks, then a backlog that outlasts the measurement, and the node's own count.
func (r *runner) through(ctx context.Context, dir string, d *driven, direct float64, job int) (got loaded, err error) {
	both := func(ctx context.Context, n *node) (err error) {
		if got.job, err = r.job(ctx, n, d, job); err == nil {
			got.perSecond, got.use, err = r.measured(ctx, n, d, direct)
		}
		return err
	}
	if r.o.nodes > 1 {
		_, err := r.onClusterOf(d.flags, func(ctx context.Context, l *local) ([]reading, error) { return nil, both(ctx, l.asNode()) })(ctx, dir)
		return got, err
	}
	n, err := newNode(r.binary, filepath.Join(dir, "node"), d.flags...)
	if err != nil {
		return got, err
	}
	defer n.kill()
	if _, err := n.start(ctx); err != nil {
		return got, err
	}
	return got, both(ctx, n)
}

// measured is the answers per second of a node that works a backlog off.
func (r *runner) measured(ctx context.Context, n *node, d *driven, direct float64) (float64, *usage, error) {
	line, err := promptLine("u", d.queue, d.prompts)
	if err != nil {
		return 0, nil, err
	}
	warm := warmUp(r.o.duration)
	if _, err := bulk(ctx, n, 1, backlog(direct, warm+r.o.duration), line); err != nil {
		return 0, nil, err
	}
	m, err := startMeter(n.pids()...)
	if err != nil {
		return 0, nil, err
	}
	var st wire.Status
	perSecond, err := speed(ctx, warm, r.o.duration, func() (int64, error) {
		st, err = n.status(ctx)
		return st.Tasks["completed"], err
	})
	if err != nil {
		return 0, nil, err
	}
	_, use, err := m.stop()
	switch {
	case err != nil:
		return 0, nil, err
	case st.Tasks["pending"] == 0:
		return 0, nil, fmt.Errorf("bench.utilisation: the backlog ran out before the measurement ended: give a shorter --duration")
	case st.Tasks["failed"] > 0:
		return 0, nil, fmt.Errorf("bench.utilisation: %d tasks failed through the node", st.Tasks["failed"])
	}
	return perSecond, use, nil
}

// backlog is how many tasks keep an engine busy for d: twice what it did directly, and what it answers while they are
// being loaded.
func backlog(perSecond float64, d time.Duration) int {
	return 1000 + int(math.Ceil(2*perSecond*(d+2*time.Second).Seconds()))
}
