package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/actors/apikey"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func newAPIKeys(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "key", Short: "API keys: who may use the cluster, and as what",
		Long: "A key belongs to a tenant and has a role: read sees what is the tenant's, submit also submits and cancels, admin also manages its keys.\n" +
			"An admin of the tenant default is the operator: of all keys, and of the cluster. The first key of an operator is made by\n" +
			"autoglm init (admin.key in its folder), or by autoglm key root for a node that is alone.",
		Example: "  autoglm key create ci --tenant acme --role submit\n  autoglm key list\n  autoglm key rotate ID --keep-old-for 24h\n  autoglm key revoke ID",
	}
	cli.Group(cmd)
	cmd.AddCommand(newAPIKeyCreate(app), newAPIKeyList(app), newAPIKeyRotate(app), newAPIKeyRevoke(app), newAPIKeyRoot(app), newAPIKeyWho(app))
	return cmd
}

func newAPIKeyCreate(app *cli.App) *cobra.Command {
	var w wire.KeyWish
	var expires time.Duration
	var out string
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Create a key and show it, this once", Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		Long:    "Creates a key. It is printed now and never again: the cluster keeps only its hash. The first key of a tenant makes the tenant.",
		Example: "  autoglm key create ci --tenant acme --role submit\n  autoglm key create nightly --role submit --expires-in 720h --out nightly.key",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			w.Name = args[0]
			if cmd.Flags().Changed("expires-in") && expires != 0 { // what is negative is not for ever: the node refuses it, too
				if expires < 0 {
					return cli.Usage("--expires-in is %v: use a time from now, like 720h, or 0 for ever", expires)
				}
				w.ExpiresIn = expires.String()
			}
			f, err := secretFile(out) // before there is a key that could not be shown
			if err != nil {
				return err
			}
			k, err := c.CreateKey(cmd.Context(), w)
			if err != nil {
				return errorsWith(err, f)
			}
			return showNewKey(app, k, f)
		},
	}
	app.ClientFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&w.Role, "role", "submit", "read, submit or admin")
	f.StringVar(&w.Tenant, "tenant", "", "`name` of the tenant (default: your own); for the operator")
	f.Float64Var(&w.Rate, "rate", 0, "`requests` a second that one node takes from it, and some at once; 0: no limit of its own")
	f.DurationVar(&expires, "expires-in", 0, "how long it is good; 0: for ever")
	f.StringVar(&out, "out", "", "write the key to a new `file` instead of printing it")
	cli.Complete(cmd, "role", "read", "submit", "admin")
	return cmd
}

// secretFile makes a new file that only its owner reads; nil without a name.
func secretFile(path string) (*os.File, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fault.New(fault.Invalid, "", "--out", "%w", err).WithRemedy("name a file that does not exist yet, in a folder that you may write to")
	}
	return f, nil
}

// errorsWith takes away a file that nothing was written to.
func errorsWith(err error, f *os.File) error {
	if f != nil {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}
	return err
}

