package bench

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/dev"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// Bounds and times of a cluster under measurement.
const (
	nodesMin   = 3  // fewer cannot lose one
	nodesMax   = 16 // on one machine
	replicas   = 3  // of a shard
	behindMax  = 64 // entries that a replica may lack and still count as caught up, as in package placement
	leadsApart = 1  // leads that one node may have more than another when they are spread
	lookEvery  = 100 * time.Millisecond
	lookMax    = 5 * time.Second // for one look
	restFor    = 3 * time.Second // without a change, after which placement is at rest
)

// setting says what the nodes of a cluster share; "" for a node alone.
func setting(nodes int) string {
	if nodes == 1 {
		return ""
	}
	words := []string{3: "three", 4: "four", 5: "five", 6: "six"}
	n := strconv.Itoa(nodes)
	if nodes < len(words) {
		n = words[nodes]
	}
	return n + " processes, one disk, one machine"
}

// local is a cluster of nodes as child processes on loopback, with the engine that echoes.
type local struct {
	c    *dev.Cluster
	http *http.Client
}

// onCluster gives a benchmark a new cluster, once every shard has its replicas and the leads are spread.
func (r *runner) onCluster(f func(context.Context, *local) ([]reading, error)) func(context.Context, string) ([]reading, error) {
	return r.onClusterOf([]string{"--engine", "echo"}, f)
}

// onClusterOf is onCluster with other engines, as flags of serve.
func (r *runner) onClusterOf(engines []string, f func(context.Context, *local) ([]reading, error)) func(context.Context, string) ([]reading, error) {
	return func(ctx context.Context, dir string) ([]reading, error) {
		c, err := dev.Open(dev.Options{Dir: filepath.Join(dir, "cluster"), Nodes: r.o.nodes, StopMax: stopMax,
			Args:    append([]string{"--log-level", "warn"}, engines...),
			Command: func(_ string, args []string) *exec.Cmd { return exec.Command(r.binary, args...) }})
		if err != nil {
			return nil, err
		}
		l := &local{c: c, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}}
		defer l.close()
		if err := c.Start(ctx); err != nil {
			return nil, err
		}
		if _, err := l.settled(ctx); err != nil {
			return nil, err
		}
		out, err := f(ctx, l)
		if why := l.ended(); err != nil && why != "" {
			err = fmt.Errorf("%w\n%s\n%s", err, why, l.log())
		}
		return out, err
	}
}

// close kills the nodes: nobody needs their data any more.
func (l *local) close() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	l.c.Close(now)
	l.http.CloseIdleConnections()
}

// asNode lets a benchmark of one node run on all.
func (l *local) asNode() *node {
	return &node{addr: l.addrs()[0], control: l.http, peers: l}
}

// up are the nodes that have a process.
func (l *local) up() []dev.Node {
	return slices.DeleteFunc(l.c.Nodes(), func(n dev.Node) bool { return n.PID == 0 })
}

func (l *local) addrs() (all []string) {
	for _, n := range l.up() {
		all = append(all, n.HTTP)
	}
	return all
}

func (l *local) pids() (all []int) {
	for _, n := range l.up() {
		all = append(all, n.PID)
	}
	return all
}

// ended names the nodes that have no process; "" when all have.
func (l *local) ended() string {
	var all []string
	for _, n := range l.c.Nodes() {
		if n.PID == 0 {
			all = append(all, n.Name+" "+n.Reason)
		}
	}
	return strings.Join(all, ", ")
}

// log returns the end of what each node said.
func (l *local) log() string {
	var b strings.Builder
	for _, n := range l.c.Nodes() {
		text, err := os.ReadFile(n.Log)
		if err != nil {
			text = []byte(err.Error())
		}
		fmt.Fprintf(&b, "%s: %s\n", n.Name, strings.TrimSpace(string(text[max(0, len(text)-logTail):])))
	}
	return b.String()
}

// look asks a node for its view of the cluster.
func (l *local) look(ctx context.Context, n dev.Node) (*wire.Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, lookMax)
	defer cancel()
	c, err := client.New(n.URL, client.WithRetry(0), client.WithHTTPClient(l.http))
	if err != nil {
		return nil, err
	}
	return c.Cluster(ctx)
}

