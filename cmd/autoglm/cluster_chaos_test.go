package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/bank"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/chaos"
)

// chaosNodes is how many nodes TestChaos breaks, unless AUTOGLM_CHAOS_NODES says otherwise.
const chaosNodes = 3

// TestChaos breaks a cluster under load and judges what its clients saw; see package chaos. With AUTOGLM_CHAOS_SEED it
// repeats what a seed picks, AUTOGLM_CHAOS_ROUNDS is how many faults, AUTOGLM_CHAOS_FAULTS names the only ones.
// AUTOGLM_CHAOS_DIR keeps the nodes' folders, their logs and the history of all calls, below it under the test's name.
// AUTOGLM_CHAOS_NET=namespaces gives every node a network of its own, so that wires can be cut,
// AUTOGLM_CHAOS_DISKS=small a disk of its own, so that it can be filled (both: root, Linux; auto: where that works).
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes for a minute")
	}
	// The short version has no time for long pauses.
	o := chaosOptions(t, built(t, "autoglm"), 5, "kill-one", "kill-owner", "kill-coordinator", "kill-all", "stop-1s", "restart-one", "wipe-one")
	report, err := chaos.Run(t.Context(), o)
	if report != nil {
		t.Log(report)
	}
	require.NoError(t, err)
	require.NotZero(t, report.Tasks)
	if n := len(report.Violations); n > 0 { // the report has shown them
		t.Fatalf("%d violations", n)
	}
}

// TestChaosBank is TestChaos, with the same variables, for the bank of actors/bank: its accounts and transfers are messaged from
// outside, through package actorclient, while the cluster breaks, and afterwards the money is counted.
func TestChaosBank(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes for half a minute")
	}
	o := chaosOptions(t, withBank(t), 3, "kill-one", "kill-owner", "stop-1s")
	report, err := chaos.RunBank(t.Context(), o)
	require.NoError(t, err)
	t.Log(report)
	require.NotZero(t, report.Paid)
	require.NotZero(t, report.Transfers[bank.Done])
	if n := len(report.Violations); n > 0 {
		t.Fatalf("%d violations", n)
	}
}

// TestChaosQuota is TestChaos, with the same variables, for a tenant that may have so many tasks running: one engine counts what comes from all
// nodes.
func TestChaosQuota(t *testing.T) {
	if testing.Short() {
		t.Skip("kills processes for half a minute")
	}
	o := chaosOptions(t, built(t, "autoglm"), 3, "kill-one", "kill-owner", "stop-1s")
	report, err := chaos.RunQuota(t.Context(), o, 16)
	require.NoError(t, err)
	t.Log(report)
	require.GreaterOrEqual(t, report.Most, 12, "it is used")
	if n := len(report.Violations); n > 0 {
		t.Fatalf("%d violations", n)
	}
}

// withBank builds an autoglm whose nodes have the bank. The one in bin has no such kinds, for it is the product: nobody is to find accounts in
// it. All but the last package is in the build cache, from bin/autoglm.
func withBank(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "autoglm")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "bank", "-ldflags", "-s -w", "-o", path, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

// chaosOptions are what the variables say, else so many rounds of these faults.
func chaosOptions(t *testing.T, binary string, rounds int, faults ...string) chaos.Options {
	t.Helper()
	o := chaos.Options{Dir: filepath.Join(t.TempDir(), "cluster"), Binary: binary, Nodes: chaosNodes,
		Rounds: rounds, Seed: uint64(time.Now().UnixNano()), Args: []string{"--shards", "8"}, Log: t.Logf}
	number := func(name string, v *int) {
		if s := os.Getenv(name); s != "" {
			n, err := strconv.Atoi(s)
			require.NoError(t, err, name)
			*v = n
		}
	}
	number("AUTOGLM_CHAOS_ROUNDS", &o.Rounds)
	number("AUTOGLM_CHAOS_NODES", &o.Nodes)
	if s := os.Getenv("AUTOGLM_CHAOS_SEED"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		o.Seed = seed
	}
	switch s := os.Getenv("AUTOGLM_CHAOS_FAULTS"); {
	case s != "":
		o.Faults = strings.Split(s, ",")
	case os.Getenv("AUTOGLM_CHAOS_ROUNDS") == "":
		o.Faults = faults
	}
	if s := os.Getenv("AUTOGLM_CHAOS_DIR"); s != "" { // kept: history.txt, the nodes' logs and data
		o.Dir = filepath.Join(s, t.Name())
	}
	o.Net, o.Disks = wires(t, o.Nodes), disks(t, o.Dir, o.Nodes)
	t.Logf("AUTOGLM_CHAOS_SEED=%d", o.Seed)
	return o
}

// wires is the network that AUTOGLM_CHAOS_NET asks for.
func wires(t *testing.T, nodes int) chaos.Net {
	want := os.Getenv("AUTOGLM_CHAOS_NET")
	if want == "" {
		return nil
	}
	net, err := chaos.NewNamespaces(nodes)
	if err != nil && want == "auto" {
		t.Logf("no wires will be cut: %v", err)
		return nil
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, net.Close()) })
	return net
}

// disks are what AUTOGLM_CHAOS_DISKS asks for.
func disks(t *testing.T, dir string, nodes int) *chaos.SmallDisks {
	want := os.Getenv("AUTOGLM_CHAOS_DISKS")
	if want == "" {
		return nil
	}
	d, err := chaos.NewSmallDisks(dir, nodes)
	if err != nil && want == "auto" {
		t.Logf("no disk will be filled: %v", err)
		return nil
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}
