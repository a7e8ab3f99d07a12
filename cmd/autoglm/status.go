package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func newStatus(app *cli.App) *cobra.Command {
	var ready bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show how a node is", Args: cobra.NoArgs,
		Example: "  autoglm status\n  autoglm status --ready --retry-for 0s && echo it takes work",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			h, unheard := c.Health(cmd.Context())
			if unheard == nil && h.Status == wire.HealthStarting { // it has no more to tell: do not wait for it
				return writeStarting(app, h, ready)
			}
			st, err := c.Status(cmd.Context())
			if ready && unheard == nil && fault.KindOf(err) == fault.Refused { // a health check needs no key
				return writeHealth(app, h)
			}
			if err != nil {
				return err
			}
			if app.JSON() {
				err = app.PrintJSON(st)
			} else {
				err = writeStatus(app.Out, st)
			}
			if err == nil {
				err = statusTrouble(st, ready)
			}
			return err
		},
	}
	app.ClientFlags(cmd)
	cmd.Flags().BoolVar(&ready, "ready", false, "fail unless the node can take work: for health checks where there is no HTTP client")
	return cmd
}

// writeHealth shows all that a node tells somebody without a key.
func writeHealth(app *cli.App, h wire.Health) (err error) {
	if app.JSON() {
		err = app.PrintJSON(h)
	} else {
		_, err = fmt.Fprintln(app.Out, h.Status)
	}
	if err == nil && h.Status != "ok" {
		err = fault.New(fault.Unavailable, "status", "", "the node is not ready: %s", h.Reason)
	}
	return err
}

// writeStarting shows a node that has no API yet.
func writeStarting(app *cli.App, h wire.Health, ready bool) error {
	if ready {
		return fault.New(fault.Unavailable, "status", "", "the node is starting: %s", h.Reason)
	}
	if app.JSON() {
		return app.PrintJSON(h)
	}
	_, err := fmt.Fprintf(app.Out, "the node is starting: %s\n", h.Reason)
	return err
}

// statusTrouble says what a script has to know of a status: with --ready whether the node takes work, else whether the
// numbers are whole.
func statusTrouble(st *wire.Status, ready bool) error {
	switch {
	case ready && !st.Ready:
		return fault.New(fault.Unavailable, "status", st.Node, "the node is not ready: %s", st.Reason)
	case !ready && st.Partial:
		return fault.New(fault.Unavailable, "status", st.Node, "some shards did not answer: the numbers lack their tasks").
			WithRemedy("autoglm cluster status says which nodes are away")
	}
	return nil
}

// queuesShown bounds the queues in a table; -o json has all.
const queuesShown = 20

func writeStatus(w io.Writer, st *wire.Status) error {
	ready := "ready"
	if !st.Ready {
		ready = "not ready: " + st.Reason
	}
	disk := fmt.Sprintf("%s free, %s reserved", cli.Bytes(st.Disk.FreeBytes), cli.Bytes(st.Disk.ReserveBytes))
	if st.Disk.Full {
		disk += ": FULL, new tasks are refused"
	}
	fmt.Fprintf(w, "node %s, version %s, up %s, %s\nleads %d of %d shards; disk %s\n\n", st.Node, st.Version, cli.Ago(st.StartedAt), ready,
		st.ShardsOwned, st.Shards, disk)
	count := func(n int64) string { return fmt.Sprint(n) }
	if st.Partial {
		fmt.Fprintln(w, "some shards did not answer: their tasks are not in these numbers")
		count = func(n int64) string { return fmt.Sprintf("≥ %d", n) }
	}
	tab := cli.NewTable("PENDING>", "RUNNING>", "COMPLETED>", "FAILED>", "CANCELLED>")
	tab.Row(count(st.Tasks["pending"]), count(st.Tasks["running"]), count(st.Tasks["completed"]), count(st.Tasks["failed"]), count(st.Tasks["cancelled"]))
	if err := tab.Write(w); err != nil {
		return err
	}
	if len(st.Queues) > 0 {
		fmt.Fprintln(w)
		tab = cli.NewTable("QUEUE", "PRIORITY>", "WAITING>")
		for i, q := range st.Queues {
			if i == queuesShown {
				tab.Row(fmt.Sprintf("and %d more", len(st.Queues)-queuesShown))
				break
			}
			tab.Row(q.Model, q.Priority, count(q.Waiting))
		}
		if err := tab.Write(w); err != nil {
			return err
		}
	}
	fmt.Fprintln(w)
	tab = cli.NewTable("ENGINE", "HEALTH", "BUSY>", "LIMIT>", "RESTARTS>", "MODELS")
	for _, e := range st.Engines {
		health := "ok"
		if !e.Healthy {
			health = "down: "
			if e.Circuit != "" && e.Circuit != "closed" {
				health = e.Circuit + ": "
			}
			health = cli.Cut(health+e.Reason, 60)
		}
		tab.Row(e.Name, health, e.InFlight, e.Limit, e.Restarts, cli.Cut(strings.Join(e.Models, ", "), 40))
	}
	return tab.Write(w)
}