func writeSecret(f *os.File, text string) error {
	_, err := io.WriteString(f, text+"\n")
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func showNewKey(app *cli.App, k *wire.NewKey, f *os.File) error {
	where := "\n" + k.Secret + "\n\nkeep it: it is not shown again\n"
	if f != nil {
		if err := writeSecret(f, k.Secret); err != nil {
			return err
		}
		where = "it is in " + f.Name() + "\n"
	}
	if app.JSON() {
		if f != nil {
			return app.PrintJSON(k.Key)
		}
		return app.PrintJSON(k)
	}
	_, err := fmt.Fprintf(app.Out, "key %s (%s), role %s, tenant %s\n%s", k.ID, k.Name, k.Role, k.Tenant, where)
	return err
}

func newAPIKeyList(app *cli.App) *cobra.Command {
	var tenant string
	cmd := &cobra.Command{
		Use: "list", Short: "List keys, the newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			t := cli.NewTable("ID", "NAME", "TENANT", "ROLE", "STATE", "CREATED", "EXPIRES", "OLD SECRET UNTIL")
			for after := ""; ; {
				page, err := c.Keys(cmd.Context(), tenant, after, 1000)
				if err != nil {
					return err
				}
				for _, k := range page.Keys {
					after = k.ID
					if app.JSON() {
						if err := app.PrintJSON(k); err != nil {
							return err
						}
						continue
					}
					expires := "never"
					if k.ExpiresAt != nil {
						expires = k.ExpiresAt.Local().Format(time.DateTime)
					}
					old := ""
					if k.OldUntil != nil {
						old = k.OldUntil.Local().Format(time.DateTime)
					}
					t.Row(k.ID, k.Name, k.Tenant, k.Role, k.State, k.CreatedAt.Local().Format(time.DateTime), expires, old)
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
	cmd.Flags().StringVar(&tenant, "tenant", "", "only those of this `tenant`; for the operator")
	return cmd
}

func newAPIKeyRotate(app *cli.App) *cobra.Command {
	var keep time.Duration
	var out string
	cmd := &cobra.Command{
		Use: "rotate ID", Short: "Give a key another secret and show it, this once", Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		Example: "  autoglm key rotate abcd1234wxyz --keep-old-for 24h",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			f, err := secretFile(out)
			if err != nil {
				return err
			}
			k, err := c.RotateKey(cmd.Context(), args[0], keep.String())
			if err != nil {
				return errorsWith(err, f)
			}
			return showNewKey(app, k, f)
		},
	}
	app.ClientFlags(cmd)
	cmd.Flags().DurationVar(&keep, "keep-old-for", 0, "how long the secret before goes on being good")
	cmd.Flags().StringVar(&out, "out", "", "write the key to a new `file` instead of printing it")
	return cmd
}

func newAPIKeyRevoke(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "revoke ID", Short: "End a key for ever", Args: cobra.ExactArgs(1), ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Ends a key. A node that knows it goes on believing it for up to five seconds.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			k, err := c.RevokeKey(cmd.Context(), args[0])
			switch {
			case err != nil:
				return err
			case app.JSON():
				return app.PrintJSON(k)
			}
			_, err = fmt.Fprintf(app.Out, "key %s (%s) is revoked\n", k.ID, k.Name)
			return err
		},
	}
	app.ClientFlags(cmd)
	return cmd
}

func newAPIKeyRoot(app *cli.App) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "root", Short: "Make the operator's first key, for a node that is alone", Args: cobra.NoArgs,
		Long: "Makes a key without asking a node, and writes it to a new file. What it prints is for the node's setting access.admin_key: enough to\n" +
			"know the key by, not to make it. A cluster has its own already: admin.key in the folder that autoglm init made.",
		Example: "  autoglm key root --out admin.key",
		RunE: func(_ *cobra.Command, _ []string) error {
			f, err := secretFile(out)
			if err != nil {
				return err
			}
			if f == nil {
				return cli.Usage("name the file for the key: --out admin.key")
			}
			text, root, err := apikey.NewRoot()
			if err == nil {
				err = writeSecret(f, text)
			}
			if err != nil {
				return errorsWith(err, f)
			}
			if app.JSON() {
				return app.PrintJSON(map[string]string{"file": out, "admin_key": root.String()})
			}
			path, err := filepath.Abs(out)
			if err != nil {
				path = out
			}
			_, err = fmt.Fprintf(app.Out, "the key is in %s\n\nstart the node with one of\n  AUTOGLM_ACCESS_ADMIN_KEY=%[2]s\n  autoglm serve --set access.admin_key=%[2]s\n"+
				"  access: {admin_key: '%[2]s'}   # in its configuration file\nand use it with\n  export AUTOGLM_API_KEY_FILE=%[3]s\n", out, root, path)
			return err
		},
	}
	app.OutputFlag(cmd)
	cmd.Flags().StringVar(&out, "out", "", "new `file` for the key")
	return cmd
}

func newAPIKeyWho(app *cli.App) *cobra.Command {
	cmd := &cobra.Command{
		Use: "who", Short: "Whom the node takes you for", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := app.Client()
			if err != nil {
				return err
			}
			w, err := c.WhoAmI(cmd.Context())
			switch {
			case err != nil:
				return err
			case app.JSON():
				return app.PrintJSON(w)
			case w.Key == "":
				_, err = fmt.Fprintf(app.Out, "nobody asked for a key: tenant %s, role %s\n", w.Tenant, w.Role)
			default:
				_, err = fmt.Fprintf(app.Out, "key %s (%s), role %s, tenant %s\n", w.Key, w.Name, w.Role, w.Tenant)
			}
			return err
		},
	}
	app.ClientFlags(cmd)
	return cmd
}
