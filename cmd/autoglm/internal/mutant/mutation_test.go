package mutant

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/chaos"
)

const (
	nodes       = 3
	clients     = 48
	seedDefault = 8                  // of all runs, unless AUTOGLM_CHAOS_SEED says otherwise
	roundsMax   = 3                  // faults of a run of TestEpochs
	all         = "AUTOGLM_MUTATION" // when set, mutants are built too
)

// Mutations. Each takes out one thing that keeps a promise.
var (
	// noFence: the state machine applies what any owner proposes, also one of an earlier epoch.
	noFence = Edit{File: "persistence/statemachine.go", Old: "if s.cmd.epoch != s.meta.epoch {", New: "if false {"}
	// noConfirm: an owner answers what changed nothing without asking a quorum whether it is the owner still.
	noConfirm = Edit{File: "cluster/confirm.go", Old: "epoch, err := c.journal.Barrier(ctx)", New: "epoch, err := c.epoch, ctx.Err()"}
	// noticeLate: an owner that was deposed goes on for four seconds, as one may whose processor is busy elsewhere. Nobody else
	// waits: the next owner heard, before it led, that it did not, and if it opened late by that the two would hardly meet.
	noticeLate = Edit{File: "cluster/shards.go", Old: "if !lead.Leading {\n\t\t\t\ts.close(",
		New: "if !lead.Leading {\n\t\t\t\tif s.router.owners[lead.Shard].Load() != nil {\n\t\t\t\t\ttime.Sleep(4 * time.Second)\n\t\t\t\t}\n\t\t\t\ts.close("}
	// proposeAnyway: Append does not ask whether this node leads the shard.
	proposeAnyway = Edit{File: "persistence/leads.go", Old: "*reign { return l.reigns[shard].Load() }",
		New: "*reign {\n\tif r := l.reigns[shard].Load(); r != nil {\n\t\treturn r\n\t}\n\treturn &reign{ended: make(chan struct{})}\n}"}
	// forward: proposals of a node that does not lead go to the one that does.
	forward = Edit{File: "persistence/link.go", Old: "return m.Type == raftpb.Propose || m.Type == raftpb.LeaderTransfer", New: "return m.Type == raftpb.LeaderTransfer"}
	// accept: a node takes proposals that another one forwards.
	accept = Edit{File: "persistence/gate.go", Old: "m := &b.Requests[i]\n",
		New: "m := &b.Requests[i]\n\t\tif m.Type == raftpb.Propose {\n\t\t\tkept = append(kept, *m)\n\t\t\tcontinue\n\t\t}\n"}
	// noStoreSync: Badger does not sync what was applied.
	noStoreSync = Edit{File: "persistence/badger.go", Old: "WithSyncWrites(true)", New: "WithSyncWrites(false)"}
	// noLogSync: dragonboat does not sync its log, and says that a quorum has an entry.
	noLogSync = Edit{Module: "github.com/lni/dragonboat/v4", File: "internal/logdb/kv/pebble/kv_pebble.go",
		Old: "wo := &pebble.WriteOptions{Sync: true}", New: "wo := &pebble.WriteOptions{Sync: false}"}
)

