package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

func newDead(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "dead", Short: "See which tasks failed, with what, and have them tried again",
		Long: "Tasks that failed, because their attempts are used up or their error is for good, are kept and stay failed. What they failed with is\n" +
			"counted by error and model; dead retry has them tried again, each as another task that names it.",
	}
	cli.Group(cmd)
	cmd.AddCommand(newDeadList(app), newDeadShow(app), newDeadRetry(app))
	return cmd
}

func deadFlags(cmd *cobra.Command, q *client.DeadQuery) {
	f := cmd.Flags()
	f.StringVar(&q.Model, "model", "", "only tasks of this `model`")
	f.StringVar(&q.Kind, "kind", "", "only tasks that failed with an error of this `kind`")
	f.StringVar(&q.Since, "since", "", "only tasks that failed since this `time` (RFC 3339), or so long ago, like 24h")
	cli.Complete(cmd, "kind", deadKinds...)
}

// deadKinds are the kinds of errors that tasks fail with.
var deadKinds = []string{"unavailable", "timeout", "overloaded", "malformed", "invalid", "too_large", "refused", "not_found", "conflict", "corrupt", "no_space", "fenced", "unknown"}

func checkDead(q *client.DeadQuery) error {
	if q.Kind != "" && !slices.Contains(deadKinds, q.Kind) {
		return cli.Usage("--kind is %q: use one of %s", q.Kind, strings.Join(deadKinds, ", "))
	}
	return nil
}

func newDeadList(app *cli.App) *cobra.Command {
	var q client.DeadQuery
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List failed tasks", Args: cobra.NoArgs,
		Long: "Counts failed tasks by error and model, the most first, and lists them in the order in which they failed, without those that were tried\n" +
			"again. With -o json, one task a line.",
		Example: "  autoglm dead list --since 24h\n  autoglm dead list --kind timeout --model glm-4",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkDead(&q); err != nil {
				return err
			}
			if err := cli.NotNegative("limit", limit); err != nil { // 0 is all
				return err
			}
			c, err := app.Client()
			if err != nil {
				return err
			}
			if !app.JSON() {
				s, err := c.DeadSummary(cmd.Context(), q)
				if err != nil {
					return err
				}
				if err := writeDead(app, s); err != nil || s.Total == 0 {
					return err
				}
			}
			tab := cli.NewTable("TASK", "FAILED", "TRY>", "MODEL", "KIND", "RETRIED AS", "LINE OF", "ERROR")
			more, err := eachDead(cmd.Context(), c, q, limit, func(page []wire.Brief) error {
				for i := range page {
					b := &page[i]
					if app.JSON() {
						if err := app.PrintJSON(b); err != nil {
							return err
						}
						continue
					}
					kind, text := "", ""
					if b.Error != nil {
						kind, text = b.Error.Kind, cli.Cut(b.Error.Message, 80)
					}
					tab.Row(b.ID, agoOf(b.EndedAt), b.Attempt, b.Model, kind, b.RetriedAs, lineOf(b), text)
				}
				return nil
			})
			if err != nil || app.JSON() {
				return err
			}
			fmt.Fprintln(app.Out)
			if err := tab.Write(app.Out); err != nil {
				return err
			}
			if more {
				fmt.Fprintln(app.Err, "there are more: see --limit")
			}
			return nil
		},
	}
	app.ClientFlags(cmd)
	deadFlags(cmd, &q)
	cmd.Flags().BoolVar(&q.Retried, "retried", false, "those that were tried again, too")
	cmd.Flags().IntVar(&limit, "limit", 100, "`number` of tasks; 0: all")
	return cmd
}

// lineOf names the batch and the line that a task is; autoglm batch retry is for those.
func lineOf(b *wire.Brief) string {
	if b.Batch == "" {
		return ""
	}
	return b.Batch + " " + cli.Cut(b.CustomID, 40)
}

// agoOf is when a task failed, as a person at night reads it.
func agoOf(t *time.Time) string {
	if t == nil {
		return ""
	}
	return cli.Ago(*t) + " ago"
}

// writeDead shows what tasks failed with.
func writeDead(app *cli.App, s *wire.DeadSummary) error {
	if s.Total == 0 {
		_, err := fmt.Fprintln(app.Out, "no failed tasks")
		return err
	}
	tab := cli.NewTable("FAILED>", "KIND", "MODEL", "FIRST", "LAST", "NEWEST", "ITS ERROR")
	for i := range s.Groups {
		g := &s.Groups[i]
		tab.Row(g.Count, g.Kind, g.Model, agoOf(&g.First), agoOf(&g.Last), g.Example, cli.Cut(g.Message, 80))
	}
	if err := tab.Write(app.Out); err != nil {
		return err
	}
	if s.Partial {
		fmt.Fprintf(app.Err, "only the oldest %d were counted: see --since\n", s.Total)
	}
	return nil
}

