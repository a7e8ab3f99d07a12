package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node"
	"github.com/open-autoglm/autoglm/persistence"
)

func newBackup(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "backup DIR", Short: "Write a consistent copy of a node's data, while it works", Args: cobra.ExactArgs(1),
		Long: "The node writes the copy, so DIR is a new folder on its machine, and the command must run there.",
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return cli.Usage("%q is no folder: %w", args[0], err)
			}
			c, err := app.Client()
			if err != nil {
				return err
			}
			warning, err := c.Backup(cmd.Context(), dir)
			if err != nil {
				return err
			}
			if app.JSON() {
				return app.PrintJSON(map[string]string{"dir": dir, "warning": warning})
			}
			if warning != "" {
				fmt.Fprintln(app.Err, "autoglm: warning:", warning)
			}
			_, err = fmt.Fprintf(app.Out, "the backup is in %s\n", dir)
			return err
		},
	}
	app.ClientFlags(cmd)
	return cmd
}

func newRestore(app *cli.App) *cobra.Command {
	var dataDir, keyFile string
	cmd := &cobra.Command{
		Use: "restore DIR", Short: "Make a data directory of a backup", Args: cobra.ExactArgs(1),
		Long: "Makes a new data directory of the backup in DIR. No node may use the directory; start one on it afterwards. All\n" +
			"checksums are verified before anything is written.",
		Example: "  autoglm restore backups/monday --data-dir restored\n  autoglm serve --data-dir restored",
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := node.StoreConfig{KeyFile: keyFile}.BadgerKey()
			if err != nil {
				return err
			}
			if err := persistence.Restore(cmd.Context(), dataDir, args[0], key); err != nil {
				return err
			}
			if app.JSON() {
				return app.PrintJSON(map[string]string{"data_dir": dataDir})
			}
			_, err = fmt.Fprintf(app.Out, "restored; start it with: autoglm serve --data-dir %s\n", dataDir)
			return err
		},
	}
	app.OutputFlag(cmd)
	cmd.Flags().StringVar(&dataDir, "data-dir", node.Default().DataDir, "`folder` to make: it must not exist, or be empty")
	cmd.Flags().StringVar(&keyFile, "store-key-file", "", "`file` with the key that the new directory's store is encrypted with: its store.encryption_key_file (default: it is not)")
	return cmd
}
