package chaos

import (
	"context"
	"errors"
	"time"
)

// Fault is one way to break a cluster. Do breaks it, lets that last and mends it again, but waits for no recovery.
type Fault struct {
	Name  string
	Nodes int  // that it needs at least
	Cuts  bool // it needs a Net that can cut
	Disks bool // it needs small disks
	Do    func(ctx context.Context, e *Env) error
}

// Ports beside a node's gossip port, on a Net where every node has its own address.
const (
	gossipPort = 7946
	raftPort   = gossipPort + 1
	actorPort  = gossipPort + 2
)

// Faults are all there are, in the order in which names are listed.
func Faults() []Fault {
	return []Fault{
		{"kill-one", 1, false, false, func(ctx context.Context, e *Env) error { return kill(ctx, e, e.anyNode()) }},
		{"kill-owner", 1, false, false, func(ctx context.Context, e *Env) error { return kill(ctx, e, e.owner(ctx, e.Rand.Uint64())) }},
		{"kill-coordinator", 1, false, false, func(ctx context.Context, e *Env) error { return kill(ctx, e, e.coordinator(ctx)) }},
		{"kill-all", 1, false, false, killAll},
		{"stop-1s", 1, false, false, func(ctx context.Context, e *Env) error { return stop(ctx, e, time.Second) }},
		{"stop-5s", 1, false, false, func(ctx context.Context, e *Env) error { return stop(ctx, e, 5*time.Second) }},
		{"stop-30s", 1, false, false, func(ctx context.Context, e *Env) error { return stop(ctx, e, 30*time.Second) }},
		{"restart-one", 1, false, false, restart},
		{"clock-jump", 1, false, false, jump},
		{"wipe-one", 3, false, false, wipe},
		{"flip-one", 3, false, false, flip},
		{"cut-one", 3, true, false, func(ctx context.Context, e *Env) error { return cutOne(ctx, e, e.anyNode()) }},
		{"cut-owner", 3, true, false, func(ctx context.Context, e *Env) error { return cutOne(ctx, e, e.owner(ctx, e.Rand.Uint64())) }},
		{"cut-to-one", 3, true, false, func(ctx context.Context, e *Env) error { return oneWay(ctx, e, true) }},
		{"cut-from-one", 3, true, false, func(ctx context.Context, e *Env) error { return oneWay(ctx, e, false) }},
		{"cut-bridge", 3, true, false, bridge},
		{"cut-raft", 3, true, false, func(ctx context.Context, e *Env) error { return cutPorts(ctx, e, raftPort) }},
		{"cut-gossip", 3, true, false, func(ctx context.Context, e *Env) error { return cutPorts(ctx, e, gossipPort) }},
		{"cut-actors", 3, true, false, func(ctx context.Context, e *Env) error { return cutPorts(ctx, e, actorPort) }},
		{"cut-flapping", 3, true, false, flapping},
		{"slow-one", 3, true, false, slow},
		{"fill-one", 1, false, true, func(ctx context.Context, e *Env) error { return fillDisk(ctx, e, e.anyNode()) }},
		{"fill-owner", 1, false, true, func(ctx context.Context, e *Env) error { return fillDisk(ctx, e, e.owner(ctx, e.Rand.Uint64())) }},
	}
}

// How long faults last, besides those that say it in their name.
const (
	downMin, downMax = 0, 3 * time.Second               // of a killed node
	cutMin, cutMax   = 2 * time.Second, 8 * time.Second // of a cut: longer than an election and than gossip's suspicion
	flapMin, flapMax = 100 * time.Millisecond, time.Second
	flaps            = 6
	slowKbit         = 256
	diskLeft         = 24 << 20 // bytes on a full disk: a node stops at half of its reserve, long before the last one
)

func kill(ctx context.Context, e *Env, i int) error {
	e.Log("kill -9 of %s", e.name(i))
	if err := e.Cluster.KillNode(e.name(i)); err != nil {
		return err
	}
	if err := e.hold(ctx, e.moment(downMin, downMax)); err != nil {
		return err
	}
	return e.start(ctx)
}

func killAll(ctx context.Context, e *Env) error {
	e.Log("kill -9 of all nodes")
	if err := killNodes(e); err != nil {
		return err
	}
	return e.start(ctx)
}

// killNodes kills all at once and waits until they are dead.
func killNodes(e *Env) error {
	errs := make(chan error, e.size())
	for _, n := range e.Cluster.Nodes() {
		go func() { errs <- e.Cluster.KillNode(n.Name) }()
	}
	var err error
	for range e.size() {
		err = errors.Join(err, <-errs)
	}
	return err
}

