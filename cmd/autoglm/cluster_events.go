package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

const (
	eventsMax   = 1000 // of one answer of the API
	eventsEvery = time.Second
	foldFrom    = 3  // so many changes in a row that went well are told in one line
	outcomeMin  = 40 // columns of an outcome, however narrow the terminal is
	eventTime   = "2006-01-02 15:04:05.000"
)

// Kinds of events that the views treat specially, and all kinds.
const (
	kindDecision = "decision"
	kindOutcome  = "outcome"
	outcomeDone  = "done"
)

var eventKinds = []string{"coordinator", "member", kindDecision, kindOutcome, "trouble"}

// eventsOptions are the flags of cluster events.
type eventsOptions struct {
	limit       int
	all, follow bool
	kinds       []string
}

func newClusterEvents(app *cli.App) *cobra.Command {
	var o eventsOptions
	cmd := &cobra.Command{Use: "events", Short: "Show what the coordinator saw and did, oldest first", Args: cobra.NoArgs,
		Long: "Shows what the coordinator saw, and what came of what it did. Changes that went well and followed each other are told in\n" +
			"one line. --all shows each of them, and each decision, as it was journaled before it was carried out; -o json always\n" +
			"has them all.",
		Example: "  autoglm cluster events --kind member,trouble\n  autoglm cluster events --follow",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.limit < 1 || o.limit > eventsMax {
				return cli.Usage("--limit is %d: use 1 to %d", o.limit, eventsMax)
			}
			for _, k := range o.kinds {
				if !slices.Contains(eventKinds, k) {
					return cli.Usage("--kind is %q: use %s", k, strings.Join(eventKinds, ", "))
				}
			}
			c, err := app.Client()
			if err != nil {
				return err
			}
			v, err := c.ClusterEvents(cmd.Context(), eventsMax) // most of them may not be shown
			if err != nil {
				return err
			}
			if !o.follow && app.JSON() {
				v.Events = newest(o.wanted(v.Events, true), o.limit)
				return app.PrintJSON(v)
			}
			if !o.follow {
				return writeEvents(app.Out, newest(fold(o.wanted(v.Events, false), o.whole()), o.limit), cli.Width(app.Out))
			}
			return o.tail(cmd.Context(), app, c, v.Events)
		},
	}
	app.ClientFlags(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.all, "all", false, "each change by itself, and what was decided before it was carried out")
	f.BoolVar(&o.follow, "follow", false, "then wait for more, until Ctrl-C")
	f.StringSliceVar(&o.kinds, "kind", nil, "only these `kinds`: "+strings.Join(eventKinds, ", ")+"; may be repeated")
	f.IntVar(&o.limit, "limit", 100, fmt.Sprintf("`number` of the newest lines, 1 to %d", eventsMax))
	cli.Complete(cmd, "kind", eventKinds...)
	return cmd
}

// whole tells whether every event is wanted by itself: that was asked for.
func (o *eventsOptions) whole() bool { return o.all || len(o.kinds) > 0 }

// wanted leaves out what the flags do not ask for; decisions also when they do not say.
func (o *eventsOptions) wanted(es []wire.ClusterEvent, decisions bool) []wire.ClusterEvent {
	return slices.DeleteFunc(slices.Clone(es), func(e wire.ClusterEvent) bool {
		if len(o.kinds) > 0 {
			return !slices.Contains(o.kinds, e.What)
		}
		return e.What == kindDecision && !decisions && !o.all
	})
}

func newest(es []wire.ClusterEvent, n int) []wire.ClusterEvent { return es[max(0, len(es)-n):] }

