package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/dev"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// Bounds and times of failover.
const (
	slowTasks   = 12              // of each kill: those that run on the victim have to run again
	slowFor     = 5 * time.Second // latency of one: it outlasts the time until the kill by far
	killAfter   = time.Second     // from the slow tasks' submit, and up to as much again, so that kills meet all phases of timers
	failoverMax = time.Minute     // for a shard to commit, and a task to run, again
)

// failover is one run of the benchmark.
type failover struct {
	l       *local
	clients *commits
	names   map[string]string // of nodes, by their ids

	commit, slowest, rerun, whole []time.Duration
}

// failoverBench kills one node after another while a client for each shard commits all the time. The clock starts with
// the kill, and stops for each shard of the killed node when a submit that was sent after its death is acknowledged.
func (r *runner) failoverBench(ctx context.Context, l *local) ([]reading, error) {
	nodes := l.up()
	v, err := l.look(ctx, nodes[0])
	if err != nil {
		return nil, err
	}
	f := &failover{l: l, clients: startCommits(ctx, len(v.Shards), l.addrs()), names: map[string]string{}}
	defer f.clients.stop()
	for k := range r.o.kills {
		began := time.Now()
		if err := f.kill(ctx, k, nodes[k%len(nodes)]); err != nil {
			if len(f.whole) > 0 && errors.Is(context.Cause(ctx), errTimeout) {
				break // the rows tell how many kills they are of
			}
			return nil, fmt.Errorf("kill %d, of %s: %w", k+1, nodes[k%len(nodes)].Name, err)
		}
		fmt.Fprintf(r.say, "  kill %d of %d, %s: commits again after %v at most, whole again %v after its start; %v in all\n", k+1, r.o.kills, nodes[k%len(nodes)].Name,
			f.slowest[k].Round(time.Millisecond), f.whole[k].Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	}
	return f.readings(), nil
}

func (f *failover) readings() []reading {
	seconds := func(name string, lat *Latency, value func(*Latency) float64, note string) reading {
		return reading{figure: name, value: value(lat) / 1000, unit: "s", lat: lat, note: note}
	}
	p50, p99 := func(l *Latency) float64 { return l.P50 }, func(l *Latency) float64 { return l.P99 }
	commit, slowest, whole := latencyOf(f.commit), latencyOf(f.slowest), latencyOf(f.whole)
	out := []reading{
		seconds("kill to first commit on a shard, p50", commit, p50, fmt.Sprintf("%d shards of %d kills", commit.Count, slowest.Count)),
		seconds(figCommitP99, commit, p99, fmt.Sprintf("at most %s s", figure(commit.Max/1000))),
		seconds("kill to first commit on all shards, p50", slowest, p50, ""),
	}
	if rerun := latencyOf(f.rerun); rerun != nil {
		out = append(out, seconds("kill to a running task's next attempt, p50", rerun, p50, fmt.Sprintf("%d tasks", rerun.Count)),
			seconds(figRerunP99, rerun, p99, fmt.Sprintf("at most %s s", figure(rerun.Max/1000))))
	}
	return append(out, seconds("start of the killed node to a whole cluster, p50", whole, p50, fmt.Sprintf("at most %s s", figure(whole.Max/1000))))
}

// kill kills a node, measures, and makes the cluster whole again.
func (f *failover) kill(ctx context.Context, k int, victim dev.Node) error {
	var others []dev.Node
	var addrs []string
	for _, n := range f.l.up() {
		if n.Name != victim.Name {
			others, addrs = append(others, n), append(addrs, n.HTTP)
		}
	}
	f.clients.use(addrs)
	slow, err := f.submitSlow(ctx, k, addrs)
	if err != nil {
		return err
	}
	if err := waitUntil(ctx, time.Now().Add(killAfter+rand.N(killAfter))); err != nil {
		return err
	}
	v, err := f.l.look(ctx, others[0])
	if err != nil {
		return err
	}
	for _, m := range v.Members {
		f.names[m.Node] = m.Name
	}
	slow, err = f.runningOn(ctx, victim.Name, slow, addrs[0])
	if err != nil {
		return err
	}
	at := time.Now()
	if err := f.l.c.KillNode(victim.Name); err != nil {
		return err
	}
	var firsts []<-chan time.Time
	for _, s := range v.Shards {
		if s.Lead != nil && s.Lead.Node == victim.Name {
			firsts = append(firsts, f.clients.arm(s.Shard))
		}
	}
	late, cancel := context.WithTimeoutCause(ctx, failoverMax, fmt.Errorf("not within %v", failoverMax))
	defer cancel()
	times, err := firstCommits(late, at, firsts)
	if err != nil {
		return err
	}
	if len(times) == 0 {
		return errors.New("it led no shard")
	}
	f.commit, f.slowest = append(f.commit, times...), append(f.slowest, longest(times))
	reruns, err := f.reruns(late, at, slow, addrs[0])
	if err != nil {
		return err
	}
	f.rerun = append(f.rerun, reruns...)
	started := time.Now()
	if err := f.l.c.StartNode(ctx, victim.Name); err != nil {
		return err
	}
	if err := f.l.whole(ctx); err != nil {
		return err
	}
	f.whole = append(f.whole, time.Since(started))
	return nil
}

// firstCommits waits for the first commit on each shard and returns how long after the kill it was.
func firstCommits(ctx context.Context, kill time.Time, firsts []<-chan time.Time) ([]time.Duration, error) {
	times := make([]time.Duration, 0, len(firsts))
	for _, c := range firsts {
		select {
		case at := <-c:
			times = append(times, at.Sub(kill))
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d shards commit again: %w", len(times), len(firsts), context.Cause(ctx))
		}
	}
	return times, nil
}

func longest(times []time.Duration) (most time.Duration) {
	for _, t := range times {
		most = max(most, t)
	}
	return most
}

// submitSlow submits tasks on which an engine works for slowFor.
func (f *failover) submitSlow(ctx context.Context, k int, addrs []string) (ids []string, err error) {
	for i := range slowTasks {
		id := fmt.Sprintf("slow-%d-%d", k, i)
		if err := f.clients.post(ctx, addrs[i%len(addrs)], slowTask(id, slowFor)); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// runningOn returns those tasks whose newest attempt runs on a node.
func (f *failover) runningOn(ctx context.Context, name string, ids []string, addr string) (on []string, err error) {
	for _, id := range ids {
		t, err := f.task(ctx, addr, id)
		if err != nil {
			return nil, err
		}
		if n := len(t.Attempts); t.State == task.Running && n > 0 && (t.Attempts[n-1].Node == name || f.names[t.Attempts[n-1].Node] == name) {
			on = append(on, id)
		}
	}
	return on, nil
}

func (f *failover) task(ctx context.Context, addr, id string) (t wire.Task, err error) {
	n := node{addr: addr, control: f.l.http}
	err = n.get(ctx, "/v1/tasks/"+id, &t)
	return t, err
}

// reruns waits until each task was claimed after the kill, and returns how long after it. One that had its answer by then
// is left out.
func (f *failover) reruns(ctx context.Context, kill time.Time, ids []string, addr string) (times []time.Duration, err error) {
	for _, id := range ids {
		for {
			t, err := f.task(ctx, addr, id)
			if err == nil {
				if d, ok := claimedAfter(kill, t.Attempts); ok {
					times = append(times, d)
					break
				}
				if t.State.Final() {
					break // its answer was on disk before the kill
				}
				err = fmt.Errorf("it is %v", t.State)
			}
			if werr := waitUntil(ctx, time.Now().Add(lookEvery)); werr != nil {
				return nil, fmt.Errorf("task %s was not claimed again: %w (%w)", id, werr, err)
			}
		}
	}
	return times, nil
}

// claimedAfter returns how long after the kill the first attempt of the time after it was claimed. Node and client have
// the same clock.
func claimedAfter(kill time.Time, attempts []wire.Attempt) (time.Duration, bool) {
	for _, a := range attempts {
		if a.ClaimedAt.After(kill) {
			return a.ClaimedAt.Sub(kill), true
		}
	}
	return 0, false
}
