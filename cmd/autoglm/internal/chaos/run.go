package chaos

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/clock"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/dev"
)

// Options say what to break, and for how long. Zero values have defaults.
type Options struct {
	Dir    string // a new folder for the cluster
	Binary string // autoglm
	// BinaryOf is what a node runs when it is started, by its name; nil: Binary. A fault may change its mind.
	BinaryOf func(node string) string
	Nodes    int         // 1
	Engine   string      // of every node; echo
	Args     []string    // more arguments of `autoglm serve`
	Seed     uint64      // of everything that is random, but for time itself
	Rounds   int         // faults, one after the other; 4
	Faults   []string    // names; empty: all that are possible
	More     []Fault     // that exist beside Faults()
	Net      Net         // Loopback
	Disks    *SmallDisks // in Dir; nil: disks are not filled

	Clients int           // 5 a node
	Think   time.Duration // of a client between two calls, on average; 20 ms

	StartMax  time.Duration // for the cluster to form; 2 minutes
	SettleMax time.Duration // for it to get over one fault; 1 minute
	EndMax    time.Duration // for all tasks to end after the last; 2 minutes
	JudgeMax  time.Duration // for the history of one task; 20 s

	Log func(format string, args ...any) // what happens; nil: nothing
}

func (o *Options) defaults() {
	if o.Net == nil {
		o.Net = Loopback{}
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	o.Engine = cmp.Or(o.Engine, "echo")
	o.Nodes, o.Rounds, o.Clients = cmp.Or(o.Nodes, 1), cmp.Or(o.Rounds, 4), cmp.Or(o.Clients, 5*cmp.Or(o.Nodes, 1))
	o.Think = cmp.Or(o.Think, 20*time.Millisecond)
	o.StartMax, o.SettleMax = cmp.Or(o.StartMax, 2*time.Minute), cmp.Or(o.SettleMax, time.Minute)
	o.EndMax, o.JudgeMax = cmp.Or(o.EndMax, 2*time.Minute), cmp.Or(o.JudgeMax, 20*time.Second)
}

// Round is one fault and what came after it.
type Round struct {
	Fault  string
	Broken time.Duration // until it was mended
	Healed time.Duration // from then on, until the cluster had got over it
}

// Report is what a run found.
type Report struct {
	Seed       uint64
	Rounds     []Round
	Ops        int
	Outcomes   map[string]int // ops by verb and outcome
	Tasks      int            // ids that clients named
	Ends       map[task.State]int
	Violations []Violation // none: every promise was kept
}

// String is the report in some lines.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d: %d faults, %d ops on %d tasks %v, which ended as %v\n", r.Seed, len(r.Rounds), r.Ops, r.Tasks, r.Outcomes, r.Ends)
	return b.String() + r.rounds()
}

// rounds is the part of a report that is about the faults and what was wrong.
func (r *Report) rounds() string {
	var b strings.Builder
	for i, round := range r.Rounds {
		fmt.Fprintf(&b, "  %2d %-17s broken %6.2fs, healed after %6.2fs\n", i+1, round.Fault, round.Broken.Seconds(), round.Healed.Seconds())
	}
	fmt.Fprintf(&b, "%d violations\n", len(r.Violations))
	for i, v := range r.Violations {
		if i == violationsShown {
			fmt.Fprintf(&b, "and %d more\n", len(r.Violations)-violationsShown)
			break
		}
		fmt.Fprintf(&b, "%v\n", v)
	}
	return b.String()
}

const violationsShown = 10

// Run starts a cluster, breaks it round after round under load, and judges. An error is trouble of the run itself;
// what the cluster did wrong is in the Report, which is not nil when the cluster was once up.
func Run(ctx context.Context, o Options) (*Report, error) {
	r, order, err := form(ctx, o)
	if err != nil {
		return nil, err
	}
	defer r.close()
	return r.report, r.run(ctx, order)
}