// fold tells changes that went well and followed each other in one line, at the time of the last, unless whole is set.
func fold(es []wire.ClusterEvent, whole bool) []wire.ClusterEvent {
	var out []wire.ClusterEvent
	for i := 0; i < len(es); {
		n := 0
		for !whole && i+n < len(es) && es[i+n].What == kindOutcome && es[i+n].Outcome == outcomeDone {
			n++
		}
		if n < foldFrom {
			n = max(n, 1)
			out = append(out, es[i:i+n]...)
		} else {
			last := es[i+n-1]
			out = append(out, wire.ClusterEvent{At: last.At, Epoch: last.Epoch, What: kindOutcome, Outcome: outcomeDone, Text: foldedText(es[i : i+n])})
		}
		i += n
	}
	return out
}

// foldedText counts changes by their verb, in the order in which these came up: "6 changes in 2s: add 3, promote 3".
func foldedText(es []wire.ClusterEvent) string {
	var verbs []string
	count := map[string]int{}
	for _, e := range es {
		_, verb, _ := strings.Cut(e.Text, ": ") // "shard 3: promote replica 7 on node-2: …"
		verb, _, _ = strings.Cut(verb, " replica ")
		if count[verb]++; count[verb] == 1 {
			verbs = append(verbs, verb)
		}
	}
	for i, v := range verbs {
		verbs[i] = fmt.Sprintf("%s %d", v, count[v])
	}
	took := es[len(es)-1].At.Sub(es[0].At).Round(100 * time.Millisecond)
	return fmt.Sprintf("%d changes in %v: %s", len(es), took, strings.Join(verbs, ", "))
}

// writeEvents writes a table for a terminal of so many columns; 0: of any width. Only an outcome is ever cut.
func writeEvents(w io.Writer, es []wire.ClusterEvent, columns int) error {
	tab := cli.NewTable("AT", "EPOCH>", "WHAT", "", "OUTCOME")
	used := 0
	for _, e := range es {
		used = max(used, utf8.RuneCountInString(e.Text))
	}
	used += len(eventTime) + len("EPOCH") + len(eventKinds[0]) + 4*2 // the other columns, and what is between them
	for _, e := range es {
		outcome := e.Outcome
		if columns > 0 {
			outcome = cli.Cut(outcome, max(outcomeMin, columns-used))
		}
		tab.Row(e.At.Local().Format(eventTime), e.Epoch, e.What, e.Text, outcome)
	}
	return tab.Write(w)
}

// tail shows the newest events of es, then those that come, until ctx ends.
func (o *eventsOptions) tail(ctx context.Context, app *cli.App, c *client.Client, es []wire.ClusterEvent) error {
	show := newest(fold(o.wanted(es, app.JSON()), o.whole() || app.JSON()), o.limit)
	tick := time.NewTicker(eventsEvery)
	defer tick.Stop()
	for {
		for _, e := range show {
			if err := printEvent(app, e); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil // Ctrl-C is how it ends
		}
		v, err := c.ClusterEvents(ctx, eventsMax)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		show = o.wanted(since(v.Events, es), app.JSON())
		es = v.Events
	}
}

func printEvent(app *cli.App, e wire.ClusterEvent) error {
	if app.JSON() {
		return app.PrintJSON(e)
	}
	outcome := ""
	if e.Outcome != "" {
		outcome = "  -> " + e.Outcome
	}
	_, err := fmt.Fprintf(app.Out, "%s  %5d  %-11s  %s%s\n", e.At.Local().Format(eventTime), e.Epoch, e.What, e.Text, outcome)
	return err
}

// since returns the events that came after those of an earlier answer. When none of that is left, all are new that are
// not older.
func since(now, before []wire.ClusterEvent) []wire.ClusterEvent {
	if len(before) == 0 {
		return now
	}
	last := before[len(before)-1]
	for i := len(now) - 1; i >= 0; i-- {
		if e := now[i]; e.At.Equal(last.At) && e.Epoch == last.Epoch && e.What == last.What && e.Text == last.Text && e.Outcome == last.Outcome {
			return now[i+1:]
		}
	}
	return slices.DeleteFunc(slices.Clone(now), func(e wire.ClusterEvent) bool { return e.At.Before(last.At) })
}
