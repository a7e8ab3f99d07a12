package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func newClusterStatus(app *cli.App) *cobra.Command {
	var wait, healthy bool
	var limit time.Duration
	cmd := &cobra.Command{Use: "status", Short: "Show the nodes, who leads what, and whether one may be stopped", Args: cobra.NoArgs,
		Long: "Shows the nodes, and whether each shard has all its copies: voters on nodes that answer and stay, which have caught up.\n" +
			"With --healthy it ends with 1 where one has not; with --wait it waits until all have, and ends with 3 when they have not in time.",
		Example: "  autoglm cluster status --wait && systemctl restart autoglm",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			if wait {
				ctx, cancel := context.WithTimeout(cmd.Context(), limit)
				defer cancel()
				if err := await(ctx, c, unhealthy); err != nil {
					return err
				}
			}
			v, err := c.Cluster(cmd.Context())
			if err != nil {
				return err
			}
			if err := showCluster(app, v, writeClusterStatus); err != nil {
				return err
			}
			if why := unhealthy(v); healthy && why != "" {
				return fault.New(fault.Unknown, "cluster", "", "%s", why)
			}
			return nil
		},
	}
	app.ClientFlags(cmd)
	f := cmd.Flags()
	f.BoolVar(&healthy, "healthy", false, "end with 1 where a shard lacks its owner or a copy")
	f.BoolVar(&wait, "wait", false, "wait until every shard has its owner and all its copies")
	f.DurationVar(&limit, "timeout", rollingWait, "longest wait")
	return cmd
}

// unhealthy says what a cluster lacks to lose a node; "" is nothing.
func unhealthy(v *wire.Cluster) string {
	if v.Redundancy.Whole {
		return ""
	}
	return v.Redundancy.Text
}

func writeClusterStatus(w io.Writer, c *wire.Cluster) error {
	name := "cluster " + c.Cluster
	if c.Cluster == "" {
		name = "no cluster: a node that is alone"
	}
	lead := "not known here: most nodes that hold shard 0 are down, or do not hear this node"
	if l := c.Coordinator; l != nil {
		lead = fmt.Sprintf("%s, term %d, epoch %d, since %s", l.Node, l.Term, l.Epoch, cli.Ago(l.Since))
	}
	fmt.Fprintf(w, "%s\ncoordinator %s\n%s\n\n", name, lead, c.Redundancy.Text)
	tab := cli.NewTable("NODE", "STATE", "UP", "LEADS>", "REPLICAS>", "ENGINES>", "BUSY>", "FREE>", "ZONE", "HTTP", "VERSION")
	for _, n := range c.Members {
		state := n.State
		if n.Error != "" {
			state = cli.Cut("no answer: "+n.Error, 60)
		}
		up, free := "", ""
		if !n.StartedAt.IsZero() {
			up, free = cli.Ago(n.StartedAt), cli.Bytes(n.Disk.FreeBytes)
		}
		busy := 0
		for _, e := range n.Engines {
			busy += e.InFlight
		}
		tab.Row(n.Name, state, up, n.Owned, n.Replicas, len(n.Engines), busy, free, n.Zone, n.HTTP, n.Version)
	}
	return tab.Write(w)
}