// form starts a cluster and picks what will break it. The runner is to be closed.
func form(ctx context.Context, o Options) (*runner, []Fault, error) {
	o.defaults()
	order, err := Schedule(o.Seed, o.Rounds, o.Nodes, Can{o.Net.Cuts(), o.Disks != nil}, o.Faults, o.More...)
	if err != nil {
		return nil, nil, err
	}
	c, err := open(&o)
	if err != nil {
		return nil, nil, err
	}
	e := &Env{Cluster: c, dir: o.Dir, Net: o.Net, Disks: o.Disks, Rand: rand.New(rand.NewPCG(o.Seed, 2)), Log: o.Log}
	if e.key, err = keyOf(&o); err != nil {
		return nil, nil, err
	}
	e.http = newClient(e.key)
	r := &runner{o: o, env: e, rec: NewRecorder(), report: &Report{Seed: o.Seed, Outcomes: map[string]int{}, Ends: map[task.State]int{}}}
	starting, cancel := context.WithTimeout(ctx, o.StartMax)
	defer cancel()
	err = c.Start(starting)
	if err == nil {
		err = e.Settled(starting)
	}
	if err != nil {
		r.close()
		return nil, nil, err
	}
	return r, order, nil
}

// close kills the nodes that still run.
func (r *runner) close() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	r.env.Cluster.Close(now)
	r.env.http.close()
}

// keyOf is the key that nodes want to see where others than this machine reach them.
func keyOf(o *Options) (string, error) {
	if o.Net.Host(0) == "" {
		return "", nil
	}
	b, err := os.ReadFile(filepath.Join(o.Dir, "pki", "admin.key"))
	return strings.TrimSpace(string(b)), err
}

// open makes the cluster of dev with the processes on the Net.
func open(o *Options) (*dev.Cluster, error) {
	// Echo forgets with its process how often it was to fail, so a task may meet that failure in every life.
	args := append([]string{"--engine", o.Engine, "--log-level", "warn",
		"--set", "task.attempts=16", "--set", "task.backoff_min=100ms", "--set", "task.backoff_max=2s"}, o.Args...)
	d := dev.Options{Dir: o.Dir, Nodes: o.Nodes, StopMax: 30 * time.Second, Args: args}
	if o.Disks != nil {
		d.Data, d.Args = o.Disks.Data, append(args, o.Disks.Args()...)
	}
	if o.Net.Host(0) != "" {
		d.Host, d.HTTPPort, d.ClusterPort = o.Net.Host, dev.HTTPDefault, gossipPort
		d.Args = append(d.Args, "--set", "access.keys=required", "--set", "http.allow_plaintext=true")
	}
	binary, err := filepath.Abs(o.Binary)
	if err != nil {
		return nil, err
	}
	if o.BinaryOf == nil {
		o.BinaryOf = func(string) string { return binary }
	}
	var mu sync.Mutex
	numbers := map[string]int{}
	d.Command = func(name string, args []string) *exec.Cmd {
		mu.Lock()
		defer mu.Unlock()
		i := 0
		if _, err := fmt.Sscanf(name, "node-%d", &i); err == nil {
			numbers[name] = i - 1
		}
		cmd := exec.Command(o.BinaryOf(name), args...)
		cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "AUTOGLM_CHAOS_") }) // not theirs
		cmd.Env = append(cmd.Env, clock.Env+"="+clockOf(o.Dir, name))
		return o.Net.Wrap(numbers[name], cmd)
	}
	return dev.Open(d)
}

type runner struct {
	o      Options
	env    *Env
	rec    *Recorder
	report *Report
}

func (r *runner) wrong(id, format string, args ...any) {
	r.report.Violations = append(r.report.Violations, Violation{ID: id, What: fmt.Sprintf(format, args...)})
}

func (r *runner) peers() (ps []Peer) {
	for _, n := range r.env.Cluster.Nodes() {
		ps = append(ps, Peer{n.Name, n.URL, r.env.key})
	}
	return ps
}

func (r *runner) run(ctx context.Context, order []Fault) error {
	load := StartWorkload(r.peers(), r.rec, r.o.Clients, r.o.Think, r.o.Seed)
	defer load.Stop()
	if err := r.breakAll(ctx, order); err != nil {
		return err
	}
	load.Stop()
	r.judge(ctx, load)
	return ctx.Err()
}

// breakAll lets one fault after the other happen, each at a random moment under load.
func (r *runner) breakAll(ctx context.Context, order []Fault) error {
	for i, f := range order {
		if err := r.env.hold(ctx, r.env.moment(0, 2*time.Second)); err != nil {
			return err
		}
		r.o.Log("round %d of %d: %s", i+1, len(order), f.Name)
		if err := r.round(ctx, f); err != nil {
			return err
		}
		if len(r.report.Violations) > 0 { // it did not heal: more faults would say nothing
			break
		}
	}
	return nil
}

