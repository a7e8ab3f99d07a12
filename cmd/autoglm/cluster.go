package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

func newCluster(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "cluster", Short: "Look at a cluster and change it: nodes, shards, events, drain, rolling restart",
		Long: "Any node answers for the whole cluster.",
	}
	cmd.AddCommand(newClusterStatus(app), newClusterShards(app), newClusterEvents(app), newClusterDrain(app), newRollingRestart(app))
	cli.Group(cmd)
	return cmd
}

func newClusterShards(app *cli.App) *cobra.Command {
	return clusterView(app, "shards", "Show each shard: its owner, since when, and its replicas", writeClusterShards)
}

func clusterView(app *cli.App, use, short string, write func(io.Writer, *wire.Cluster) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			v, err := c.Cluster(cmd.Context())
			if err != nil {
				return err
			}
			return showCluster(app, v, write)
		},
	}
	app.ClientFlags(cmd)
	return cmd
}

func showCluster(app *cli.App, v *wire.Cluster, write func(io.Writer, *wire.Cluster) error) error {
	if app.JSON() {
		return app.PrintJSON(v)
	}
	return write(app.Out, v)
}

func writeClusterShards(w io.Writer, c *wire.Cluster) error {
	tab := cli.NewTable("SHARD>", "OWNER", "SINCE", "TERM>", "EPOCH>", "APPLIED>", "REPLICAS")
	for _, s := range c.Shards {
		owner, since, term, epoch := "-", "", "", ""
		if l := s.Lead; l != nil {
			owner, since, term, epoch = l.Node, cli.Ago(l.Since), fmt.Sprint(l.Term), fmt.Sprint(l.Epoch)
		}
		newest := uint64(0)
		for _, r := range s.Replicas {
			newest = max(newest, r.Applied)
		}
		var rs []string
		for _, r := range s.Replicas {
			text := r.Node
			switch {
			case !r.Alive:
				text += " (down)"
			case !r.Voter:
				text += fmt.Sprintf(" (learning, %d behind)", newest-r.Applied)
			case newest > r.Applied:
				text += fmt.Sprintf(" (%d behind)", newest-r.Applied)
			}
			rs = append(rs, text)
		}
		tab.Row(s.Shard, owner, since, term, epoch, newest, strings.Join(rs, ", "))
	}
	return tab.Write(w)
}
