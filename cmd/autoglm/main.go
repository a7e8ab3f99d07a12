// Command autoglm runs LLM tasks offline: `autoglm serve` is a node, the other commands talk to one over HTTP.
//
//	serve                          a node: API, durable tasks, engines
//	submit get watch cancel        tasks
//	delete list
//	task                           what happened to one, and why it waits
//	dead                           those that failed, and trying them again
//	results export                 what became of them, as JSONL, CSV or Parquet
//	schedule                       tasks that are submitted again and again
//	sink                           where results are written to as they come
//	init dev cluster               a cluster: its certificates, one on this machine, what its nodes do
//	key quota                      who may use it, and how much of it
//	audit callback-secret          who administered it, who vouches for callbacks
//	status backup restore          the node
//	model                          its engines, changed while it runs
//	encryption-key                 the keys that seal what it writes
//	demo bench                     try it, measure it
//
// Each file beside this one is a command: flags in, one call into node, node/api/client or internal, and text out.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/cmd/autoglm/demo"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/bench"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = "dev"

func main() {
	// The first signal ends the command in order; restoring the default lets a second one end it at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	app := cli.New(version)
	cmd, err := newRoot(app).ExecuteContextC(ctx)
	app.Named(cmd)
	os.Exit(app.Report(err))
}

func newRoot(app *cli.App) *cobra.Command {
	root := &cobra.Command{
		Use:   "autoglm",
		Short: "Runs LLM tasks offline: durable, batched, called back",
		Long: "Open-AutoGLM takes tasks (a prompt, a data_url, a callback_url), keeps them safe, batches them into a GLM model,\n" +
			"stores the answers and calls back. Start a node with `autoglm serve`, or see it work with `autoglm demo`.\n\n" + cli.ExitHelp,
		SilenceErrors: true, // main tells them, with their remedy
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(flagError)
	root.SetOut(app.Out)
	root.SetErr(app.Err)
	root.AddGroup(&cobra.Group{ID: "tasks", Title: "Tasks:"}, &cobra.Group{ID: "node", Title: "Nodes:"}, &cobra.Group{ID: "try", Title: "Try and measure:"})
	group := func(id string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	group("tasks", newSubmit(app), newGet(app), newWatch(app), newCancel(app), newDelete(app), newList(app), newTask(app), newDead(app), newResults(app), newExport(app), newBatch(app), newSchedule(app), newSink(app))
	group("node", newServe(app), newInit(app), newDev(app), newStatus(app), newModel(app), newCluster(app), newAPIKeys(app), newQuota(app), newAudit(app), newCallbackSecret(app), newBackup(app), newRestore(app), newEncryptionKey(app))
	group("try", newDemo(app), bench.NewCommand(bench.WithPrompts(demo.Tasks)))
	root.AddCommand(newVersion(app))
	return root
}
