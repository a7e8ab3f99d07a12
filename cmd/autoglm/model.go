package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	modelLook = 200 * time.Millisecond // between two looks at a change that is under way
	modelWait = 15 * time.Minute       // for one, unless --timeout says otherwise
)

func newModel(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "model", Short: "Load, swap and unload models while nodes run",
		Long: "Changes which engines the nodes have, without a restart and without losing a request. What is loaded is loaded again when a node is\n" +
			"started again; what its configuration names stays as that says. All of it is for the operator. More: docs/engines.md.",
	}
	cli.Group(cmd)
	cmd.AddCommand(newModelList(app), newModelLoad(app), newModelSwap(app), newModelPromote(app), newModelRollback(app), newModelUnload(app))
	return cmd
}

func newModelList(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "Show the engines of all nodes", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			all, err := c.Engines(cmd.Context())
			switch {
			case err != nil:
				return err
			case app.JSON():
				err = app.PrintJSON(all)
			default:
				err = writeEngines(app.Out, all)
			}
			if err == nil && len(all.Silent) > 0 {
				err = silent(all, "list")
			}
			return err
		},
	}
	app.ClientFlags(cmd)
	return cmd
}

func writeEngines(w io.Writer, all *wire.Engines) error {
	tab := cli.NewTable("NODE", "ENGINE", "STATE", "VERSION>", "BUSY>", "TOKENS/S>", "MODELS", "FROM", "")
	for _, e := range all.Engines {
		note := engineNote(e)
		if cli.IsTTY(w) { // elsewhere nothing wraps, and an error is wanted whole
			note = cli.Cut(note, 160)
		}
		tab.Row(e.Node, e.Name, e.State, e.Version, e.Busy, fmt.Sprintf("%.0f", e.Pace), cli.Cut(strings.Join(e.Models, ", "), 40), cli.Cut(engineFrom(e.Spec), 40), note)
	}
	return tab.Write(w)
}

// engineFrom is what an engine is made of, in a word or two.
func engineFrom(s wire.EngineSpec) string {
	program := s.Preset
	if len(s.Command) > 0 {
		program = filepath.Base(s.Command[0])
	}
	if s.Path == "" {
		return cmp.Or(program, s.URL)
	}
	return strings.TrimSpace(program + " " + filepath.Base(s.Path))
}

// engineNote is what else is to be said of an engine.
func engineNote(e wire.EngineEntry) string {
	var all []string
	if c := e.Change; c != nil && c.State == "running" {
		all = append(all, c.What+" since "+cli.Ago(c.At))
	} else if c != nil && c.State == "failed" {
		all = append(all, c.What+" failed: "+c.Error)
	}
	if e.Canary != nil {
		all = append(all, canaryNote(e))
	}
	if e.Former != nil {
		all = append(all, "rollback to "+engineFrom(e.Former.Spec))
	}
	if e.Reason != "" {
		all = append(all, e.Reason)
	}
	if len(e.Engines) > 0 && e.Engines[0].Limits != "" {
		all = append(all, "limits: "+e.Engines[0].Limits)
	}
	return strings.Join(all, "; ")
}

// canaryNote sets a canary beside the engine's own model.
func canaryNote(e wire.EngineEntry) string {
	told := func(es []wire.Engine) string {
		var answered, failed uint64
		var seconds float64
		for _, x := range es {
			answered, failed, seconds = answered+x.Answered, failed+x.Failed, seconds+x.Mean*float64(x.Answered)
		}
		return fmt.Sprintf("%d answered, %d failed, %s each", answered, failed, time.Duration(seconds/float64(max(answered, 1))*float64(time.Second)).Round(time.Millisecond))
	}
	return fmt.Sprintf("canary version %d (%s), %d %%: %s; version %d: %s", e.Canary.Version, engineFrom(e.Canary.Spec), e.Canary.Percent,
		told(e.Canary.Engines), e.Version, told(e.Engines))
}

// modelFlags are of every command that changes an engine.
type modelFlags struct {
	node   string
	noWait bool
	limit  time.Duration
	spec   wire.EngineSpec
	limits wire.EngineLimits
}

func (m *modelFlags) add(app *cli.App, cmd *cobra.Command, node, nodes string) {
	app.ClientFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&m.node, "node", node, "`name` of the node, or all: "+nodes)
	f.BoolVar(&m.noWait, "no-wait", false, "begin it, and do not wait for its end")
	f.DurationVar(&m.limit, "timeout", modelWait, "longest wait; the change itself goes on")
}

