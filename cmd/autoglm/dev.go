package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/dev"
	"github.com/open-autoglm/autoglm/node"
)

const (
	devDir       = "autoglm-dev"      // default folder of a local cluster
	devWait      = 2 * time.Minute    // for nodes to get ready: the embedded engine loads its model
	devKillAfter = stopMargin * 7 / 6 // beyond the drain: a node leaves by itself a little earlier
)

// devPassed are the flags of dev that every node gets as they are.
var devPassed = []string{"config", "set", "engine", "model", "model-name", "worker", "workers", "shards", "drain", "log-level", "log-format"}

func newDev(app *cli.App) *cobra.Command {
	o := dev.Options{Log: app.Err, HTTPPort: dev.KeepPorts, ClusterPort: dev.KeepPorts}
	var wait time.Duration
	def := node.Default()
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a whole cluster on this machine", Args: cobra.NoArgs,
		Long: "Runs a cluster of several nodes, each a process of its own, until Ctrl-C. A second Ctrl-C kills them all at once, which\n" +
			"loses nothing that was acknowledged. A node that dies stays down until `autoglm dev start NAME`.\n\n" +
			"Everything is in --data-dir: node-1/ (data), node-1.log, pki/ (certificates), dev.json (names, process ids, addresses).\n" +
			"The same command on the same folder starts that cluster again, with more --nodes it grows.",
		Example: "  autoglm dev\n  autoglm dev --nodes 3 --engine echo --data-dir /tmp/cluster --http-port 9080\n" +
			"  autoglm dev stop node-2 --data-dir /tmp/cluster",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("nodes") && o.Nodes < 1 {
				return cli.Usage("--nodes is %d: use 1 to %d", o.Nodes, dev.NodesMax)
			}
			if err := devSettings(cmd.Flags(), &o); err != nil {
				return err
			}
			return runDev(cmd.Context(), app, o, wait)
		},
	}
	cmd.PersistentFlags().StringVar(&o.Dir, "data-dir", devDir, "`folder` of the whole cluster")
	cmd.PersistentFlags().DurationVar(&wait, "wait", devWait, "longest wait until nodes are ready")
	app.OutputFlag(cmd)
	f := cmd.Flags()
	f.IntVar(&o.Nodes, "nodes", 0, "`number` of nodes (default: as many as the folder has, else "+strconv.Itoa(dev.NodesDefault)+")")
	f.IntVar(&o.HTTPPort, "http-port", dev.KeepPorts, fmt.Sprintf("`port` of node-1's API, node-2 has the next one; 0: free ones (default: as before, else %d)", dev.HTTPDefault))
	f.IntVar(&o.ClusterPort, "cluster-port", dev.KeepPorts, fmt.Sprintf("first of the three `ports` of node-1 for other nodes; 0: free ones (default: as before, else %d)", dev.ClusterDefault))
	f.Lookup("http-port").DefValue, f.Lookup("cluster-port").DefValue = "0", "0" // told in the text
	f.String("config", "", "YAML `file` with settings of all nodes")
	f.StringArray("set", nil, "any setting of all nodes, as `KEY=VALUE`; may be repeated")
	f.StringArray("engine", nil, "embedded, echo or a `URL`; may be repeated (default embedded)")
	f.String("model", "", "GGUF `file` of the embedded engine (default: the shipped model)")
	f.String("model-name", "", "`model` of tasks that name none")
	f.String("worker", "", "glm-worker `binary` (default: beside autoglm)")
	f.Int("workers", 0, "worker processes of the embedded engine of each node (default: the nodes share the processors)")
	f.Int("shards", 0, "shards of a new cluster (default 16)")
	f.Duration("drain", def.Drain, "longest wait of a node at its end for what runs")
	f.String("log-level", def.Log.Level, "debug, info, warn or error")
	f.String("log-format", def.Log.Format, "text or json")
	cli.Complete(cmd, "engine", node.EngineEmbedded, node.EngineEcho, "http://")
	cmd.AddCommand(newDevStatus(app, &o.Dir), newDevRemove(app, &o.Dir, &wait))
	verb := func(use, short string, args cobra.PositionalArgs, do func(context.Context, *dev.Client, []string) (dev.Node, error)) *cobra.Command {
		c := &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
			c, err := dev.Dial(o.Dir)
			if err != nil {
				return err
			}
			n, err := do(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			return writeDevNodes(app, []dev.Node{n})
		}}
		app.OutputFlag(c)
		cmd.AddCommand(c)
		return c
	}
	verb("start NAME", "Start a node that is down", cobra.ExactArgs(1), func(ctx context.Context, c *dev.Client, args []string) (dev.Node, error) {
		return c.Start(ctx, args[0], wait)
	})
	var force bool
	stop := verb("stop NAME", "Stop a node in order; it stays down", cobra.ExactArgs(1), func(ctx context.Context, c *dev.Client, args []string) (dev.Node, error) {
		return c.Stop(ctx, args[0], wait, force)
	})
	stop.Flags().BoolVar(&force, "force", false, "also when less than a majority of the nodes stays up: then no shard answers")
	verb("restart NAME", "Stop a node in order and start it again", cobra.ExactArgs(1), func(ctx context.Context, c *dev.Client, args []string) (dev.Node, error) {
		return c.Restart(ctx, args[0], wait)
	})
	verb("add", "Add a node to the cluster that runs", cobra.NoArgs, func(ctx context.Context, c *dev.Client, _ []string) (dev.Node, error) {
		return c.Add(ctx, wait)
	})
	return cmd
}

