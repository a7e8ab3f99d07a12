package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/trial"
	"github.com/open-autoglm/autoglm/cmd/glm-worker/model"
	"github.com/open-autoglm/autoglm/node"
)

func newDemo(app *cli.App) *cobra.Command {
	cfg := node.Default()
	cfg.DataDir, cfg.HTTP.Listen, cfg.Log.Level = "", "127.0.0.1:0", "warn"
	o := trial.Options{Node: []node.Option{node.WithModel(model.Name, model.GGUF), node.WithVersion(app.Version)}}
	cmd := &cobra.Command{
		Use: "demo", Short: "Run the shipped tasks through the shipped model and show how it did", Args: cobra.NoArgs,
		Long: "Starts a node in this process, or with --nodes a cluster on this machine, with the embedded engine, submits the shipped\n" +
			"data-cleaning tasks, waits for their answers, compares them with the right ones, and asks one such engine once more with\n" +
			"one request at a time.\n" +
			"Exits 0 when every task completed.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.DataDir == "" {
				dir, err := os.MkdirTemp("", "autoglm-demo-")
				if err != nil {
					return err
				}
				defer func() { _ = os.RemoveAll(dir) }() // it is in the temporary folder: the system removes the rest
				cfg.DataDir = dir
			}
			o.Config, o.Log = cfg, newLogger(app.Err, cfg.Log)
			return trial.Run(cmd.Context(), app, o)
		},
	}
	app.OutputFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&cfg.DataDir, "data-dir", "", "`folder` to keep the data in (default: a temporary one, removed at the end)")
	f.StringVar(&o.Out, "out", "results.jsonl", "`file` for each task with its answer; empty: none")
	f.StringVar(&cfg.Model.Worker, "worker", "", "glm-worker `binary` (default: beside autoglm)")
	f.IntVar(&o.Nodes, "nodes", 1, "`number` of nodes: 3 makes a cluster of three processes")
	f.IntVar(&cfg.Model.Workers, "workers", cfg.Model.Workers, "worker processes")
	f.IntVar(&cfg.Model.Slots, "slots", cfg.Model.Slots, "answers that one worker makes at once")
	f.IntVar(&o.Alone, "alone", 0, "`number` of tasks asked one at a time for comparison (default: all)")
	f.StringVar(&cfg.Log.Level, "log-level", cfg.Log.Level, "debug, info, warn or error")
	return cmd
}