// TestEpochs takes out what keeps a deposed owner from doing harm, stops nodes until others have taken over, and lets them
// go on.
//
// Confirm is the only guard of what an owner answers without a write: taking it out alone is noticed.
//
// Taking out the fence alone is not, and no client could: four guards stand before it. Append asks whether this node
// leads (leads.go); a proposal is neither forwarded to the next leader (link.go) nor taken from a peer (gate.go), and what an
// old leader left is committed before the next one's first entry, so before the next owner's Acquire;
// and the owner is closed when the lead is lost (shards.go). So the mutant "late" has none of the four: its deposed
// owners go on for seconds, and propose through the new leader. It is to be clean, since the fence refuses them: the control.
// Without the fence too, the judge must see two owners. Even then no journal forks, since each write names the
// sequence it follows; what clients see is a new owner that answers from a memory the old one wrote past. Tasks hardly
// show that: they are read from the store, and awake only while they run. Accounts do: they are few, awake, and asked by
// everybody. So both mutants are messaged as the bank. Package persistence tests the fence itself, in every store (the
// conformance suite's epochs).
func TestEpochs(t *testing.T) {
	if os.Getenv(all) == "" {
		t.Skip("takes minutes: " + all + "=1, or make mutation")
	}
	if os.Geteuid() != 0 {
		t.Skip("small disks in memory need root: on others a busy machine leaves too few calls to judge")
	}
	late := []Edit{noticeLate, proposeAnyway, forward, accept}
	for _, c := range []struct {
		name  string
		load  load
		edits []Edit
		clean bool
	}{
		{"real", tasks, nil, true},
		{"unconfirmed", tasks, []Edit{noConfirm}, false},
		{"late", money, late, true},
		{"late-unfenced", money, append(slices.Clone(late), noFence), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			binary := binary(t, c.load, c.edits)
			for try := range tries {
				report := run(t, c.load, binary, c.clean, roundsMax, uint64(try), func(o *chaos.Options) {
					disks, err := chaos.NewSmallDisks(o.Dir, o.Nodes)
					require.NoError(t, err)
					t.Cleanup(func() { require.NoError(t, disks.Close()) })
					o.Disks, o.More, o.Faults = disks, []chaos.Fault{{Name: "depose", Nodes: nodes, Do: depose}}, []string{"depose"}
				})
				if c.clean || slices.ContainsFunc(report.Violations, seen) {
					return
				}
			}
			require.Fail(t, "the judge did not notice")
		})
	}
}

const tries = 4 // seeds, of a mutant that is to be noticed

// seen tells of what a client was told wrongly; that a mutant does not heal in time proves nothing here.
func seen(v chaos.Violation) bool {
	return v.ID != "" && (strings.HasPrefix(v.What, "no one life") || strings.HasPrefix(v.What, "no one order"))
}

// load is what clients do while a cluster breaks: with tasks, or with accounts.
type load struct {
	tags string                                        // that the binary is to be built with
	run  func(*testing.T, chaos.Options) *chaos.Report // breaks a cluster under it, and judges
}

var (
	tasks = load{"", func(t *testing.T, o chaos.Options) *chaos.Report {
		report, err := chaos.Run(t.Context(), o)
		if report != nil {
			t.Log(report)
		}
		require.NoError(t, err)
		require.NotZero(t, report.Tasks)
		return report
	}}
	money = load{"bank", func(t *testing.T, o chaos.Options) *chaos.Report {
		report, err := chaos.RunBank(t.Context(), o)
		require.NoError(t, err)
		t.Log(report)
		require.NotZero(t, report.Paid)
		return &report.Report
	}}
)

// TestSyncs takes out what makes an acknowledged task survive a power loss, and takes the power from all nodes at once, on
// disks that forget what was not synced: a FUSE file system that sees Badger's shared mappings too, since msync sends the
// pages as writes and then a sync.
//
// The Raft log is what acknowledges. When the store alone forgets, nothing is lost: what it lacks is applied again from the
// log; that run must be clean. When both forget, everything opens, and acknowledged tasks are gone: the judge
// must call them lost. A log that forgets while the store does not is not run here: its node refuses to open
// ("ends at 0, and 16 was applied", verifyTogether), so that nothing is answered wrongly, nor anything at all;
// package persistence tests that refusal.
func TestSyncs(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	if err := chaos.CanForget(); err != nil {
		t.Skip(err)
	}
	lose := func(t *testing.T, edits []Edit, clean bool) *chaos.Report {
		rounds := 1
		if os.Getenv(all) != "" {
			rounds = powerLosses
		}
		return run(t, tasks, binary(t, tasks, edits), clean, rounds, 0, func(o *chaos.Options) {
			disks, err := chaos.NewForgetfulDisks(o.Dir, o.Dir+"-bytes", o.Nodes)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, disks.Close()) })
			o.More, o.Faults = []chaos.Fault{disks.PowerLoss()}, []string{"power-loss"}
		})
	}
	t.Run("real", func(t *testing.T) { lose(t, nil, true) })
	t.Run("store-unsynced", func(t *testing.T) { lose(t, []Edit{noStoreSync}, true) })
	t.Run("unsynced", func(t *testing.T) {
		report := lose(t, []Edit{noStoreSync, noLogSync}, false)
		require.True(t, slices.ContainsFunc(report.Violations, func(v chaos.Violation) bool { return strings.HasPrefix(v.What, "lost") }),
			"acknowledged tasks are gone, and the judge did not notice")
	})
}