func (m *modelFlags) addSpec(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&m.spec.Path, "path", "", "GGUF `file` on the node's machine; with --preset what that server takes, a file or a folder")
	f.StringVar(&m.spec.URL, "url", "", "`URL` of an engine with OpenAI's API, in place of a file")
	f.StringVar(&m.spec.Preset, "preset", "", "`server` for the path that the node starts: llama-server, vllm or sglang, where its model.allowed_commands has it")
	f.StringSliceVar(&m.spec.Command, "command", nil, "`program,argument,…` of another server, as templates, where model.allowed_commands has any; may be repeated")
	f.StringToStringVar(&m.spec.Env, "env", nil, "`NAME=VALUE` for the command's environment; may be repeated")
	cli.Complete(cmd, "preset", "llama-server", "vllm", "sglang")
	f.StringSliceVar(&m.spec.Models, "model", nil, "of a file: the `name` that tasks ask for (default NAME); of a URL: what it serves (default: it is asked)")
	f.StringSliceVar(&m.spec.Aliases, "alias", nil, "another `name` for its first model; may be repeated")
	f.StringVar(&m.spec.GPU, "gpu", "", "CUDA_VISIBLE_DEVICES of its processes, like `0`")
	f.IntVar(&m.spec.Workers, "workers", 0, "processes (default model.workers)")
	f.IntVar(&m.spec.Slots, "slots", 0, "answers that one process makes at once (default model.slots)")
	f.IntVar(&m.spec.Ctx, "ctx", 0, "`tokens` of a prompt with its answer (default model.ctx)")
	f.Float64Var(&m.limits.CPU, "cpu-limit", 0, "`processors` that each process may use (default: all); with one of the four limits, those that are left out are none")
	f.StringVar(&m.limits.Memory, "memory-limit", "", "`bytes` that each process may use, like 8GiB")
	f.IntVar(&m.limits.IOWeight, "io-weight", 0, "`share` of the disks, 1 to 10000, where everybody else has 100")
	f.IntVar(&m.limits.Nice, "nice", 0, "niceness of each process, `1` to 19")
	f.IntVar(&m.spec.Concurrency, "concurrency", 0, "`requests` at once (default: its slots, 16 for a URL)")
	f.StringVar(&m.spec.APIKeyEnv, "api-key-env", "", "environment `variable` of the node with the URL's key; its name begins with ENGINE_")
}

// run begins a change and follows it to its end.
func (m *modelFlags) run(cmd *cobra.Command, app *cli.App, what string, begin func(*client.Client) (*wire.Engines, error)) error {
	c, err := app.Client()
	if err != nil {
		return err
	}
	if m.spec.Path != "" && !filepath.IsAbs(m.spec.Path) { // as this machine has it: right where the node is on it, and else refused by name
		if m.spec.Path, err = filepath.Abs(m.spec.Path); err != nil {
			return cli.Usage("--path: %v", err)
		}
	}
	if m.limits != (wire.EngineLimits{}) {
		m.spec.Limits = &m.limits
	}
	begun, err := begin(c)
	if err != nil {
		return err
	}
	if !m.noWait {
		ctx, cancel := context.WithTimeout(cmd.Context(), m.limit)
		defer cancel()
		if begun.Engines, err = followEngines(ctx, c, what, begun.Engines); err != nil {
			return err
		}
	}
	if app.JSON() {
		err = app.PrintJSON(begun)
	} else {
		for _, e := range begun.Engines {
			fmt.Fprintf(app.Out, "%s: %s %s\n", e.Node, e.Name, outcome(e, what))
		}
	}
	for _, e := range begun.Engines {
		if err == nil && e.Change != nil && e.Change.State == "failed" {
			err = fault.New(fault.Unavailable, "model."+what, e.Node+": "+e.Name, "%s", e.Change.Error)
		}
	}
	if err == nil && len(begun.Silent) > 0 && what == "load" {
		err = silent(begun, what)
	}
	return err
}

func outcome(e wire.EngineEntry, what string) string {
	switch {
	case e.Change != nil && e.Change.State == "running":
		return what + " begun: autoglm model list shows how far it is"
	case e.Change != nil && e.Change.State == "failed":
		return what + " failed; nothing was changed"
	case what == "unload" && e.Source == "configuration":
		return "unloaded; the node's configuration loads it again at the next start"
	case what == "unload":
		return "unloaded"
	}
	if e.Canary != nil {
		return fmt.Sprintf("version %d is tried with %d %% of the work: autoglm model list shows how it does; then autoglm model promote %s, or rollback", e.Canary.Version, e.Canary.Percent, e.Name)
	}
	text := fmt.Sprintf("%s, version %d, serves %s", e.State, e.Version, strings.Join(e.Models, ", "))
	if e.Change != nil && len(e.Change.Lost) > 0 {
		text += "; no engine of this node serves " + strings.Join(e.Change.Lost, ", ") + " any more (name it with --model or --alias, or autoglm model rollback " + e.Name + ")"
	}
	if e.Source == "configuration" {
		text += "; until the node starts again: its configuration says otherwise"
	}
	return text
}

// followEngines waits until the changes have ended, and returns the engines as they are then.
func followEngines(ctx context.Context, c *client.Client, what string, begun []wire.EngineEntry) ([]wire.EngineEntry, error) {
	t := time.NewTicker(modelLook)
	defer t.Stop()
	for {
		all, err := c.Engines(ctx)
		if err == nil {
			under := false
			for i, b := range begun {
				if _, away := all.Silent[b.Node]; away {
					under = true
					continue
				}
				j := slices.IndexFunc(all.Engines, func(e wire.EngineEntry) bool { return e.Node == b.Node && e.Name == b.Name })
				if j < 0 { // unloaded
					begun[i].Change = nil
					continue
				}
				begun[i] = all.Engines[j]
				now := begun[i].Change
				under = under || now != nil && now.State == "running" || now == nil
			}
			if !under {
				return begun, nil
			}
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, fault.New(fault.Timeout, "model."+what, "", "it has not ended: %w", context.Cause(ctx)).WithRemedy("the change goes on: autoglm model list shows how far it is")
		}
	}
}