func newDevStatus(app *cli.App, dir *string) *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "Show the nodes of the cluster that runs", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := dev.Dial(*dir)
			if err != nil {
				return err
			}
			nodes, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			return writeDevNodes(app, nodes)
		}}
	app.OutputFlag(cmd)
	return cmd
}

// devSettings checks the nodes' settings before any is started, and collects the arguments that all of them get.
func devSettings(f *pflag.FlagSet, o *dev.Options) error {
	config, _ := f.GetString("config") // the flags exist: newDev made them
	set, _ := f.GetStringArray("set")
	flags, err := serveFlags(f, set)
	if err != nil {
		return err
	}
	flags["cluster.identity"] = "made later" // so that what a node of a cluster may is allowed
	cfg, _, err := node.Load(config, os.Environ(), flags)
	if err != nil {
		return err
	}
	o.StopMax = cfg.Drain + devKillAfter
	for _, name := range devPassed {
		flag := f.Lookup(name)
		if !flag.Changed {
			continue
		}
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			for _, v := range list.GetSlice() {
				o.Args = append(o.Args, "--"+name, v)
			}
			continue
		}
		o.Args = append(o.Args, "--"+name, flag.Value.String())
	}
	own := func(kv string) bool { return strings.HasPrefix(kv, "model.workers=") }
	if f.Changed("workers") || config != "" || os.Getenv(node.EnvPrefix+"MODEL_WORKERS") != "" || slices.ContainsFunc(set, own) {
		return nil
	}
	nodes := o.Nodes
	if nodes == 0 {
		nodes = dev.NodesDefault
	}
	o.Args = append(o.Args, "--workers", strconv.Itoa(max(1, runtime.NumCPU()/nodes)))
	return nil
}

// runDev runs a cluster until ctx ends. A second signal kills all nodes.
func runDev(ctx context.Context, app *cli.App, o dev.Options, wait time.Duration) error {
	// Who read the output may go before the cluster does, as in `autoglm dev | head`. Caught, a write just fails; ignored,
	// the nodes would inherit it. It stays caught to the process's end: main may have a last word.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	signals := make(chan os.Signal, 2) // main's own handler takes the first one too, and makes ctx end
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	hurry, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	go func() {
		for range 2 {
			select {
			case <-signals:
			case <-hurry.Done():
				return
			}
		}
		kill()
	}()
	o.Colour = cli.IsTTY(app.Err) && os.Getenv("NO_COLOR") == ""
	c, err := dev.Open(o)
	if err != nil {
		return err
	}
	defer c.Close(hurry)
	ready, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := c.Start(ready); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	if err := writeDevNodes(app, c.Nodes()); err != nil && !errors.Is(err, syscall.EPIPE) {
		return err
	}
	if text := devWarning(len(c.Nodes())); text != "" {
		fmt.Fprintln(app.Err, text)
	}
	if !app.JSON() {
		fmt.Fprintln(app.Out, devHints(c.Nodes(), c.Dir()))
	}
	<-ctx.Done()
	return nil
}

func writeDevNodes(app *cli.App, nodes []dev.Node) error {
	if app.JSON() {
		return app.PrintJSON(nodes)
	}
	tab := cli.NewTable("NODE", "STATE", "HTTP", "PID>", "DATA")
	for _, n := range nodes {
		state, pid := string(n.State), "-"
		if n.Reason != "" {
			state += ": " + cli.Cut(n.Reason, 60)
		}
		if n.PID != 0 {
			pid = strconv.Itoa(n.PID)
		}
		tab.Row(n.Name, state, n.URL, pid, n.DataDir)
	}
	return tab.Write(app.Out)
}

// survivable is the smallest cluster that goes on when it loses a node: most of its nodes are still there.
const survivable = 3

// devWarning says what a cluster of so many nodes is no good for.
func devWarning(nodes int) string {
	if nodes != 2 {
		return ""
	}
	return "warning: a cluster of 2 nodes stops when either is down, for most nodes must be up: --nodes 3 goes on without one"
}

// devHints says what to try with a cluster that is up.
func devHints(nodes []dev.Node, dir string) string {
	last := nodes[len(nodes)-1]
	lines := []string{"",
		"Try:  autoglm submit --server " + nodes[0].URL + " --prompt 'Normalise the date to ISO 8601: March 5, 2024' --wait",
		"      autoglm status --server " + last.URL}
	if len(nodes) >= survivable {
		var urls []string
		for _, n := range nodes {
			urls = append(urls, n.URL)
		}
		lines = append(lines, "      export "+cli.ServerEnv+"="+strings.Join(urls, ",")+"   # any node that is up",
			fmt.Sprintf("      kill -9 %d, then: autoglm dev start %s --data-dir %s", last.PID, last.Name, dir))
	}
	return strings.Join(append(lines, "Ctrl-C stops all nodes."), "\n")
}
