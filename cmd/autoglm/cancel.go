package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
)

func newCancel(app *cli.App) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "cancel ID...", Short: "Cancel tasks", Args: cobra.MinimumNArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Cancels tasks that wait or run. One that is cancelled already is no error; one that ended otherwise is.",
		RunE: func(cmd *cobra.Command, ids []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			var errs []error // the other tasks are cancelled all the same
			for _, id := range ids {
				t, err := c.Cancel(cmd.Context(), id, reason)
				if err != nil {
					errs = append(errs, &cli.OneError{ID: id, Err: err})
					continue
				}
				if app.JSON() {
					err = app.PrintJSON(t)
				} else {
					_, err = fmt.Fprintln(app.Out, t.ID, t.State)
				}
				if err != nil {
					return err
				}
			}
			return errors.Join(errs...)
		},
	}
	app.ClientFlags(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "kept in the task's history")
	return cmd
}