func stop(ctx context.Context, e *Env, d time.Duration) error {
	i := e.anyNode()
	e.Log("SIGSTOP of %s for %v", e.name(i), d)
	return e.pause(ctx, i, d)
}

func restart(ctx context.Context, e *Env) error {
	i := e.anyNode()
	e.Log("an orderly restart of %s", e.name(i))
	return e.Cluster.RestartNode(ctx, e.name(i))
}

func wipe(ctx context.Context, e *Env) error {
	i := e.anyNode()
	e.Log("kill -9 of %s, and its disk is empty when it comes back", e.name(i))
	if err := e.Cluster.KillNode(e.name(i)); err != nil {
		return err
	}
	if err := e.wipe(i); err != nil {
		return err
	}
	return e.start(ctx)
}

// flip: a node dies, and one bit of what it had on its disk is another when it comes back.
func flip(ctx context.Context, e *Env) error {
	i := e.anyNode()
	if err := e.Cluster.KillNode(e.name(i)); err != nil {
		return err
	}
	where, err := e.flipBit(i)
	if err != nil {
		return err
	}
	e.Log("kill -9 of %s, and %s", e.name(i), where)
	return e.start(ctx)
}

func (e *Env) others(i int) (rest []int) {
	for j := range e.size() {
		if j != i {
			rest = append(rest, j)
		}
	}
	return rest
}

func (e *Env) cutFor(ctx context.Context, d time.Duration, cuts []Cut) error {
	if err := e.Net.Cut(cuts...); err != nil {
		return err
	}
	return errors.Join(e.hold(ctx, d), e.Net.Heal())
}

func cutOne(ctx context.Context, e *Env, i int) error {
	d := e.moment(cutMin, cutMax)
	e.Log("%s is alone for %v", e.name(i), d)
	return e.cutFor(ctx, d, Both([]int{i}, e.others(i)))
}

// oneWay: packets to a node, or from it, get lost; the others arrive.
func oneWay(ctx context.Context, e *Env, to bool) error {
	i, d := e.anyNode(), e.moment(cutMin, cutMax)
	var cuts []Cut
	for _, j := range e.others(i) {
		if to {
			cuts = append(cuts, Cut{From: j, To: i})
		} else {
			cuts = append(cuts, Cut{From: i, To: j})
		}
	}
	e.Log("%s is cut off in one direction for %v (it hears nothing: %t)", e.name(i), d, to)
	return e.cutFor(ctx, d, cuts)
}

// bridge: two halves that only one node sees both of.
func bridge(ctx context.Context, e *Env) error {
	order, d := e.Rand.Perm(e.size()), e.moment(cutMin, cutMax)
	half := (len(order) - 1) / 2
	e.Log("only %s sees all others for %v", e.name(order[0]), d)
	return e.cutFor(ctx, d, Both(order[1:1+half], order[1+half:]))
}

// cutPorts: one service of a node is cut off, the others work.
func cutPorts(ctx context.Context, e *Env, port uint16) error {
	i, d := e.anyNode(), e.moment(cutMin, cutMax)
	e.Log("port %d between %s and the others is cut for %v", port, e.name(i), d)
	return e.cutFor(ctx, d, Both([]int{i}, e.others(i), port))
}

func flapping(ctx context.Context, e *Env) error {
	i := e.anyNode()
	e.Log("the wire of %s flaps %d times", e.name(i), flaps)
	for range flaps {
		if err := e.cutFor(ctx, e.moment(flapMin, flapMax), Both([]int{i}, e.others(i))); err != nil {
			return err
		}
		if err := e.hold(ctx, e.moment(flapMin, flapMax)); err != nil {
			return err
		}
	}
	return nil
}

func slow(ctx context.Context, e *Env) error {
	i, d := e.anyNode(), e.moment(cutMin, cutMax)
	e.Log("%s sends at most %d kbit/s for %v", e.name(i), slowKbit, d)
	if err := e.Net.Slow(i, slowKbit); err != nil {
		return err
	}
	return errors.Join(e.hold(ctx, d), e.Net.Heal())
}

// fillDisk leaves less than half of what a node keeps in reserve: from there on it writes nothing.
func fillDisk(ctx context.Context, e *Env, i int) error {
	d := e.moment(cutMin, cutMax)
	e.Log("the disk of %s is full for %v", e.name(i), d)
	if err := e.Disks.Fill(i, diskLeft); err != nil {
		return err
	}
	return errors.Join(e.hold(ctx, d), e.Disks.Free(i))
}
