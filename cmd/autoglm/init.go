package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/open-autoglm/autoglm/actors/apikey"
	"github.com/open-autoglm/autoglm/cluster/pki"
	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
)

// initReport is what init says with -o json.
type initReport struct {
	Cluster string   `json:"cluster"`
	Dir     string   `json:"dir"`
	Nodes   []string `json:"nodes,omitempty"` // folders to copy, one a node
	Rotated pki.Step `json:"rotated,omitempty"`
	Admin   string   `json:"admin_key_file,omitempty"` // made now
	Next    string   `json:"next"`
}

func newInit(app *cli.App) *cobra.Command {
	var (
		dir, cluster string
		nodes, add   []string
		validFor     time.Duration
		rotate       bool
		newAdmin     bool
		apiNames     []string
		deployed     bool
	)
	cmd := &cobra.Command{
		Use: "init", Short: "Make the certificates and keys of a cluster", Args: cobra.NoArgs,
		Long: "Makes a folder with the cluster's own certificate authority and a folder for each node, with all that the node needs to\n" +
			"prove who it is: copy that one to its machine, and nothing else. The folder itself stays with you: whoever has its ca.key\n" +
			"can add nodes. A node is its name, wherever it runs; no address is written down.",
		Example: "  autoglm init --nodes a,b,c\n  autoglm init --add-node d\n  autoglm init --rotate-gossip-key",
		RunE: func(_ *cobra.Command, _ []string) error {
			r := initReport{Dir: dir}
			names := nodes
			switch {
			case rotate:
				step, err := pki.RotateGossipKey(dir, deployed)
				if err != nil {
					return err
				}
				if names, err = pki.Nodes(dir); err != nil {
					return err
				}
				r.Rotated, r.Next = step, step.Next()
			case newAdmin:
				admin, err := newAdminKey()
				if err != nil {
					return err
				}
				if err := pki.SetAdminKey(dir, admin); err != nil {
					return err
				}
				if names, err = pki.Nodes(dir); err != nil {
					return err
				}
				r.Admin = pki.AdminKeyFile(dir)
				r.Next = "copy admin.hash of each node's folder to its machine, restart the nodes, and keep " + r.Admin + " to yourself: the key before it is not known any more"
			case len(add) > 0:
				names = add
				for _, name := range add {
					if err := pki.AddNode(dir, name); err != nil {
						return err
					}
				}
			case len(nodes) > 0:
				admin, err := newAdminKey()
				if err != nil {
					return err
				}
				if err := pki.Init(dir, pki.InitOptions{Cluster: cluster, Nodes: nodes, ValidFor: validFor, APINames: apiNames, Admin: admin}); err != nil {
					return err
				}
				r.Admin = pki.AdminKeyFile(dir)
			default:
				return cli.Usage("name the nodes: --nodes a,b,c")
			}
			var err error
			if r.Cluster, err = pki.Cluster(dir); err != nil {
				return err
			}
			for _, name := range names {
				r.Nodes = append(r.Nodes, filepath.Join(dir, "nodes", name))
			}
			if r.Next == "" {
				r.Next = "copy each node's folder to its machine, readable by the user that runs autoglm alone, and keep " + filepath.Join(dir, "ca.key") + " and admin.key away from the nodes"
			}
			return showInit(app, r, names)
		},
	}
	app.OutputFlag(cmd)
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "autoglm-pki", "`folder` of the cluster's certificates and keys")
	f.StringSliceVar(&nodes, "nodes", nil, "`names` of the nodes of a new cluster")
	f.StringVar(&cluster, "cluster", "", "`id` of the new cluster (default: a random one)")
	f.DurationVar(&validFor, "valid-for", 2*365*24*time.Hour, "how long the nodes' certificates are good, in a new cluster")
	f.StringSliceVar(&add, "add-node", nil, "`name` of a node to add to the cluster in --dir")
	f.BoolVar(&rotate, "rotate-gossip-key", false, "take the next of three steps to another gossip key in --dir")
	f.BoolVar(&deployed, "deployed", false, "with --rotate-gossip-key: every node has the files of the last step, and was restarted with them")
	f.StringSliceVar(&apiNames, "api-names", nil, "host `names` and addresses under which clients reach the nodes, for the certificates of the API, in a new cluster\n(besides a node's own name and localhost)")
	f.BoolVar(&newAdmin, "new-admin-key", false, "replace the operator's first API key in --dir")
	cmd.MarkFlagsMutuallyExclusive("nodes", "add-node", "rotate-gossip-key", "new-admin-key")
	return cmd
}

// newAdminKey makes the operator's first API key.
func newAdminKey() (pki.AdminKey, error) {
	text, root, err := apikey.NewRoot()
	return pki.AdminKey{Key: text, Hash: root.String()}, err
}

func showInit(app *cli.App, r initReport, names []string) error {
	if app.JSON() {
		return app.PrintJSON(r)
	}
	if r.Rotated != "" {
		_, err := fmt.Fprintf(app.Out, "gossip key %s in %s and its %d nodes\nnext: %s\n", r.Rotated, r.Dir, len(names), r.Next)
		return err
	}
	if _, err := fmt.Fprintf(app.Out, "cluster %s, in %s\n\n", r.Cluster, r.Dir); err != nil {
		return err
	}
	t := cli.NewTable("NODE", "COPY", "GOOD UNTIL")
	for i, name := range names {
		id, err := pki.Load(r.Nodes[i])
		if err != nil {
			return err
		}
		t.Row(name, r.Nodes[i]+string(filepath.Separator), id.Expires.Format(time.DateOnly))
	}
	if err := t.Write(app.Out); err != nil {
		return err
	}
	admin := ""
	if r.Admin != "" {
		admin = "\nthe operator's API key is in " + r.Admin + ": export AUTOGLM_API_KEY_FILE=" + r.Admin + " AUTOGLM_CA_FILE=" + filepath.Join(r.Dir, "ca.crt") + "\n"
	}
	_, err := fmt.Fprintf(app.Out, "%s\nnext: %s\n", admin, strings.TrimSpace(r.Next))
	return err
}
