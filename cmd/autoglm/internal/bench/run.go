package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
)

// options are what the flags say.
type options struct {
	only     []string
	dir      string        // the data goes into a new folder below it
	output   string        // table or json
	duration time.Duration // of each timed benchmark, a warm-up aside
	tasks    int           // of bulk and drain
	streams  int           // bulk streams at once
	rate     float64       // submits per second of start-latency
	rateTime time.Duration // of start-latency
	engine   string        // of utilisation: fixed, embedded or a URL
	latency  time.Duration // of the fixed engine
	prompts  string        // file of what an engine that is not fixed is asked
	waiting  int           // tasks of waiting
	repeat   int
	timeout  time.Duration // of one benchmark, once
	nodes    int           // 1: a node alone; else a cluster of so many
	kills    int           // of failover
	idleTime time.Duration // of idle, before and after the load
}

// validate checks every bound once, here.
func (o *options) validate() error {
	switch {
	case o.output != "table" && o.output != "json":
		return cli.Usage("--output is %q: use table or json", o.output)
	case o.duration < 100*time.Millisecond:
		return cli.Usage("--duration is %v: use at least 100ms", o.duration)
	case o.tasks < 1 || o.waiting < 1:
		return cli.Usage("--tasks is %d and --waiting %d: use at least 1", o.tasks, o.waiting)
	case o.streams < 1 || o.streams > 64:
		return cli.Usage("--streams is %d: use 1 to 64", o.streams)
	case !(o.rate >= 0.1 && o.rate <= 100_000):
		return cli.Usage("--rate is %g: use 0.1 to 100000", o.rate)
	case o.rateTime < 100*time.Millisecond:
		return cli.Usage("--rate-time is %v: use at least 100ms", o.rateTime)
	case o.rate*o.rateTime.Seconds() > 1e6:
		return cli.Usage("--rate %g for --rate-time %v are more than 1,000,000 tasks", o.rate, o.rateTime)
	case o.engine != engineFixed && o.engine != engineEmbedded && !isURL(o.engine):
		return cli.Usage("--engine is %q: use %s, %s or the URL of an engine with OpenAI's API", o.engine, engineFixed, engineEmbedded)
	case o.latency < time.Millisecond:
		return cli.Usage("--engine-latency is %v: use at least 1ms", o.latency)
	case o.repeat < 1 || o.repeat > 100:
		return cli.Usage("--repeat is %d: use 1 to 100", o.repeat)
	case o.nodes != 1 && (o.nodes < nodesMin || o.nodes > nodesMax):
		return cli.Usage("--nodes is %d: use 1, or %d to %d for a cluster", o.nodes, nodesMin, nodesMax)
	case o.kills < 1 || o.kills > 10_000:
		return cli.Usage("--kills is %d: use 1 to 10000", o.kills)
	case o.idleTime < 100*time.Millisecond:
		return cli.Usage("--idle-time is %v: use at least 100ms", o.idleTime)
	case o.timeout < time.Second:
		return cli.Usage("--timeout is %v: use at least 1s", o.timeout)
	}
	return nil
}

// runner runs the benchmarks that were asked for.
type runner struct {
	o       options
	binary  string // of autoglm
	shipped []byte // prompts as JSON lines; may be empty
	dir     string // removed at the end by whoever made it
	say     io.Writer
}

// body returns what one benchmark does in a new folder.
func (r *runner) body(name string) func(ctx context.Context, dir string) ([]reading, error) {
	switch name {
	case Submit1:
		return r.onNode(r.submitBench(1))
	case Submit32:
		return r.onNode(r.submitBench(32))
	case Bulk:
		return r.onNode(r.bulkBench)
	case Drain:
		return r.onNode(r.drainBench)
	case StartLatency:
		return r.onNode(r.startBench)
	case Utilisation:
		return r.utilisationBench
	case Waiting:
		return r.waitingBench
	case Failover:
		return r.onCluster(r.failoverBench)
	case Grow:
		return r.onCluster(r.growBench)
	case Idle:
		return r.onCluster(r.idleBench)
	}
	return nil
}

// onNode gives a benchmark a new node with the engine that echoes; with --nodes, a new cluster of such nodes.
func (r *runner) onNode(f func(context.Context, *node) ([]reading, error)) func(context.Context, string) ([]reading, error) {
	if r.o.nodes > 1 {
		return r.onCluster(func(ctx context.Context, l *local) ([]reading, error) { return f(ctx, l.asNode()) })
	}
	return func(ctx context.Context, dir string) ([]reading, error) {
		n, err := newNode(r.binary, dir, "--engine", "echo")
		if err != nil {
			return nil, err
		}
		defer n.kill() // nobody needs its data any more
		if _, err := n.start(ctx); err != nil {
			return nil, err
		}
		out, err := f(ctx, n)
		if err != nil && !n.running() {
			err = fmt.Errorf("%w\nthe node ended: %s\n%s", err, n.death(), n.log())
		}
		return out, err
	}
}

// errTimeout is the cause when a benchmark used up its --timeout.
var errTimeout = errors.New("it took longer than --timeout")

// run measures; a benchmark that fails leaves a row that says why, and the next one goes on. The error is ctx's.
func (r *runner) run(ctx context.Context) (*Report, error) {
	picked, err := pick(r.o.only, r.o.nodes)
	if err != nil {
		return nil, err
	}
	rep := &Report{StartedAt: time.Now().UTC(), Setting: setting(r.o.nodes), Repeats: r.o.repeat}
	if rep.Machine, err = inspect(r.dir); err != nil {
		return nil, err
	}
	rep.Machine.write(r.say)
	if rep.Setting != "" {
		fmt.Fprintln(r.say, rep.Setting)
	}
	for _, b := range picked {
		var runs [][]reading
		var failed error
		for k := 1; k <= r.o.repeat && failed == nil; k++ {
			fmt.Fprintf(r.say, "%s, run %d of %d: %s\n", b.name, k, r.o.repeat, b.about)
			var got []reading
			if got, failed = r.once(ctx, b.name, k); failed == nil {
				runs = append(runs, got)
			}
		}
		rep.Rows = append(rep.Rows, merge(b.name, runs)...)
		if err := ctx.Err(); err != nil {
			return rep, err
		}
		if failed != nil {
			rep.Rows = append(rep.Rows, Row{Benchmark: b.name, Error: failed.Error()})
		}
	}
	return rep, nil
}

// once runs one benchmark in a folder of its own, which is gone afterwards.
func (r *runner) once(ctx context.Context, name string, k int) ([]reading, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.o.timeout, errTimeout)
	defer cancel()
	dir := filepath.Join(r.dir, fmt.Sprintf("%s-%d", name, k))
	defer os.RemoveAll(dir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("bench.run: %w", err)
	}
	got, err := r.body(name)(ctx, dir)
	if err != nil && ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
		err = fmt.Errorf("%w (%w)", err, context.Cause(ctx))
	}
	return got, err
}

// failures counts the benchmarks that could not be measured.
func (r *Report) failures() (n int) {
	for _, row := range r.Rows {
		if row.Error != "" {
			n++
		}
	}
	return n
}
