package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/chaos"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/dev"
)

// TestMixedVersions rolls a cluster under load from this version to the next one, node by node, and one node back, and judges
// what clients saw as TestChaos does: nothing acknowledged is lost, everything ends, each task has one life that
// both versions tell alike. The next version is this one with something new of each kind (nextversion_test.go), and the nodes of
// this version count what they met and do not know, so that the test knows that they did.
func TestMixedVersions(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program and starts a cluster")
	}
	r := &roll{now: built(t, "autoglm"), next: withNextVersion(t), runs: map[string]string{}, met: map[string]float64{}}
	o := chaosOptions(t, r.now, 1)
	o.BinaryOf, o.More, o.Faults = r.binaryOf, []chaos.Fault{{Name: "roll", Nodes: chaosNodes, Do: r.do}}, []string{"roll"}
	report, err := chaos.Run(t.Context(), o)
	if report != nil {
		t.Log(report)
	}
	require.NoError(t, err)
	require.NotZero(t, report.Tasks)
	require.Empty(t, report.Violations)
	require.True(t, r.whole, "the roll did not get to its end")
	t.Logf("what nodes of this version met of the next one: %v", r.met)
	for _, what := range []string{"op", "message", "letter", "gossip", "event"} {
		require.NotZero(t, r.met[what], "no node of this version met a new %s: the test says nothing of it", what)
	}
}

const mixedFor = time.Second // of load on each mixture of versions

// roll is the fault: it changes which program nodes are started with.
type roll struct {
	now, next string // programs

	mu    sync.Mutex
	runs  map[string]string // node: program; none: now
	met   map[string]float64
	whole bool
}

func (r *roll) binaryOf(node string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.runs[node]; ok {
		return p
	}
	return r.now
}

// do rolls all nodes to the next version, and the second one back.
func (r *roll) do(ctx context.Context, e *chaos.Env) error {
	names := []string{}
	for _, n := range e.Cluster.Nodes() {
		names = append(names, n.Name)
	}
	for _, name := range names {
		if err := r.to(ctx, e, name, r.next); err != nil {
			return err
		}
	}
	if err := r.to(ctx, e, names[1], r.now); err != nil {
		return err
	}
	if err := r.count(ctx, e); err != nil { // the one that was rolled back
		return err
	}
	r.whole = true
	return nil
}

// to restarts one node with a program, under load, and sees to it that the others live on.
func (r *roll) to(ctx context.Context, e *chaos.Env, name, program string) error {
	if err := r.count(ctx, e); err != nil { // a restart forgets
		return err
	}
	before := pids(e.Cluster)
	r.mu.Lock()
	r.runs[name] = program
	r.mu.Unlock()
	e.Log("%s is started with the version %s", name, map[string]string{r.now: "now", r.next: nextName}[program])
	if err := e.Cluster.RestartNode(ctx, name); err != nil {
		return err
	}
	if err := e.Settled(ctx); err != nil {
		return err
	}
	if err := says(ctx, e.Cluster, name, program == r.next); err != nil {
		return err
	}
	hold := time.NewTimer(mixedFor)
	defer hold.Stop()
	select {
	case <-hold.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	after := pids(e.Cluster)
	delete(before, name)
	delete(after, name)
	if !maps.Equal(before, after) {
		return fmt.Errorf("while %s was restarted others died: processes were %v, and are %v", name, before, after)
	}
	return nil
}

func pids(c *dev.Cluster) map[string]int {
	all := map[string]int{}
	for _, n := range c.Nodes() {
		all[n.Name] = n.PID
	}
	return all
}

// says waits until every node sees the version that a node was started with: gossip brings it.
func says(ctx context.Context, c *dev.Cluster, name string, next bool) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := saysNow(ctx, c, name, next)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

func saysNow(ctx context.Context, c *dev.Cluster, name string, next bool) error {
	for _, n := range c.Nodes() {
		var cl struct {
			Members []struct{ Name, Version string }
		}
		body, err := get(ctx, n.URL+"/v1/cluster")
		if err == nil {
			err = json.Unmarshal(body, &cl)
		}
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(cl.Members, func(m struct{ Name, Version string }) bool {
			return m.Name == name && (m.Version == nextName) == next
		}) {
			return fmt.Errorf("%s does not see that %s runs another version now: %v", n.Name, name, cl.Members)
		}
	}
	return nil
}

// count adds what the nodes of this version met since the last restart of one. A node that is not restarted in between is counted
// more than once, which does no harm: it is a question of none or some.
func (r *roll) count(ctx context.Context, e *chaos.Env) error {
	for _, n := range e.Cluster.Nodes() {
		if r.binaryOf(n.Name) != r.now {
			continue
		}
		body, err := get(ctx, n.URL+"/metrics")
		if err != nil {
			return err
		}
		for _, m := range newerTotal.FindAllSubmatch(body, -1) {
			n, err := strconv.ParseFloat(string(m[2]), 64)
			if err != nil {
				return err
			}
			r.met[string(m[1])] += n
		}
	}
	return nil
}

var newerTotal = regexp.MustCompile(`(?m)^autoglm_newer_total\{what="(\w+)"\} (\S+)$`)

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(res.Body); err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %s", url, res.Status, strings.TrimSpace(b.String()))
	}
	return b.Bytes(), nil
}
