package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/dev"
)

const (
	lookEvery = 100 * time.Millisecond // between looks at other processes
	lagMax    = 1000                   // entries that a replica may lack and still count as caught up, under load
	replicas  = 3                      // of a shard, on so many nodes or more
)

// Env is what faults break.
type Env struct {
	Cluster *dev.Cluster
	Net     Net
	Disks   *SmallDisks // nil: disks are not filled
	Rand    *rand.Rand  // of the schedule: what a fault picks comes from the seed
	Log     func(format string, args ...any)

	http *client
	key  string
	dir  string // of the clocks' files
}

// cluster is what GET /v1/cluster tells, as far as faults need it.
type cluster struct {
	Coordinator *lead `json:"coordinator"`
	Shards      []struct {
		Shard    int   `json:"shard"`
		Lead     *lead `json:"lead"`
		Replicas []struct {
			Node    string `json:"node"`
			Voter   bool   `json:"voter"`
			Alive   bool   `json:"alive"`
			Applied uint64 `json:"applied"`
		} `json:"replicas"`
	} `json:"shards"`
}

type lead struct {
	Node string `json:"node"`
}

// view asks any node for its view of the cluster.
func (e *Env) view(ctx context.Context) (cl cluster, err error) {
	err = errors.New("no node runs")
	for _, i := range e.Rand.Perm(e.size()) {
		n := e.Cluster.Nodes()[i]
		if n.State != dev.Ready {
			continue
		}
		if err = e.http.getJSON(ctx, n.URL+"/v1/cluster", &cl); err == nil {
			return cl, nil
		}
	}
	return cl, err
}

func (e *Env) size() int         { return len(e.Cluster.Nodes()) }
func (e *Env) name(i int) string { return e.Cluster.Nodes()[i].Name }
func (e *Env) anyNode() int      { return e.Rand.IntN(e.size()) }
func (e *Env) index(name string) int {
	for i, n := range e.Cluster.Nodes() {
		if n.Name == name {
			return i
		}
	}
	return -1
}

// owner is the node that leads a shard, or any node when nobody knows: the schedule goes on either way.
func (e *Env) owner(ctx context.Context, shard uint64) int {
	cl, err := e.view(ctx)
	if err == nil && len(cl.Shards) > 0 {
		if s := cl.Shards[shard%uint64(len(cl.Shards))]; s.Lead != nil {
			if i := e.index(s.Lead.Node); i >= 0 {
				return i
			}
		}
	}
	e.Log("the owner of a shard is not known: any node will do (%v)", err)
	return e.anyNode()
}

// coordinator is the node where the coordinator lives, or any node.
func (e *Env) coordinator(ctx context.Context) int {
	cl, err := e.view(ctx)
	if err == nil && cl.Coordinator != nil {
		if i := e.index(cl.Coordinator.Node); i >= 0 {
			return i
		}
	}
	e.Log("the coordinator is not known: any node will do (%v)", err)
	return e.anyNode()
}

// hold lets a fault last.
func (e *Env) hold(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// moment is a random duration.
func (e *Env) moment(least, most time.Duration) time.Duration {
	return least + time.Duration(e.Rand.Int64N(int64(most-least)+1))
}

// start starts nodes that are down, all at once; they may need each other to get ready.
func (e *Env) start(ctx context.Context) error { return e.Cluster.Start(ctx) }

// pause stops a node's process for a while; it goes on in any case.
func (e *Env) pause(ctx context.Context, i int, d time.Duration) error {
	name := e.name(i)
	if err := e.Cluster.Signal(name, syscall.SIGSTOP); err != nil {
		return err
	}
	return errors.Join(e.hold(ctx, d), e.Cluster.Signal(name, syscall.SIGCONT))
}

// wipe removes what a node that is down had on its disk; its identity stays.
func (e *Env) wipe(i int) error {
	n := e.Cluster.Nodes()[i]
	if n.State != dev.Down {
		return fmt.Errorf("%s is %s: its folder is in use", n.Name, n.State)
	}
	return os.RemoveAll(n.DataDir)
}

// flipBit changes one bit in one of the data files of a node that is down, and says which.
func (e *Env) flipBit(i int) (string, error) {
	var files []string
	root := e.Cluster.Nodes()[i].DataDir
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !slices.Contains(dataFiles, filepath.Ext(path)) {
			return err
		}
		if st, err := d.Info(); err == nil && st.Size() > 0 {
			files = append(files, path)
		}
		return nil
	})
	if err != nil || len(files) == 0 {
		return "there is no data file to damage", err
	}
	slices.Sort(files)
	path := files[e.Rand.IntN(len(files))]
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return "", err
	}
	at, b := e.Rand.Int64N(st.Size()), make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return "", err
	}
	b[0] ^= 1 << e.Rand.IntN(8)
	if _, err := f.WriteAt(b, at); err != nil {
		return "", err
	}
	return fmt.Sprintf("a bit of byte %d of %d of %s is flipped", at, st.Size(), strings.TrimPrefix(path, root+"/")), nil
}

// dataFiles are the names' ends of what a store checks when it reads: tables, value logs and write-ahead logs.
var dataFiles = []string{".sst", ".vlog", ".mem", ".log"}

// Heal ends all cuts, frees all disks, sets all clocks right, wakes all processes, starts all nodes.
func (e *Env) Heal(ctx context.Context) error {
	err := e.Net.Heal()
	for i := range e.size() {
		err = errors.Join(err, e.setClock(i, 0))
		if e.Disks != nil {
			err = errors.Join(err, e.Disks.Free(i))
		}
	}
	for _, n := range e.Cluster.Nodes() {
		if n.State != dev.Down {
			err = errors.Join(err, e.Cluster.Signal(n.Name, syscall.SIGCONT))
		}
	}
	return errors.Join(err, e.start(ctx))
}

// Settled waits until the cluster has got over a fault: every node is ready, every shard has an owner and all its
// replicas, and they have caught up. Until then another fault could break more than was ever promised to hold.
func (e *Env) Settled(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		why := e.unsettled(ctx)
		if why == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not healed in time: %s", why)
		case <-tick.C:
		}
	}
}

// unsettled says what is missing still; "" when nothing is.
func (e *Env) unsettled(ctx context.Context) string {
	for _, n := range e.Cluster.Status(ctx) {
		if n.State != dev.Ready {
			return fmt.Sprintf("%s is %s: %s", n.Name, n.State, n.Reason)
		}
	}
	if e.size() == 1 {
		return ""
	}
	cl, err := e.view(ctx)
	if err != nil {
		return err.Error()
	}
	return cl.missing(min(replicas, e.size()))
}

// missing says which shard lacks what.
func (c *cluster) missing(want int) string {
	if len(c.Shards) == 0 {
		return "the cluster has no shards"
	}
	for _, s := range c.Shards {
		var most uint64
		for _, r := range s.Replicas {
			most = max(most, r.Applied)
		}
		good, who := 0, []string{}
		for _, r := range s.Replicas {
			who = append(who, fmt.Sprintf("%s voter=%t alive=%t applied=%d", r.Node, r.Voter, r.Alive, r.Applied))
			if r.Voter && r.Alive && r.Applied+lagMax >= most {
				good++
			}
		}
		switch {
		case s.Lead == nil:
			return fmt.Sprintf("shard %d has no owner", s.Shard)
		case good < want:
			return fmt.Sprintf("shard %d has %d of %d good replicas: %s", s.Shard, good, want, strings.Join(who, "; "))
		}
	}
	return ""
}
