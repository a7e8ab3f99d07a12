package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// pageMax is what the API gives at once.
const pageMax = 1000

// filterFlags are the filters that list and results share.
type filterFlags struct {
	state, model string
	metadata     []string
}

func (f *filterFlags) add(cmd *cobra.Command, states ...string) {
	cmd.Flags().StringVar(&f.state, "state", "", "only tasks in this `state`")
	cmd.Flags().StringVar(&f.model, "model", "", "only tasks submitted for this `model`")
	cmd.Flags().StringArrayVar(&f.metadata, "metadata", nil, "only tasks with this metadata, as `KEY=VALUE`; may be repeated")
	cli.Complete(cmd, "state", states...)
}

func (f *filterFlags) query() (q client.Query, err error) {
	q.Model = f.model
	if f.state != "" {
		var ok bool
		if q.State, ok = task.ParseState(f.state); !ok {
			return q, cli.Usage("--state is %q: use pending, running, completed, failed or cancelled", f.state)
		}
	}
	q.Metadata, err = cli.Metadata(f.metadata)
	return q, err
}

func newList(app *cli.App) *cobra.Command {
	var f filterFlags
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List tasks", Args: cobra.NoArgs,
		Long: "Lists tasks, the newest first; with --state, in that state's own order: pending ones as they will run, those\n" +
			"that ended as they did. With -o json, one task a line.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cli.NotNegative("limit", limit); err != nil {
				return err
			}
			q, err := f.query()
			if err != nil {
				return err
			}
			c, err := app.Client()
			if err != nil {
				return err
			}
			tab := cli.NewTable("TASK", "STATE", "TRY>", "PRIORITY>", "CREATED", "MODEL", "ERROR")
			for left := limit; left > 0; {
				q.Limit = min(left, pageMax)
				page, err := c.List(cmd.Context(), q)
				if err != nil {
					return err
				}
				for i := range page.Tasks {
					if err := listRow(app, tab, &page.Tasks[i]); err != nil {
						return err
					}
				}
				left -= len(page.Tasks)
				if q.Cursor = page.NextCursor; q.Cursor == "" {
					break
				}
			}
			if app.JSON() {
				return nil
			}
			if err := tab.Write(app.Out); err != nil {
				return err
			}
			if q.Cursor != "" {
				fmt.Fprintf(app.Err, "there are more: see --limit\n")
			}
			return nil
		},
	}
	app.ClientFlags(cmd)
	f.add(cmd, "pending", "running", "completed", "failed", "cancelled")
	cmd.Flags().IntVar(&limit, "limit", 100, "`number` of tasks")
	return cmd
}

func listRow(app *cli.App, tab *cli.Table, b *wire.Brief) error {
	if app.JSON() {
		return app.PrintJSON(b)
	}
	trouble := ""
	if b.Error != nil {
		trouble = cli.Cut(b.Error.Message, 60)
	}
	tab.Row(b.ID, b.State, b.Attempt, b.Priority, cli.Ago(b.CreatedAt), b.Model, trouble)
	return nil
}
