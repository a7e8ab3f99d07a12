package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/dev"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	clusterLook  = 300 * time.Millisecond // between two looks at a cluster that is to change
	behindMax    = 64                     // entries that a replica may lack and still count as caught up, as in package placement
	rollingWait  = 5 * time.Minute        // for each node of a rolling restart
	drainTimeout = time.Hour
)

func newClusterDrain(app *cli.App) *cobra.Command {
	var undo, wait, force bool
	var limit time.Duration
	cmd := &cobra.Command{Use: "drain NODE", Short: "Empty a node before it is taken away", Args: cobra.ExactArgs(1),
		Long: "Makes NODE give its replicas and leads to others; it goes on serving meanwhile. When it has none, stop it. Run\n" +
			"this on the machine of any node: the API takes it from there only. A restart of NODE, or --undo, lets it take part again.",
		Example: "  autoglm cluster drain node-4 --wait",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			if err := c.Drain(cmd.Context(), wire.Drain{Node: args[0], Undo: undo, Force: force}); err != nil {
				return err
			}
			if undo || !wait {
				return nil
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), limit)
			defer cancel()
			began := time.Now()
			if err := await(ctx, c, func(v *wire.Cluster) string {
				for _, n := range v.Members {
					if n.Name == args[0] && n.Replicas > 0 {
						return fmt.Sprintf("%s still has %d replicas", n.Name, n.Replicas)
					}
				}
				return ""
			}); err != nil {
				return err
			}
			fmt.Fprintf(app.Out, "%s is empty after %v: stop it\n", args[0], time.Since(began).Round(100*time.Millisecond))
			return nil
		},
	}
	app.ClientFlags(cmd)
	f := cmd.Flags()
	f.BoolVar(&undo, "undo", false, "let it take part again")
	f.BoolVar(&force, "force", false, "even where fewer nodes stay than a shard has copies")
	f.BoolVar(&wait, "wait", false, "wait until it is empty")
	f.DurationVar(&limit, "timeout", drainTimeout, "longest wait")
	return cmd
}

// await looks at a cluster until missing says that nothing is missing.
func await(ctx context.Context, c *client.Client, missing func(*wire.Cluster) string) error {
	t := time.NewTicker(clusterLook)
	defer t.Stop()
	for {
		why := ""
		v, err := c.Cluster(ctx)
		if err != nil {
			why = fault.Shown(err)
		} else {
			why = missing(v)
		}
		if why == "" {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fault.New(fault.Timeout, "cluster", "", "%s: %w", why, context.Cause(ctx)).WithRemedy("see autoglm cluster shards and events; the change itself goes on")
		}
	}
}

// whole says what a cluster lacks to lose another node: a shard without an owner, a copy too few, or one that is down
// or behind.
func whole(v *wire.Cluster) string {
	for _, n := range v.Members {
		if n.State != "alive" {
			return fmt.Sprintf("%s is %s", n.Name, n.State)
		}
	}
	copies := min(v.Copies, len(v.Members))
	for _, s := range v.Shards {
		if s.Lead == nil {
			return fmt.Sprintf("shard %d has no owner", s.Shard)
		}
		if len(s.Replicas) < copies {
			return fmt.Sprintf("shard %d has %d of %d copies", s.Shard, len(s.Replicas), copies)
		}
		newest := uint64(0)
		for _, r := range s.Replicas {
			newest = max(newest, r.Applied)
		}
		for _, r := range s.Replicas {
			if !r.Alive || !r.Voter || newest-r.Applied > behindMax {
				return fmt.Sprintf("shard %d: the replica on %s is down or behind", s.Shard, r.Node)
			}
		}
	}
	return ""
}

func newRollingRestart(app *cli.App) *cobra.Command {
	var dir string
	var wait time.Duration
	cmd := &cobra.Command{Use: "rolling-restart", Short: "Restart the nodes of `autoglm dev` one by one, without a pause for clients", Args: cobra.NoArgs,
		Long: "Restarts each node of a local cluster (autoglm dev) in order: it drains, hands its leads over and stops; then it starts, and the\n" +
			"next one follows when every shard has its owner and all replicas have caught up. Elsewhere do the same by hand: see docs/deploy.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := dev.Dial(dir)
			if err != nil {
				return err
			}
			nodes, err := d.Status(cmd.Context())
			if err != nil {
				return err
			}
			for i, n := range nodes {
				if err := restartOne(cmd.Context(), app, d, nodes, i, wait); err != nil {
					return fmt.Errorf("%s: %w", n.Name, err)
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "data-dir", devDir, "`folder` of the cluster, as of autoglm dev")
	f.DurationVar(&wait, "wait", rollingWait, "longest wait for each node")
	return cmd
}

// restartOne restarts node i when the cluster can do without it, and waits until the cluster is whole again.
func restartOne(ctx context.Context, app *cli.App, d *dev.Client, nodes []dev.Node, i int, wait time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	other, err := client.New(nodes[(i+1)%len(nodes)].URL)
	if err != nil {
		return err
	}
	if err := await(ctx, other, whole); err != nil {
		return err
	}
	began := time.Now()
	if _, err := d.Restart(ctx, nodes[i].Name, wait); err != nil {
		return err
	}
	if err := await(ctx, other, whole); err != nil {
		return err
	}
	fmt.Fprintf(app.Out, "%s restarted in %v\n", nodes[i].Name, time.Since(began).Round(100*time.Millisecond))
	return nil
}
