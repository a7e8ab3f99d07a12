package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
)

func newCallbackSecret(app *cli.App) *cobra.Command {
	var tenant, out string
	cmd := &cobra.Command{
		Use: "callback-secret", Short: "Show the secret that callbacks are signed with", Args: cobra.NoArgs,
		Long: "Shows what the callbacks of your tenant are signed with, for whoever verifies them with a library of Standard Webhooks. For the tenant's\n" +
			"administrators; that it was shown is in the audit log.",
		Example: "  autoglm callback-secret --out callback.secret\n  autoglm callback-secret --tenant acme",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			f, err := secretFile(out)
			if err != nil {
				return err
			}
			s, err := c.CallbackSecret(cmd.Context(), tenant)
			switch {
			case err != nil:
				return errorsWith(err, f)
			case f != nil:
				if err := writeSecret(f, s.Secret); err != nil {
					return err
				}
				_, err = fmt.Fprintf(app.Out, "the callback secret of tenant %s is in %s\n", s.Tenant, out)
			case app.JSON():
				return app.PrintJSON(s)
			default:
				_, err = fmt.Fprintln(app.Out, s.Secret)
			}
			return err
		},
	}
	app.ClientFlags(cmd)
	cmd.Flags().StringVar(&tenant, "tenant", "", "`name` of the tenant (default: your own); for the operator")
	cmd.Flags().StringVar(&out, "out", "", "write it to a new `file` instead of printing it")
	return cmd
}
