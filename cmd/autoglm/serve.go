package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/clock"
	"github.com/open-autoglm/autoglm/cmd/glm-worker/model"
	"github.com/open-autoglm/autoglm/node"
)

// stopMargin is what a stop may take beyond the drain: closing the store.
const stopMargin = 30 * time.Second

// serveKeys maps the flags of serve to settings.
var serveKeys = map[string]string{
	"data-dir": "data_dir", "http": "http.listen", "tls-cert": "http.tls_cert", "tls-key": "http.tls_key", "keys": "access.keys", "admin-key-file": "access.admin_key_file", "engine": "engines", "model": "model.path",
	"model-name": "model.name", "worker": "model.worker", "workers": "model.workers", "shards": "shards", "drain": "drain",
	"log-level": "log.level", "log-format": "log.format", "identity": "cluster.identity", "cluster-listen": "cluster.listen",
	"advertise": "cluster.advertise", "join": "cluster.join", "bootstrap-expect": "cluster.expect", "zone": "cluster.zone",
}

func newServe(app *cli.App) *cobra.Command {
	var config string
	var print bool
	var set []string
	def := node.Default()
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a node",
		Long: "Runs a node until SIGTERM or Ctrl-C: it then takes no more requests, lets what runs end, and stops; nothing is lost.\n" +
			"A second signal ends it at once, which loses nothing that was acknowledged either.\n\n" +
			"Settings come from flags, else from the environment (AUTOGLM_HTTP_LISTEN for http.listen), else from --config, else\n" +
			"from the defaults. --print-config shows them all, with what each does.",
		Example: "  autoglm serve\n  autoglm serve --identity nodes/a --join b:7946,c:7946 --bootstrap-expect 3\n  autoglm serve --data-dir /var/lib/autoglm --engine http://gpu:8000/v1\n" +
			"  autoglm serve --model glm-4-9b-q4.gguf --set batch.age_max=20ms",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			flags, err := serveFlags(cmd.Flags(), set)
			if err != nil {
				return err
			}
			cfg, unknown, err := node.Load(config, os.Environ(), flags)
			if err != nil {
				return err
			}
			if print {
				return cfg.Print(app.Out)
			}
			log := newLogger(app.Err, cfg.Log)
			for _, name := range unknown {
				if !slices.Contains([]string{cli.ServerEnv, cli.KeyEnv, cli.KeyFileEnv, cli.TrustEnv, clock.Env}, name) {
					log.Warn("an environment variable is no setting", "name", name)
				}
			}
			if path := os.Getenv(clock.Env); path != "" {
				log.Warn("this node's wall clock is set by a file: that is for tests", "variable", clock.Env, "file", path)
				now, stop, err := clock.Follow(path)
				if err != nil {
					return err
				}
				defer stop()
				extra = append(extra, node.WithClock(now))
			}
			return serve(cmd.Context(), cfg, log, app.Version)
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", "", "YAML `file` with settings")
	f.BoolVar(&print, "print-config", false, "print the settings as they would be used, and exit")
	f.StringArrayVar(&set, "set", nil, "any setting, as `KEY=VALUE`; a list with commas, like callback.allowed_nets=10.0.0.0/8,127.0.0.1; may be repeated")
	f.String("data-dir", def.DataDir, "`folder` of everything durable")
	f.String("http", def.HTTP.Listen, "`address` of the API; port 0 takes a free one")
	f.String("tls-cert", "", "`file` with the API's certificate (PEM)")
	f.String("tls-key", "", "`file` with its key")
	f.String("keys", def.Access.Keys, "who needs an API key: auto, required, or off (on loopback only)")
	f.String("admin-key-file", "", "`file` with the operator's first API key, or its hash (see autoglm key root)")
	f.StringArray("engine", nil, "embedded, echo or a `URL`; may be repeated (default embedded)")
	f.String("model", "", "GGUF `file` of the embedded engine (default: the shipped model)")
	f.String("model-name", "", "`model` of tasks that name none")
	f.String("worker", "", "glm-worker `binary` (default: beside autoglm)")
	f.Int("workers", def.Model.Workers, "worker processes of the embedded engine")
	f.Int("shards", 0, "shards of a new data directory (default 16)")
	f.Duration("drain", def.Drain, "longest wait at the end for what runs")
	f.String("identity", "", "`folder` with this node's certificate: it is one of a cluster (see autoglm init)")
	f.StringSlice("join", nil, "gossip `address` host:port of another node; may be repeated")
	f.Int("bootstrap-expect", 0, "`nodes` that must see each other before they start a new cluster")
	f.String("cluster-listen", def.Cluster.Listen, "`address` for the other nodes; the two ports after it are taken as well")
	f.String("advertise", "", "`host` under which the other nodes reach this one (default: found out)")
	f.String("zone", "", "`name` of the rack or availability zone of this node")
	f.String("log-level", def.Log.Level, "debug, info, warn or error")
	f.String("log-format", def.Log.Format, "text or json")
	cli.Complete(cmd, "engine", node.EngineEmbedded, node.EngineEcho, "http://")
	cli.Complete(cmd, "keys", node.KeysAuto, node.KeysRequired, node.KeysOff)
	cli.Complete(cmd, "log-level", "debug", "info", "warn", "error")
	cli.Complete(cmd, "log-format", "text", "json")
	return cmd
}

// serveFlags returns the settings that the command line gives.
func serveFlags(f *pflag.FlagSet, set []string) (map[string]any, error) {
	flags := map[string]any{}
	for _, kv := range set {
		key, value, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, cli.Usage("--set is %q: write KEY=VALUE, like batch.size_max=64", kv)
		}
		flags[key] = value
	}
	f.Visit(func(flag *pflag.Flag) {
		key, ok := serveKeys[flag.Name]
		if !ok {
			return
		}
		if list, ok := flag.Value.(pflag.SliceValue); ok {
			flags[key] = list.GetSlice()
			return
		}
		flags[key] = flag.Value.String()
	})
	return flags, nil
}

func newLogger(w io.Writer, c node.LogConfig) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // Validate allows only names that it knows
	opt := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opt))
	}
	return slog.New(slog.NewTextHandler(w, opt))
}

// extra is what a build tag adds to a node that serves.
var extra []node.Option

// serve runs a node until ctx ends or the node cannot go on.
func serve(ctx context.Context, cfg node.Config, log *slog.Logger, version string) error {
	n, err := node.New(cfg, log, append([]node.Option{node.WithModel(model.Name, model.GGUF), node.WithVersion(version)}, extra...)...)
	if err != nil {
		return err
	}
	if err := n.Start(ctx); err != nil {
		if ctx.Err() != nil && n.Err() == nil {
			log.Info("stopped before it served") // as it was told to: for a supervisor that is no failure
			return nil
		}
		return err
	}
	select {
	case <-ctx.Done():
		log.Info("stopping: what runs may end", "drain", cfg.Drain)
	case <-n.Done():
	}
	if err := n.Err(); errors.Is(err, node.ErrDataGone) {
		return err // at once, like a crash: there is nothing to close
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Drain)
	defer cancel()
	hard := time.AfterFunc(cfg.Drain+stopMargin, func() {
		log.Error("stopping takes too long: leaving", "after", cfg.Drain+stopMargin)
		os.Exit(cli.ExitFailed) // the journal is whole: recovery is the same as after a crash
	})
	defer hard.Stop()
	if err := n.Stop(stop); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	if err := n.Err(); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}