// eachDead walks failed tasks, at most limit (0: all), by pages, and tells whether there are more.
func eachDead(ctx context.Context, c *client.Client, q client.DeadQuery, limit int, f func([]wire.Brief) error) (more bool, err error) {
	for left := limit; limit == 0 || left > 0; {
		if q.Limit = pageMax; limit > 0 {
			q.Limit = min(left, pageMax)
		}
		page, err := c.Dead(ctx, q)
		if err != nil {
			return false, err
		}
		if err := f(page.Tasks); err != nil {
			return false, err
		}
		left -= len(page.Tasks)
		if q.Cursor = page.NextCursor; q.Cursor == "" {
			return false, nil
		}
	}
	return true, nil
}

func newDeadShow(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show a failed task: its attempts, its error and what may help", Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			t, err := c.Get(cmd.Context(), args[0])
			switch {
			case err != nil:
				return err
			case app.JSON():
				return app.PrintJSON(t)
			}
			return writeTask(app, t)
		},
	}
	app.ClientFlags(cmd)
	return cmd
}

func newDeadRetry(app *cli.App) *cobra.Command {
	var q client.DeadQuery
	var all, dry bool
	cmd := &cobra.Command{
		Use: "retry [ID …]", Short: "Have failed tasks tried again", ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Has the tasks named, or with --all those that failed and match the filters, tried again. A final state never changes: each becomes another\n" +
			"task ID.retry-1, the same but without deadline and not_before, and the failed one names it as retried_as. It is harmless to say it twice. Lines\n" +
			"of batches are left to autoglm batch retry.",
		Example: "  autoglm dead retry a1\n  autoglm dead retry --all --kind unavailable --since 6h",
		RunE: func(cmd *cobra.Command, args []string) error {
			filtered := q != (client.DeadQuery{})
			switch {
			case all == (len(args) > 0):
				return cli.Usage("name tasks, or give --all")
			case !all && (filtered || dry):
				return cli.Usage("--kind, --model, --since and --dry-run go with --all")
			}
			if err := checkDead(&q); err != nil {
				return err
			}
			c, err := app.Client()
			if err != nil {
				return err
			}
			r := retrying{app: app, c: c, tab: cli.NewTable("TASK", "RETRIED AS", "STATE", "NOTE")}
			if !all {
				for len(args) > 0 {
					n := min(len(args), wire.DeadRetriesMax)
					if err := r.some(cmd.Context(), args[:n]); err != nil {
						return err
					}
					args = args[n:]
				}
				return r.end()
			}
			if dry {
				s, err := c.DeadSummary(cmd.Context(), q)
				if err != nil {
					return err
				}
				if app.JSON() {
					return app.PrintJSON(s)
				}
				return writeDead(app, s)
			}
			if _, err := eachDead(cmd.Context(), c, q, 0, func(page []wire.Brief) error {
				ids := make([]string, len(page))
				for i := range page {
					ids[i] = page[i].ID
				}
				return r.some(cmd.Context(), ids)
			}); err != nil {
				return err
			}
			return r.end()
		},
	}
	app.ClientFlags(cmd)
	deadFlags(cmd, &q)
	cmd.Flags().BoolVar(&all, "all", false, "all failed tasks that match --kind, --model and --since")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "with --all: only count them")
	return cmd
}

// retrying has tasks tried again and shows what became of that.
type retrying struct {
	app       *cli.App
	c         *client.Client
	tab       *cli.Table
	good, bad int
	before    int // of the good ones: tried again before this
}

func (r *retrying) some(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	results, err := r.c.RetryDead(ctx, ids)
	if err != nil {
		return err
	}
	for i := range results {
		x := &results[i]
		text, state, as := "", x.State.String(), x.ID
		if x.Error != nil {
			r.bad++
			text, state, as = x.Error.Error(), "", ""
		} else {
			r.good++
			if x.Existed {
				r.before++
				text = "it was tried again before, as " + x.ID
			}
		}
		if r.app.JSON() {
			if err := r.app.PrintJSON(x); err != nil {
				return err
			}
			continue
		}
		r.tab.Row(x.RetryOf, as, state, cli.Cut(text, 160))
	}
	return nil
}

func (r *retrying) end() error {
	if !r.app.JSON() && r.good+r.bad > 0 {
		if err := r.tab.Write(r.app.Out); err != nil {
			return err
		}
	}
	earlier := ""
	if r.before > 0 {
		earlier = fmt.Sprintf(", %d were before", r.before)
	}
	fmt.Fprintf(r.app.Err, "%d tried again%s, %d not\n", r.good-r.before, earlier, r.bad)
	if r.bad > 0 {
		return &cli.TasksError{Text: fmt.Sprintf("%d of %d tasks were not tried again", r.bad, r.good+r.bad)}
	}
	return nil
}
