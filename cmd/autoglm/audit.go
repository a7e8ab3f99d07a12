package main

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

func newAudit(app *cli.App) *cobra.Command {
	var tenant string
	var limit int
	cmd := &cobra.Command{
		Use: "audit", Short: "What administrators did, the newest first", Args: cobra.NoArgs,
		Long: "Shows who made, rotated and revoked keys, drained nodes, made backups. An act is written down before it is done; one without\n" +
			"an outcome was cut off.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cli.NotNegative("limit", limit); err != nil {
				return err
			}
			if limit < 1 {
				return cli.Usage("--limit is %d: use 1 or more", limit)
			}
			c, err := app.Client()
			if err != nil {
				return err
			}
			t := cli.NewTable("WHEN", "TENANT", "BY", "FROM", "ACT", "OBJECT", "DETAIL", "OUTCOME")
			for after := ""; limit > 0; {
				page, err := c.Audit(cmd.Context(), tenant, after, min(limit, 1000))
				if err != nil {
					return err
				}
				for _, e := range page.Entries {
					after = e.ID
					limit--
					if app.JSON() {
						if err := app.PrintJSON(e); err != nil {
							return err
						}
						continue
					}
					t.Row(e.At.Local().Format(time.DateTime), e.Tenant, e.By, e.Remote, e.Act, e.Object, detailOf(e), outcomeOf(e))
				}
				if !page.HasMore {
					break
				}
			}
			if app.JSON() {
				return nil
			}
			return t.Write(app.Out)
		},
	}
	app.ClientFlags(cmd)
	cmd.Flags().StringVar(&tenant, "tenant", "", "only what concerns this `tenant`; for the operator")
	cmd.Flags().IntVar(&limit, "limit", 100, "entries at most")
	return cmd
}

// detailOf says more of an act, and for which other tenant it was.
func detailOf(e wire.AuditEntry) string {
	if e.About == "" {
		return e.Detail
	}
	return strings.TrimPrefix(e.Detail+", for tenant "+e.About, ", ")
}

func outcomeOf(e wire.AuditEntry) string {
	switch {
	case e.EndedAt == nil:
		return "cut off"
	case e.Error != "":
		return "refused: " + e.Error
	case strings.HasPrefix(e.Act, "engine."): // its end is in the table of engines
		return "begun"
	}
	return "done"
}