func (r *runner) round(ctx context.Context, f Fault) error {
	began := time.Now()
	limit, cancel := context.WithTimeout(ctx, 2*r.o.SettleMax) // a fault that lasts is part of it
	defer cancel()
	err := f.Do(limit, r.env)
	mended := time.Now()
	settle, cancel := context.WithTimeout(ctx, r.o.SettleMax)
	defer cancel()
	if err != nil { // a node did not come back: is that for ever?
		r.o.Log("%s: %v", f.Name, err)
		err = r.env.Heal(settle)
	}
	err = errors.Join(err, r.env.Settled(settle))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.report.Rounds = append(r.report.Rounds, Round{f.Name, mended.Sub(began), time.Since(mended)})
	if err != nil {
		r.wrong("", "%s: %v", f.Name, err)
	}
	return nil
}

// judge reads how everything ended and compares.
func (r *runner) judge(ctx context.Context, load *Workload) {
	ops := r.rec.Ops()
	r.report.Ops = len(ops)
	if err := r.keep(ops); err != nil {
		r.o.Log("the history is not kept: %v", err)
	}
	for _, o := range ops {
		r.report.Outcomes[o.Verb.String()+" "+o.Outcome.String()]++
	}
	for _, w := range load.Wrong() {
		r.wrong("", "%s", w)
	}
	ids := load.IDs()
	r.report.Tasks = len(ids)
	finals := r.finals(ctx, ids)
	for id, f := range finals {
		if f.Found {
			r.report.Ends[f.State]++
		}
		if f.State == task.Failed && r.report.Ends[task.Failed] <= failedShown { // allowed: it may have met too many faults
			r.o.Log("%s failed:\n%s", id, describeFacts(f.Events))
		}
	}
	bad := append(CheckFinals(ops, finals), CheckHistory(ops, r.o.JudgeMax)...)
	for _, p := range r.peers() {
		counts, err := r.env.http.counts(ctx, p)
		if err != nil {
			r.wrong("", "status of %s: %v", p.Name, err)
			continue
		}
		bad = append(bad, CheckCounts(p.Name, counts, finals)...)
		listed, err := r.env.http.list(ctx, p)
		if err != nil {
			r.wrong("", "list of %s: %v", p.Name, err)
			continue
		}
		bad = append(bad, CheckList(p.Name, listed, finals)...)
	}
	r.report.Violations = append(r.report.Violations, bad...)
}

// keep writes the history beside the nodes' logs, for a person.
func (r *runner) keep(ops []Op) error {
	f, err := os.Create(filepath.Join(r.o.Dir, historyFile))
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	for _, o := range ops {
		fmt.Fprintln(w, o)
	}
	return errors.Join(w.Flush(), f.Close())
}

const historyFile = "history.txt" // all ops of a run, one a line

const failedShown = 3 // of the tasks that failed, with their histories

const finalReaders = 4 // of the tasks at the end, at once

// finals waits until every task has ended, in EndMax for all together.
func (r *runner) finals(ctx context.Context, ids []string) map[string]Final {
	ctx, cancel := context.WithTimeout(ctx, r.o.EndMax)
	defer cancel()
	var mu sync.Mutex
	finals := map[string]Final{}
	todo := make(chan string)
	var wg sync.WaitGroup
	peers := r.peers()
	for k := range finalReaders {
		wg.Go(func() {
			for id := range todo {
				f, err := r.final(ctx, peers[k%len(peers)], id)
				mu.Lock()
				if err != nil {
					r.wrong(id, "its end cannot be read: %v", err)
				} else {
					finals[id] = f
				}
				mu.Unlock()
			}
		})
	}
	for _, id := range ids {
		todo <- id
	}
	close(todo)
	wg.Wait()
	return finals
}

func (r *runner) final(ctx context.Context, p Peer, id string) (Final, error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		f, again, err := r.env.http.final(ctx, p, id)
		if !again {
			return f, err
		}
		select {
		case <-ctx.Done():
			return f, err // not final: CheckFinals calls it stuck
		case <-tick.C:
		}
	}
}
