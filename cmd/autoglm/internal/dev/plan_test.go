package dev

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestGrow(t *testing.T) {
	own := func(i int) string { return fmt.Sprintf("10.9.0.%d", i+1) }
	three, err := grow(File{}, "/d", 0, KeepPorts, KeepPorts, nil)
	require.NoError(t, err)
	moved, err := grow(three, "/d", 0, 9000, KeepPorts, nil)
	require.NoError(t, err)
	for _, c := range []struct {
		name          string
		old           File
		want          int
		http, cluster int
		host          func(int) string
		addrs         string // HTTP/cluster of each node
		expect        int
	}{
		{"the defaults", File{}, 0, KeepPorts, KeepPorts, nil, "127.0.0.1:8080/127.0.0.1:7946 127.0.0.1:8081/127.0.0.1:7956 127.0.0.1:8082/127.0.0.1:7966", 3},
		{"asked for", File{}, 2, 9000, 5000, nil, "127.0.0.1:9000/127.0.0.1:5000 127.0.0.1:9001/127.0.0.1:5010", 2},
		{"free ones", File{}, 2, 0, 0, nil, "127.0.0.1:0/127.0.0.1:0 127.0.0.1:0/127.0.0.1:0", 2},
		{"hosts of their own", File{}, 2, KeepPorts, KeepPorts, own, "10.9.0.1:8080/10.9.0.1:7946 10.9.0.2:8080/10.9.0.2:7946", 2},
		{"again", three, 0, KeepPorts, KeepPorts, nil, "127.0.0.1:8080/127.0.0.1:7946 127.0.0.1:8081/127.0.0.1:7956 127.0.0.1:8082/127.0.0.1:7966", 3},
		{"grown", moved, 4, KeepPorts, KeepPorts, nil, "127.0.0.1:9000/127.0.0.1:7946 127.0.0.1:9001/127.0.0.1:7956 127.0.0.1:9002/127.0.0.1:7966 127.0.0.1:9003/127.0.0.1:7976", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := grow(c.old, "/d", c.want, c.http, c.cluster, c.host)
			require.NoError(t, err)
			var addrs []string
			for _, n := range f.Nodes {
				addrs = append(addrs, n.HTTP+"/"+n.Cluster)
			}
			require.Equal(t, c.addrs, strings.Join(addrs, " "))
			require.Equal(t, c.expect, f.Expect)
		})
	}
	for _, c := range []struct {
		old  File
		want int
		http int
		kind fault.Kind
	}{{three, 2, KeepPorts, fault.Refused}, {File{}, NodesMax + 1, KeepPorts, fault.Invalid}, {File{}, -1, KeepPorts, fault.Invalid}, {File{}, 3, portMax, fault.Invalid}} {
		_, err := grow(c.old, "/d", c.want, c.http, KeepPorts, nil)
		requireKind(t, c.kind, err)
	}
}

func TestLines(t *testing.T) {
	w := &words{}
	path := filepath.Join(t.TempDir(), "n.log")
	l, err := newLines(&console{w: w}, "node-1", path)
	require.NoError(t, err)
	long := strings.Repeat("x", lineMax)
	for _, s := range []string{"one\ntw", "o\n", long, "tail\n", "\n", "unfinished"} {
		n, err := l.Write([]byte(s))
		require.NoError(t, err)
		require.Equal(t, len(s), n)
	}
	l.close()
	want := []string{"one", "two", long + "…", "", "unfinished"}
	require.Equal(t, "node-1 | "+strings.Join(want, "\nnode-1 | ")+"\n", w.String())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, strings.Join(want, "\n")+"\n", string(b))

	l, err = newLines(&console{w: w, colour: true}, "node-1", path)
	require.NoError(t, err)
	l.size = logFileMax + 1 // a full file begins anew
	_, _ = l.Write([]byte("fresh\n"))
	l.close()
	b, err = os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "fresh\n", string(b))
	require.Contains(t, w.String(), "\x1b[32mnode-1 | \x1b[0mfresh\n")
}

// TestAStopKeepsAMajority, or is refused.
func TestAStopKeepsAMajority(t *testing.T) {
	for _, c := range []struct {
		states []State
		stop   int
		ok     bool
	}{
		{[]State{Ready, Ready, Ready}, 0, true},
		{[]State{Ready, Down, Ready}, 0, false},
		{[]State{Ready, Stopping, Starting}, 2, false},
		{[]State{Ready, Starting, Ready}, 0, true},
		{[]State{Ready, Ready, Ready, Down, Ready}, 1, true},
		{[]State{Ready, Ready, Ready, Ready}, 1, true},
		{[]State{Ready, Ready, Ready, Down}, 1, false},
		{[]State{Ready, Ready}, 1, false},
		{[]State{Ready}, 0, false},
		{[]State{Ready, Down, Down}, 1, true}, // it is down: StopNode says so
	} {
		var nodes []Node
		for i, s := range c.states {
			nodes = append(nodes, Node{Name: fmt.Sprint(i), State: s})
		}
		err := keepsMajority(nodes, fmt.Sprint(c.stop))
		if c.ok {
			require.NoError(t, err, "%v, stop %d", c.states, c.stop)
		} else {
			require.Equal(t, fault.Refused, fault.KindOf(err), "%v, stop %d", c.states, c.stop)
		}
	}
}
