package bench

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// Option changes what NewCommand makes.
type Option func(*runner)

// WithPrompts gives the prompts that --engine embedded asks unless --prompts names a file: JSON lines of tasks, of which
// prompt and max_tokens are used.
func WithPrompts(lines []byte) Option { return func(r *runner) { r.shipped = lines } }

// WithBinary names the program that is started as a node, with serve as its first argument; this program when it is
// not given.
func WithBinary(path string) Option { return func(r *runner) { r.binary = path } }

// NewCommand returns autoglm bench.
func NewCommand(opts ...Option) *cobra.Command {
	r := &runner{}
	for _, opt := range opts {
		opt(r)
	}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure a node on this machine",
		Long: "Measures nodes that it starts as child processes, each with an empty data directory, and ends again: a node alone, or with\n--nodes 3 clusters of three on this machine.\n\nBenchmarks:\n" + about() +
			"\nA submit is one HTTP request on a connection that is kept open, answered once the task is on disk. The client\n" +
			"shares the cores with the node; the table tells how many cores each took.",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SilenceUsage = true
			return r.main(cmd)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&r.o.only, "only", nil, "benchmarks to run, separated by commas (default: all)")
	f.StringVar(&r.o.dir, "dir", ".", "`folder` on the disk to measure; data goes into a new folder in it, removed at the end")
	f.StringVarP(&r.o.output, "output", "o", "table", "table or json")
	f.DurationVar(&r.o.duration, "duration", 10*time.Second, "how long submit-1, submit-32, utilisation and the submits of waiting are measured, after a warm-up")
	f.IntVar(&r.o.tasks, "tasks", 100_000, "`number` of tasks of bulk and drain")
	f.IntVar(&r.o.streams, "streams", 1, "`number` of NDJSON streams at once, of bulk, drain and the loading of waiting")
	f.Float64Var(&r.o.rate, "rate", 100, "submits per second of start-latency")
	f.DurationVar(&r.o.rateTime, "rate-time", 20*time.Second, "how long start-latency submits")
	f.StringVar(&r.o.engine, "engine", engineFixed, "engine of utilisation: fixed (a local server of known speed), embedded (the shipped model) or the `URL` of an engine with OpenAI's API")
	f.DurationVar(&r.o.latency, "engine-latency", 50*time.Millisecond, "time of one answer of the fixed engine")
	f.StringVar(&r.o.prompts, "prompts", "", "JSONL `file` with what an engine is asked that is not fixed (default: the shipped tasks)")
	f.IntVar(&r.o.waiting, "waiting", 100_000, "`number` of tasks that wait in waiting")
	f.IntVar(&r.o.nodes, "nodes", 1, "1, or the `number` of nodes of a cluster, each a process on this machine; requests go to all in turn")
	f.IntVar(&r.o.kills, "kills", 50, "`number` of nodes that failover kills, one after the other")
	f.DurationVar(&r.o.idleTime, "idle-time", 20*time.Second, "how long idle looks, before and after load")
	f.IntVar(&r.o.repeat, "repeat", 1, "`times` each benchmark runs; the table shows the median and the range")
	f.DurationVar(&r.o.timeout, "timeout", 10*time.Minute, "longest time of one benchmark, once")
	complete(cmd)
	return cmd
}

// complete tells the shell what the flags take.
func complete(cmd *cobra.Command) {
	for flag, values := range map[string][]string{"only": names(), "output": {"table", "json"}, "engine": {engineFixed, engineEmbedded}} {
		if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // there is no such flag: a slip in this file
		}
	}
}

func about() string {
	var b strings.Builder
	for _, x := range catalog {
		fmt.Fprintf(&b, "  %-14s %s\n", x.name, x.about+x.needs.remark())
	}
	return b.String()
}

// main runs the command. A second Ctrl-C ends the program at once; its nodes end with it.
func (r *runner) main(cmd *cobra.Command) (err error) {
	if err := r.o.validate(); err != nil {
		return err
	}
	if _, err := pick(r.o.only, r.o.nodes); err != nil {
		return err
	}
	if r.binary == "" {
		if r.binary, err = os.Executable(); err != nil {
			return fmt.Errorf("bench: %w", err)
		}
	}
	parent := cmd.Context()
	if parent == nil {
		parent = context.Background()
	}
	ctx, stop := signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	if r.dir, err = os.MkdirTemp(r.o.dir, "autoglm-bench-"); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	defer os.RemoveAll(r.dir)
	r.say = cmd.ErrOrStderr()
	rep, err := r.run(ctx)
	if rep == nil {
		return err
	}
	write := rep.writeTable
	if r.o.output == "json" {
		write = rep.writeJSON
	}
	if werr := write(cmd.OutOrStdout()); werr != nil {
		return werr
	}
	if err != nil {
		return fmt.Errorf("bench: ended early: %w", err)
	}
	if n := rep.failures(); n > 0 {
		return fmt.Errorf("bench: %d of the benchmarks could not be measured", n)
	}
	return nil
}
