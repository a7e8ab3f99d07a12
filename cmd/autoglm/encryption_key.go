package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/cluster/seal"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
)

// keyReport is what encryption-key says with -o json.
type keyReport struct {
	File string     `json:"file"`
	Step seal.Step  `json:"step,omitempty"`
	Keys []seal.Key `json:"keys"`
	Next string     `json:"next,omitempty"`
}

func newEncryptionKey(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "encryption-key", Short: "Make, rotate and look at the keys that seal what is written to disk",
		Long: "A node with a keyset (encryption.key_file, or AUTOGLM_ENCRYPTION_KEY) seals what tasks, files and batches hold before it\n" +
			"reaches any disk. All nodes of a cluster have the same file. Who loses it loses the data; no key is ever shown.",
		Example: "  autoglm encryption-key new rows.key\n  AUTOGLM_ENCRYPTION_KEY_FILE=rows.key autoglm serve\n  autoglm encryption-key rotate rows.key",
	}
	cmd.AddCommand(newKeyNew(app), newKeyRotate(app), newKeyInfo(app))
	return cmd
}

func newKeyNew(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "new FILE", Short: "Make a file with a first key", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := seal.Create(args[0]); err != nil {
				return err
			}
			return showKeys(app, keyReport{File: args[0], Next: "keep a copy of it away from the nodes: without it, what they write is lost. " +
				"Then start them with encryption.key_file; in a cluster that runs, first with encryption.standby on all nodes, and then without it"})
		},
	}
	app.OutputFlag(cmd)
	return cmd
}

func newKeyRotate(app *cli.App) *cobra.Command {
	var deployed, alone bool
	cmd := &cobra.Command{
		Use: "rotate FILE", Short: "Take the next of two steps to another key", Args: cobra.ExactArgs(1),
		Long: "The first step adds a key that only opens, the second seals with it. Every node must have the file of the first before the\n" +
			"second is taken. The old keys stay in the file: what was sealed with them is not written anew.",
		RunE: func(_ *cobra.Command, args []string) error {
			step, err := seal.Rotate(args[0], deployed, alone)
			if err != nil {
				return err
			}
			r := keyReport{File: args[0], Step: step, Next: step.Next()}
			if alone {
				r.Next = "restart the node; keep the old keys in the file: what was sealed with them still needs them"
			}
			return showKeys(app, r)
		},
	}
	app.OutputFlag(cmd)
	cmd.Flags().BoolVar(&deployed, "deployed", false, "every node has the file of the last step, and was restarted with it")
	cmd.Flags().BoolVar(&alone, "alone", false, "one node alone uses the file: both steps at once")
	return cmd
}

func newKeyInfo(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "info FILE", Short: "Show which keys are in a file, never what they are", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return showKeys(app, keyReport{File: args[0]}) },
	}
	app.OutputFlag(cmd)
	return cmd
}

// showKeys tells which keys are in r.File, and what was done to it.
func showKeys(app *cli.App, r keyReport) (err error) {
	if r.Keys, err = seal.Info(r.File); err != nil {
		return err
	}
	if app.JSON() {
		return app.PrintJSON(r)
	}
	if r.Step != "" {
		if _, err := fmt.Fprintf(app.Out, "key %s in %s\n\n", r.Step, r.File); err != nil {
			return err
		}
	}
	t := cli.NewTable("KEY", "USE")
	for _, k := range r.Keys {
		use := "opens"
		switch {
		case !k.Opens:
			use = "none: disabled"
		case k.Seals:
			use = "seals and opens"
		case k.Fresh:
			use = "opens; seals after the next rotate"
		}
		t.Row(string(k.Print), use)
	}
	if err := t.Write(app.Out); err != nil || r.Next == "" {
		return err
	}
	_, err = fmt.Fprintf(app.Out, "\nnext: %s\n", r.Next)
	return err
}
