package trial

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/dev"
	"github.com/open-autoglm/autoglm/node"
)

const (
	readyWithin = 2 * time.Minute  // for a cluster: its workers load the model
	killMargin  = 30 * time.Second // beyond the drain, before a node that was told to end is killed
)

// startNode starts a node in this process.
func startNode(ctx context.Context, app *cli.App, o Options) (urls []string, e infer.Engine, stop func() error, err error) {
	n, err := node.New(o.Config, o.Log, o.Node...)
	if err != nil {
		return nil, nil, nil, err
	}
	say(app, "Starting a node in %s", o.Config.DataDir)
	if err := n.Start(ctx); err != nil {
		return nil, nil, nil, err
	}
	stop = func() error {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.Config.Drain)
		defer cancel()
		return n.Stop(end)
	}
	say(app, "Loading the model into %d worker process(es)", len(n.Engines()))
	if err := n.WaitEngines(ctx); err != nil {
		return nil, nil, nil, errors.Join(err, stop())
	}
	return []string{"http://" + n.HTTPAddr()}, n.Engines()[0], stop, nil
}

// startCluster starts a cluster of processes, as `autoglm dev` does.
func startCluster(ctx context.Context, app *cli.App, o Options) (urls []string, stop func() error, err error) {
	workers := max(1, min(o.Config.Model.Workers, runtime.NumCPU()/o.Nodes))
	args := []string{"--engine", node.EngineEmbedded, "--workers", strconv.Itoa(workers), "--log-level", o.Config.Log.Level,
		"--set", "model.slots=" + strconv.Itoa(o.Config.Model.Slots)}
	if o.Config.Model.Worker != "" {
		args = append(args, "--worker", o.Config.Model.Worker)
	}
	say(app, "Starting a cluster of %d nodes in %s, each with %d worker process(es)", o.Nodes, o.Config.DataDir, workers)
	opt := dev.Options{Dir: o.Config.DataDir, Nodes: o.Nodes, HTTPPort: 0, ClusterPort: 0, Args: args, StopMax: o.Config.Drain + killMargin}
	if o.Config.Log.Level != "warn" { // else what they say is in their files only
		opt.Log = app.Err
	}
	c, err := dev.Open(opt)
	if err != nil {
		return nil, nil, err
	}
	stop = func() error {
		c.Close(context.WithoutCancel(ctx))
		return nil
	}
	ready, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	if err := c.Start(ready); err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	for _, n := range c.Nodes() {
		urls = append(urls, n.URL)
	}
	return urls, stop, nil
}

// oneEngine starts one worker like those of the cluster, for the comparison.
func oneEngine(ctx context.Context, o Options) (e infer.Engine, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "autoglm-alone-")
	if err != nil {
		return nil, nil, err
	}
	cfg := o.Config
	cfg.DataDir, cfg.Model.Workers = dir, 1
	n, err := node.New(cfg, o.Log, o.Node...)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	stop = func() error {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.Config.Drain)
		defer cancel()
		return errors.Join(n.Stop(end), os.RemoveAll(dir))
	}
	if err := n.Start(ctx); err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	if err := n.WaitEngines(ctx); err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return n.Engines()[0], stop, nil
}
