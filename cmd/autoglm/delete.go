package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
)

func newDelete(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete ID...", Short: "Delete tasks that have ended", Args: cobra.MinimumNArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Deletes tasks that have ended, with their answers and history. To have all deleted by their age, set retention.tasks on every node.",
		RunE: func(cmd *cobra.Command, ids []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			var errs []error // the other tasks are deleted all the same
			for _, id := range ids {
				if err := c.Delete(cmd.Context(), id); err != nil {
					errs = append(errs, &cli.OneError{ID: id, Err: err})
					continue
				}
				if app.JSON() {
					err = app.PrintJSON(map[string]any{"task_id": id, "deleted": true})
				} else {
					_, err = fmt.Fprintln(app.Out, id, "deleted")
				}
				if err != nil {
					return err
				}
			}
			return errors.Join(errs...)
		},
	}
	app.ClientFlags(cmd)
	return cmd
}
