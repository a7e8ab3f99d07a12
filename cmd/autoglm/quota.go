package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/actors/quota"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

func newQuota(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "quota", Short: "What tenants may have at most",
		Long: "A quota says how many tasks of a tenant may run at once over the whole cluster, how many tokens a minute they may take, how many may be submitted a\n" +
			"minute, how many may wait, and how many bytes are kept; and the tenant's weight against others. Whoever is over waits, or gets 429. More: docs/scheduling.md.",
		Example: "  autoglm quota apply -f quotas.yaml\n  autoglm quota list\n  autoglm quota delete acme",
	}
	cli.Group(cmd)
	cmd.AddCommand(newQuotaApply(app), newQuotaList(app), newQuotaDelete(app))
	return cmd
}

func newQuotaApply(app *cli.App) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "apply -f FILE", Short: "Set the quotas that a YAML file declares", ValidArgsFunction: cobra.NoFileCompletions,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return cli.Usage("what is %q? A file is given with -f: autoglm quota apply -f %[1]s", args[0])
			}
			return nil
		},
		Long: "The file has one document for each tenant. Quotas of tenants that are not in it stay as they are. All of them are set, or with an error none. Like\n\n" +
			"  tenant: acme\n  weight: 2\n  hard: {running: 64, tokens_per_minute: 200000, requests_per_minute: 600, queued: 100000, bytes: 50000000000}\n  classes:\n  - {priorities: 0-2, running: 16}\n  over: queue\n",
		Example: "  autoglm quota apply -f quotas.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			specs, err := readQuotas(app, file)
			if err != nil {
				return err
			}
			c, err := app.Client()
			if err != nil {
				return err
			}
			if err := c.ApplyQuotas(cmd.Context(), specs); err != nil {
				return err
			}
			if app.JSON() {
				return app.PrintJSON(specs)
			}
			for _, s := range specs {
				fmt.Fprintf(app.Out, "%s: %s\n", s.Tenant, s.String())
			}
			return nil
		},
	}
	app.ClientFlags(cmd)
	cmd.Flags().StringVarP(&file, "file", "f", "", "`file` with quotas as YAML, - for standard input")
	return cmd
}

func newQuotaList(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "Show quotas and what is used of them", Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			all, err := c.Quotas(cmd.Context())
			if err != nil {
				return err
			}
			if app.JSON() {
				return app.PrintJSON(wire.Quotas{Quotas: all})
			}
			tab := cli.NewTable("TENANT", "WEIGHT", "RUNNING", "WAITING", "TOKENS/MIN", "REQUESTS/MIN", "BYTES", "CLASSES", "OVER")
			for _, q := range all {
				var classes []string
				for _, k := range q.Classes {
					classes = append(classes, k.String())
				}
				over := q.Over
				if over == "" {
					over = quota.Queue
				}
				weight := "-"
				if q.Weight > 0 {
					weight = fmt.Sprint(q.Weight)
				}
				tab.Row(q.Tenant, weight, of(q.Used.Running, q.Hard.Running), of(q.Used.Waiting, q.Hard.Queued), rate(q.Used.Tokens, q.Hard.TokensPerMinute), rate(q.Used.Requests, q.Hard.RequestsPerMinute), of(q.Used.Bytes, q.Hard.Bytes), strings.Join(classes, "; "), over)
			}
			return tab.Write(app.Out)
		},
	}
	app.ClientFlags(cmd)
	return cmd
}

// of shows a number with its limit, where there is one.
func of(n, limit int) string {
	if limit == 0 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d of %d", n, limit)
}

// rate shows what is used up of a minute's; without a limit nobody counts it.
func rate(n, limit int) string {
	if limit == 0 {
		return "-"
	}
	return of(n, limit)
}

func newQuotaDelete(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete TENANT", Short: "Take a tenant's quota away", Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			return c.DeleteQuota(cmd.Context(), args[0])
		},
	}
	app.ClientFlags(cmd)
	return cmd
}
