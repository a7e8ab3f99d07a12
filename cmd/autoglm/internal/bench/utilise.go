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
	flag    string // --engine of serve, for the same engine
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
	if r.o.engine == engineEmbedded {
		prepare = r.embedded
	}
	d, err := prepare(ctx, dir)
	if err != nil {
		return nil, err
	}
	stop := sync.OnceFunc(d.stop)
	defer stop()
	single, err := d.direct(ctx, r.o.duration, d.engines[:1], 1)
	if err != nil {
		return nil, err
	}
	direct, err := d.direct(ctx, r.o.duration, d.engines, d.each)
	if err != nil {
		return nil, err
	}
	if r.o.engine == engineEmbedded {
		stop() // the node starts workers of its own
	}
	through, use, err := r.through(ctx, dir, d, direct)
	if err != nil {
		return nil, err
	}
	note := d.note
	if through > implausible*direct {
		note = "NOT COMPARABLE: other work slowed the direct run more; " + note
	}
	return []reading{
		{figure: figBusy, value: 100 * through / direct, unit: "%", note: note},
		{figure: "answers through the node", value: through, unit: "answers/s", use: use},
		{figure: "answers driven directly", value: direct, unit: "answers/s"},
		{figure: "answers one at a time", value: single, unit: "answers/s", note: "each takes " + (time.Duration(float64(time.Second) / single)).Round(10*time.Microsecond).String()},
		{figure: "through the node, against one at a time", value: through / single, unit: "times"},
	}, nil
}

// fixed starts an engine of known speed. Its server is in this process, so it is part of the client's cores.
func (r *runner) fixed(context.Context, string) (*driven, error) {
	slots := fixedSlots * r.o.nodes
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
		flag: e.url, note: note, stop: stop}, nil
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
				greedy := new(float64)
				for time.Now().Before(end) && ctx.Err() == nil {
					p := d.prompts[int(next.Add(1)-1)%len(d.prompts)]
					_, err := e.Do(ctx, &infer.Request{Model: d.model, Messages: []infer.Message{{Role: "user", Content: p.Text}},
						MaxTokens: p.MaxTokens, Temperature: greedy, Key: "bench"})
					if err != nil {
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

// through does the same with a node between: a backlog that outlasts the measurement, and the node's own count.
func (r *runner) through(ctx context.Context, dir string, d *driven, direct float64) (float64, *usage, error) {
	if r.o.nodes > 1 {
		var perSecond float64
		var use *usage
		_, err := r.onClusterOf(d.flag, func(ctx context.Context, l *local) (_ []reading, err error) {
			perSecond, use, err = r.measured(ctx, l.asNode(), d, direct)
			return nil, err
		})(ctx, dir)
		return perSecond, use, err
	}
	n, err := newNode(r.binary, filepath.Join(dir, "node"), "--engine", d.flag)
	if err != nil {
		return 0, nil, err
	}
	defer n.kill()
	if _, err := n.start(ctx); err != nil {
		return 0, nil, err
	}
	return r.measured(ctx, n, d, direct)
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
	// Loading the model is no part of the measurement.
	if err := n.until(ctx, func(st *wire.Status) bool { return st.Tasks["completed"] > 0 || st.Tasks["failed"] > 0 }); err != nil {
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
