package bench

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/dev"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// growBy is how many nodes join and leave.
const growBy = 2

// phase is a stretch of grow.
type phase struct {
	name     string
	from, to time.Time
}

// growBench lets two nodes join under a steady load, waits until placement is at rest, drains both and stops them. The
// load goes to all nodes that run, a draining one too, until it refuses connections.
func (r *runner) growBench(ctx context.Context, l *local) ([]reading, error) {
	load := startMixed(ctx, l.addrs())
	defer load.stop()
	if err := waitUntil(ctx, time.Now().Add(warmUp(r.o.duration))); err != nil {
		return nil, err
	}
	var phases []phase
	add := func(name string, f func() (time.Time, error)) error {
		fmt.Fprintf(r.say, "  %s\n", name)
		from := time.Now()
		to, err := f()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		phases = append(phases, phase{name, from, to})
		return nil
	}
	steady := func() (time.Time, error) {
		err := waitUntil(ctx, time.Now().Add(r.o.duration))
		return time.Now(), err
	}
	var ready time.Duration
	var added []dev.Node
	small, big := r.o.nodes, r.o.nodes+growBy
	for _, step := range []struct {
		name string
		do   func() (time.Time, error)
	}{
		{fmt.Sprintf("on %d nodes", small), steady},
		{fmt.Sprintf("growing to %d nodes", big), func() (t time.Time, err error) {
			began := time.Now()
			if added, err = l.join(ctx, load); err != nil {
				return t, err
			}
			ready = time.Since(began)
			return l.settled(ctx)
		}},
		{fmt.Sprintf("on %d nodes", big), steady},
		{fmt.Sprintf("draining %d nodes", growBy), func() (time.Time, error) {
			err := l.drain(ctx, namesOf(added))
			return time.Now(), err
		}},
		{"stopping them", func() (time.Time, error) { return l.leave(ctx, load, added) }},
		{fmt.Sprintf("on %d nodes again", small), steady},
	} {
		if err := add(step.name, step.do); err != nil {
			return nil, err
		}
	}
	load.stop()
	if err := l.completed(ctx, load.acknowledged()); err != nil {
		return nil, err
	}
	return growReadings(load.outcomes(), phases, ready), nil
}

// growReadings sums up the phases; the first is what the others are compared with.
func growReadings(all []outcome, phases []phase, ready time.Duration) (out []reading) {
	before := sum(all, phases[0].from, phases[0].to)
	failed, refused, requests := []string{}, 0, 0
	var last time.Time
	for i, p := range phases {
		s := sum(all, p.from, p.to)
		note := ""
		if i > 0 {
			note = fmt.Sprintf("dip %s%%, in the worst second %s%%", figure(dip(before.perSecond, s.perSecond)), figure(dip(before.perSecond, s.worst)))
		}
		if took := p.to.Sub(p.from); i%2 == 1 || i == 4 {
			timeNote := ""
			if i == 1 {
				timeNote = fmt.Sprintf("until placement is at rest; the nodes were ready after %s s", figure(ready.Seconds()))
			}
			if i < 5 {
				out = append(out, reading{figure: p.name + ", time", value: took.Seconds(), unit: "s", note: timeNote})
			}
		}
		out = append(out, reading{figure: p.name + ", load", value: s.perSecond, unit: "requests/s", lat: s.lat, note: note})
		last = p.to
	}
	whole := sum(all, phases[0].from, last)
	failed, refused = whole.failed, whole.refused
	if whole.lat != nil {
		requests = whole.lat.Count
	}
	note := fmt.Sprintf("of %d; %d times a stopped node refused a connection and another one served", requests+len(failed), refused)
	if len(failed) > 0 {
		note += "; the first: " + failed[0]
	}
	return append(out, reading{figure: figFailed, value: float64(len(failed)), unit: "requests", note: note})
}

// join adds nodes, one after the other, and gives each its part of the load once it is ready.
func (l *local) join(ctx context.Context, load *mixed) (added []dev.Node, err error) {
	for range growBy {
		n, err := l.c.AddNode(ctx)
		if err != nil {
			return nil, err
		}
		added = append(added, n)
		load.use(l.addrs())
	}
	return added, nil
}

// drain asks the cluster to empty nodes, and waits until they are.
func (l *local) drain(ctx context.Context, names []string) error {
	c, err := client.New(l.up()[0].URL, client.WithHTTPClient(l.http))
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := c.Drain(ctx, wire.Drain{Node: n, Force: true}); err != nil {
			return err
		}
	}
	return l.drained(ctx, names)
}

// leave stops nodes, all at once. The load finds out by itself; afterwards it does without them.
func (l *local) leave(ctx context.Context, load *mixed, nodes []dev.Node) (time.Time, error) {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { errs[i] = l.c.StopNode(ctx, n.Name) })
	}
	wg.Wait()
	at := time.Now()
	load.use(l.addrs())
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return at, errs[i]
	}
	return at, nil
}

// completed waits until the cluster has completed so many tasks: all that were acknowledged.
func (l *local) completed(ctx context.Context, count int) error {
	var st wire.Status
	for {
		var err error
		n := l.asNode()
		if st, err = n.status(ctx); err == nil && st.Tasks["completed"] >= int64(count) {
			return nil
		}
		if werr := waitUntil(ctx, time.Now().Add(lookEvery)); werr != nil {
			return fmt.Errorf("bench.grow: %d tasks were acknowledged, and they are %v: %w", count, st.Tasks, werr)
		}
	}
}
