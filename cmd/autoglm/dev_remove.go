package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/dev"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func newDevRemove(app *cli.App, dir *string, wait *time.Duration) *cobra.Command {
	var force bool
	cmd := &cobra.Command{Use: "remove NAME", Short: "Forget a node that was drained and stopped", Args: cobra.ExactArgs(1),
		Long: "Forgets a node that is down and empty: the next `autoglm dev` does not start it, and the others do not look for it. Its\n" +
			"folder stays; remove it when you want it no more.",
		Example: "  autoglm cluster drain node-4 --wait && autoglm dev stop node-4 && autoglm dev remove node-4",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dev.Dial(*dir)
			if err != nil {
				return err
			}
			if !force {
				if err := emptied(cmd.Context(), c, args[0]); err != nil {
					return err
				}
			}
			n, err := c.Remove(cmd.Context(), args[0], *wait)
			if err != nil {
				return err
			}
			if app.JSON() {
				return app.PrintJSON(n)
			}
			_, err = fmt.Fprintf(app.Out, "%s is forgotten; its data stay in %s\n", n.Name, n.DataDir)
			return err
		}}
	app.OutputFlag(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "even if it holds replicas, or nobody can say: they are lost to the cluster, not from the folder")
	return cmd
}

// emptied asks the nodes that are up whether the cluster has taken everything from a node.
func emptied(ctx context.Context, c *dev.Client, name string) error {
	nodes, err := c.Status(ctx)
	if err != nil {
		return err
	}
	var up []string
	for _, n := range nodes {
		if n.Name == name && n.State != dev.Down {
			return nil // that comes first: it is refused for that
		}
		if n.State == dev.Ready {
			up = append(up, n.URL)
		}
	}
	if len(up) == 0 {
		return fault.New(fault.Refused, "dev.remove", name, "no node is ready that could say whether it still holds replicas").
			WithRemedy("start the others first, or use --force")
	}
	api, err := client.New(strings.Join(up, ","))
	if err != nil {
		return err
	}
	v, err := api.Cluster(ctx)
	if err != nil {
		return err
	}
	return holdsNone(v, name)
}

// holdsNone refuses a node that shards count on.
func holdsNone(v *wire.Cluster, name string) error {
	held := 0
	for _, s := range v.Shards {
		for _, r := range s.Replicas {
			if r.Node == name {
				held++
			}
		}
	}
	if held == 0 {
		return nil
	}
	return fault.New(fault.Refused, "dev.remove", name, "holds replicas of %d shards", held).
		WithRemedy("empty it first, while it runs: autoglm dev start %s, autoglm cluster drain %s --wait, autoglm dev stop %s", name, name, name)
}