// await looks at the cluster through each of the nodes that are up until none of them misses anything.
func (l *local) await(ctx context.Context, missing func(*wire.Cluster) string) error {
	for {
		why := ""
		for _, n := range l.up() {
			v, err := l.look(ctx, n)
			if err == nil {
				why = missing(v)
			} else {
				why = err.Error()
			}
			if why != "" {
				why = "as " + n.Name + " sees it, " + why
				break
			}
		}
		if why == "" {
			return nil
		}
		if err := waitUntil(ctx, time.Now().Add(lookEvery)); err != nil {
			return fmt.Errorf("bench.cluster: %s: %w", why, err)
		}
	}
}

// whole waits until the cluster of the nodes that are up could lose one of them.
func (l *local) whole(ctx context.Context) error {
	names := namesOf(l.up())
	return l.await(ctx, func(v *wire.Cluster) string { return lacks(v, names) })
}

// settled is whole, and then waits until placement has changed nothing for restFor. It returns when the last change was.
func (l *local) settled(ctx context.Context) (time.Time, error) {
	names := namesOf(l.up())
	at, last := time.Now(), ""
	for {
		if err := l.whole(ctx); err != nil {
			return at, err
		}
		v, err := l.look(ctx, l.up()[0])
		if err != nil {
			return at, err
		}
		switch now := placementOf(v); {
		case now != last || lacks(v, names) != "":
			at, last = time.Now(), now
		case time.Since(at) >= restFor:
			return at, nil
		}
		if err := waitUntil(ctx, time.Now().Add(lookEvery)); err != nil {
			return at, err
		}
	}
}

func namesOf(nodes []dev.Node) (all []string) {
	for _, n := range nodes {
		all = append(all, n.Name)
	}
	return all
}

// placementOf writes down who holds and who leads each shard.
func placementOf(v *wire.Cluster) string {
	var b strings.Builder
	for _, s := range v.Shards {
		fmt.Fprintf(&b, "%d:%d", s.Shard, s.Version)
		if s.Lead != nil {
			b.WriteString(s.Lead.Node)
		}
		b.WriteByte(' ')
	}
	return b.String()
}

// lacks says what the cluster of these nodes lacks to lose one of them: a node, a shard's owner, a replica that is there
// and has caught up, or leads that are spread. "" when nothing.
func lacks(v *wire.Cluster, names []string) string {
	alive := map[string]bool{}
	for _, n := range v.Members {
		alive[n.Name] = n.State == "alive"
	}
	for _, n := range names {
		if !alive[n] {
			return n + " is not there"
		}
	}
	if len(v.Shards) == 0 {
		return "there are no shards"
	}
	leads := map[string]int{}
	for _, s := range v.Shards {
		if s.Lead == nil {
			return fmt.Sprintf("shard %d has no owner", s.Shard)
		}
		leads[s.Lead.Node]++
		newest, good := uint64(0), 0
		for _, r := range s.Replicas {
			newest = max(newest, r.Applied)
		}
		for _, r := range s.Replicas {
			if r.Alive && r.Voter && newest-r.Applied <= behindMax && slices.Contains(names, r.Node) {
				good++
			}
		}
		if want := min(replicas, len(names)); good < want || len(s.Replicas) != want {
			return fmt.Sprintf("shard %d has %d good replicas of %d", s.Shard, good, len(s.Replicas))
		}
	}
	least, most := len(v.Shards), 0
	for _, n := range names {
		least, most = min(least, leads[n]), max(most, leads[n])
	}
	if most-least > leadsApart {
		return fmt.Sprintf("leads are not spread: %v", leads)
	}
	return ""
}

// drained waits until none of the named nodes has a replica or a lead.
func (l *local) drained(ctx context.Context, names []string) error {
	return l.await(ctx, func(v *wire.Cluster) string {
		for _, n := range v.Members {
			if slices.Contains(names, n.Name) && (n.Replicas > 0 || n.Owned > 0) {
				return fmt.Sprintf("%s still has %d replicas", n.Name, n.Replicas)
			}
		}
		return ""
	})
}