const powerLosses = 3 // of one cluster, where there is time

// How long a node is stopped, and then goes on among the others, at least. The first is longer than an election, and shorter
// than a client's patience, so that calls wait at the node when it wakes; the second is longer than noticeLate lasts.
const (
	deposed = 2 * time.Second
	awake   = 4500 * time.Millisecond
)

// depose stops a node until the others have taken over its shards, and lets it go on.
func depose(ctx context.Context, e *chaos.Env) error {
	all := e.Cluster.Nodes()
	name := all[e.Rand.IntN(len(all))].Name
	e.Log("%s is stopped for %v, and goes on", name, deposed)
	if err := e.Cluster.Signal(name, syscall.SIGSTOP); err != nil {
		return err
	}
	err := wait(ctx, deposed)
	err = errors.Join(err, e.Cluster.Signal(name, syscall.SIGCONT))
	return errors.Join(err, wait(ctx, awake))
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run breaks a cluster of a binary's processes under a load and returns what the judge says; where it is to be clean, it must be.
func run(t *testing.T, load load, binary string, clean bool, rounds int, try uint64, more func(*chaos.Options)) *chaos.Report {
	seed := uint64(seedDefault)
	if s := os.Getenv("AUTOGLM_CHAOS_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
	}
	seed += try
	dir := t.TempDir()
	if s := os.Getenv("AUTOGLM_CHAOS_DIR"); s != "" { // kept: history.txt, the nodes' logs and data
		dir = filepath.Join(s, fmt.Sprintf("%s-%d", strings.ReplaceAll(t.Name(), "/", "-"), seed))
		require.NoDirExists(t, dir, "the same seed names the same tasks: an old cluster would know them")
	}
	o := chaos.Options{Dir: filepath.Join(dir, "cluster"), Binary: binary, Nodes: nodes, Rounds: rounds,
		Seed: seed, Args: []string{"--shards", "8"}, Clients: clients, Log: t.Logf}
	if !clean { // what it broke it may not mend
		o.SettleMax, o.EndMax = 15*time.Second, 30*time.Second
	}
	more(&o)
	t.Logf("AUTOGLM_CHAOS_SEED=%d", seed)
	began := time.Now()
	report := load.run(t, o)
	t.Logf("in %v", time.Since(began))
	if clean {
		require.Empty(t, report.Violations)
	}
	return report
}

// binary builds the mutant that a load needs, or returns the real one.
func binary(t *testing.T, load load, edits []Edit) string {
	if len(edits) == 0 {
		p := filepath.Join(root(t), "bin", "autoglm")
		_, err := os.Stat(p)
		require.NoError(t, err, "run: make build")
		return p
	}
	if os.Getenv(all) == "" {
		t.Skip("builds a mutant: " + all + "=1, or make mutation")
	}
	began := time.Now()
	p, err := Build(t.Context(), root(t), "./cmd/autoglm", load.tags, t.TempDir(), "autoglm", edits...)
	require.NoError(t, err)
	t.Logf("built in %v", time.Since(began))
	return p
}

func root(t *testing.T) string {
	p, err := filepath.Abs(filepath.Join("..", "..", "..", ".."))
	require.NoError(t, err)
	return p
}
