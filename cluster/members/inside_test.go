package members

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/stretchr/testify/require"
)

type node = memberlist.Node

func nodeOf(name string, meta []byte) *node {
	return &node{Name: name, Addr: net.IPv4(127, 0, 0, 1), Port: 1, Meta: meta}
}

func TestLogIsQuiet(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	g := newGossipLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
	g.now = func() time.Time { return now }
	lines := func() int { return strings.Count(out.String(), "\n") }
	for i := range 1000 {
		fmt.Fprintf(g, "[ERR] memberlist: Conflicting address for c%d. Mine: 1 Theirs: 2\n", i%2)
		fmt.Fprintf(g, "[INFO] memberlist: Suspect c%d\n", i)
		fmt.Fprintf(g, "[DEBUG] memberlist: stream\n")
	}
	require.Equal(t, 2, lines(), out.String())
	now = now.Add(logEvery)
	fmt.Fprintf(g, "[ERR] memberlist: Conflicting address for c1. Mine: 1 Theirs: 2\n")
	require.Contains(t, out.String(), "not_logged=499")
	for i := range 1000 { // kinds are bounded
		fmt.Fprintf(g, "[WARN] memberlist: w%d\n", i)
	}
	require.Less(t, lines(), logKinds+4)
	fmt.Fprint(g, "")
	fmt.Fprint(g, "[WARN")
}

func TestRumorIdsAreBounded(t *testing.T) {
	r := newRumors(func() int { return 3 })
	for i := range 3 * rumorsSeen {
		_, ok := r.heard(fmt.Appendf(nil, "%08dx", i))
		require.True(t, ok)
		_, ok = r.heard(fmt.Appendf(nil, "%08dx", i))
		require.False(t, ok, "heard before")
	}
	require.Len(t, r.seen, rumorsSeen)
	require.LessOrEqual(t, r.queue.NumQueued(), rumorQueue)
	_, ok := r.heard([]byte("short"))
	require.False(t, ok)
}