// silent tells of the nodes that did not do what was asked.
func silent(all *wire.Engines, what string) error {
	var texts []string
	for node, why := range all.Silent {
		texts = append(texts, node+": "+why)
	}
	slices.Sort(texts)
	return fault.New(fault.Unavailable, "model."+what, "", "%s", strings.Join(texts, "; "))
}

func newModelLoad(app *cli.App) *cobra.Command {
	var m modelFlags
	cmd := &cobra.Command{
		Use: "load NAME", Short: "Load a model, or use an engine behind a URL", Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		Example: "  autoglm model load glm-9b --path /models/glm-9b.gguf --gpu 0 --slots 8\n  autoglm model load vllm --url http://gpu:8000/v1 --alias fast --node all\n  autoglm model load glm-32b --preset vllm --path /models/glm-32b --gpu 1 --concurrency 64",
		RunE: func(cmd *cobra.Command, args []string) error {
			return m.run(cmd, app, "load", func(c *client.Client) (*wire.Engines, error) {
				return c.LoadEngine(cmd.Context(), wire.EngineLoad{Name: args[0], Node: m.node, Spec: m.spec})
			})
		},
	}
	m.add(app, cmd, "", "the one that is asked, where it is left out")
	m.addSpec(cmd)
	return cmd
}

func newModelSwap(app *cli.App) *cobra.Command {
	var m modelFlags
	var canary int
	cmd := &cobra.Command{
		Use: "swap NAME", Short: "Put another file or URL in an engine's place", Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Starts the new model beside the old one. Once it has answered a probe it takes the work; what the old one runs ends, and it is kept for ten\n" +
			"minutes for a rollback. When the new one does not come up, nothing changes. What no flag names stays as it was.",
		Example: "  autoglm model swap glm-9b --path /models/glm-9b-0624.gguf\n  autoglm model swap glm-9b --path /models/glm-9b-0624.gguf --canary 10",
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("canary") && (canary < 1 || canary > 99) {
				return cli.Usage("--canary: %d: use 1 to 99, or leave it out", canary)
			}
			return m.run(cmd, app, "swap", func(c *client.Client) (*wire.Engines, error) {
				return c.SwapEngine(cmd.Context(), args[0], wire.EngineSwap{Node: m.node, Spec: m.spec, Canary: canary})
			})
		},
	}
	m.add(app, cmd, "all", "those that have it")
	m.addSpec(cmd)
	cmd.Flags().IntVar(&canary, "canary", 0, "try it beside the old one with at most this `percent` of the work")
	return cmd
}

func newModelPromote(app *cli.App) *cobra.Command {
	var m modelFlags
	var percent int
	cmd := &cobra.Command{
		Use: "promote NAME", Short: "Give a canary more of the work, or all of it", Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Ends what swap --canary began: the new model takes the place of the old one, which is kept for ten minutes for a rollback. With --percent it goes\n" +
			"on being tried, with another part of the work.",
		Example: "  autoglm model promote glm-9b --percent 50\n  autoglm model promote glm-9b",
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("percent") && (percent < 1 || percent > 99) {
				return cli.Usage("--percent: %d: use 1 to 99, or leave it out for all of it", percent)
			}
			return m.run(cmd, app, "promote", func(c *client.Client) (*wire.Engines, error) {
				return c.PromoteEngine(cmd.Context(), args[0], wire.EnginePromote{Node: m.node, Percent: percent})
			})
		},
	}
	m.add(app, cmd, "all", "those that have it")
	cmd.Flags().IntVar(&percent, "percent", 0, "of the work, at most; left out: it takes the old one's place")
	return cmd
}

func newModelRollback(app *cli.App) *cobra.Command {
	var m modelFlags
	cmd := &cobra.Command{
		Use: "rollback NAME", Short: "Bring the former model back", Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Takes a canary away. Else it brings back what a swap replaced: at once for ten minutes, and by loading it again after that. Again, it brings the other one back.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return m.run(cmd, app, "rollback", func(c *client.Client) (*wire.Engines, error) {
				return c.RollbackEngine(cmd.Context(), args[0], wire.EngineBack{Node: m.node})
			})
		},
	}
	m.add(app, cmd, "all", "those that have it")
	return cmd
}

func newModelUnload(app *cli.App) *cobra.Command {
	var m modelFlags
	cmd := &cobra.Command{
		Use: "unload NAME", Short: "Take an engine away", Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "What it runs ends, and what waits for it goes to others. Tasks that only it served wait until one serves them again.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return m.run(cmd, app, "unload", func(c *client.Client) (*wire.Engines, error) {
				return c.UnloadEngine(cmd.Context(), args[0], m.node)
			})
		},
	}
	m.add(app, cmd, "all", "those that have it")
	return cmd
}
