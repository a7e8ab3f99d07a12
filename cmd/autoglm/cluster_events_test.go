package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/node/api/wire"
)

// anEvent is the i-th event, a second after the one before.
func anEvent(i int, what, text, outcome string) wire.ClusterEvent {
	return wire.ClusterEvent{At: time.Unix(int64(i), 0), Epoch: 3, What: what, Text: text, Outcome: outcome}
}

// What a cluster does when it forms does not hide what a person looks for.
func TestEventsView(t *testing.T) {
	cause := "the change was refused: " + strings.Repeat("because ", 20)
	es := []wire.ClusterEvent{anEvent(0, "member", "node-1 joined", "")}
	for i := range 3 {
		es = append(es, anEvent(2*i, "decision", "d", ""), anEvent(2*i, "outcome", fmt.Sprintf("shard %d: add replica 7 on n: w", i), "done"),
			anEvent(2*i+1, "outcome", fmt.Sprintf("shard %d: promote replica 7 on n: w", i), "done"))
	}
	es = append(es, anEvent(7, "outcome", "shard 1: remove replica 2 on n: w", cause), anEvent(8, "outcome", "shard 2: remove replica 2 on n: w", "done"))
	for _, v := range []struct {
		name  string
		o     eventsOptions
		json  bool
		limit int
		want  string // texts
	}{
		{"default", eventsOptions{}, false, 9, "node-1 joined|6 changes in 5s: add 3, promote 3|shard 1: remove replica 2 on n: w|shard 2: remove replica 2 on n: w"},
		{"the newest lines", eventsOptions{}, false, 3, "6 changes in 5s: add 3, promote 3|shard 1: remove replica 2 on n: w|shard 2: remove replica 2 on n: w"},
		{"one kind", eventsOptions{kinds: []string{"member"}}, false, 9, "node-1 joined"},
		{"decisions that are asked for", eventsOptions{kinds: []string{"decision"}}, false, 9, "d|d|d"},
		{"all, one by one", eventsOptions{all: true}, false, 3, "shard 2: promote replica 7 on n: w|shard 1: remove replica 2 on n: w|shard 2: remove replica 2 on n: w"},
		{"JSON has decisions", eventsOptions{all: false}, true, 12, "node-1 joined|d|d|d"},
	} {
		t.Run(v.name, func(t *testing.T) {
			got := viewOf(v.o, es, v.json)
			var texts []string
			for _, e := range newest(got, v.limit) {
				if !v.json || e.What != "outcome" {
					texts = append(texts, e.Text)
				}
			}
			require.Equal(t, v.want, strings.Join(texts, "|"))
		})
	}
	for _, v := range []struct {
		columns int
		cut     bool
	}{{0, false}, {500, false}, {100, true}, {20, true}} {
		var out strings.Builder
		require.NoError(t, writeEvents(&out, es, v.columns))
		require.Equal(t, !v.cut, strings.Contains(out.String(), strings.TrimSpace(cause)), "%d columns", v.columns)
		require.Contains(t, out.String(), "the change was refused:", "%d columns", v.columns)
	}
}

func viewOf(o eventsOptions, es []wire.ClusterEvent, json bool) []wire.ClusterEvent {
	return fold(o.wanted(es, json), o.whole() || json)
}

func TestEventsSince(t *testing.T) {
	var es []wire.ClusterEvent
	for i := range 5 {
		es = append(es, anEvent(i, "member", fmt.Sprint(i), ""))
	}
	for _, v := range []struct {
		name        string
		now, before []wire.ClusterEvent
		want        int
	}{
		{"nothing before", es, nil, 5}, {"nothing new", es, es, 0}, {"two more", es, es[:3], 2}, {"the oldest are gone", es[2:], es[:4], 1},
		{"all of before are gone", es[3:], es[:2], 2}, {"none at all", nil, es, 0},
	} {
		require.Len(t, since(v.now, v.before), v.want, v.name)
	}
}
