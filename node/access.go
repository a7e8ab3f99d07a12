package node

import (
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/open-autoglm/autoglm/actors/apikey"
	"github.com/open-autoglm/autoglm/actors/audit"
	"github.com/open-autoglm/autoglm/cluster/pki"
	"github.com/open-autoglm/autoglm/node/access"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Values of access.keys.
const (
	KeysAuto     = "auto"
	KeysRequired = "required"
	KeysOff      = "off"
)

// local tells whether only this machine reaches the API.
func (c *Config) local() bool {
	host, _, err := net.SplitHostPort(c.HTTP.Listen)
	return err == nil && loopbackHost(host)
}

// keysNeeded tells whether clients must show a key. Names of hosts are those of a proxy: who comes through it is not on this machine.
func (c *Config) keysNeeded() bool {
	switch c.Access.Keys {
	case KeysOff:
		return false
	case KeysRequired:
		return true
	}
	return !c.local() || c.Cluster.Identity != "" || len(c.HTTP.AllowedHosts) > 0
}

// checkAccess keeps a node that knows nobody off the network.
func (c *Config) checkAccess() error {
	a := c.Access
	switch {
	case !slices.Contains([]string{KeysAuto, KeysRequired, KeysOff}, a.Keys):
		return invalidConfig("access.keys", fmt.Sprintf("%q", a.Keys), "use auto, required or off")
	case a.Keys == KeysOff && !c.local():
		return invalidConfig("access.keys", a.Keys, "http.listen is %s, which other machines reach: anybody there could use this node. Use auto, or listen on 127.0.0.1", c.HTTP.Listen)
	case a.Keys == KeysOff && len(c.HTTP.AllowedHosts) > 0:
		return invalidConfig("access.keys", a.Keys, "http.allowed_hosts names a proxy, which others reach: anybody there could use this node. Use auto, or name no hosts")
	case a.AdminKey != "" && a.AdminKeyFile != "":
		return invalidConfig("access.admin_key_file", a.AdminKeyFile, "admin_key is set as well: set one of them")
	case a.AdminKey == "" && a.AdminKeyFile == "" && c.Cluster.Identity == "" && c.keysNeeded():
		return invalidConfig("access.admin_key", "not set", "clients need keys here (http.listen is %s, access.keys is %s), and without the operator's first one nobody could make any: "+
			"autoglm key root --out admin.key prints what to set it to", c.HTTP.Listen, a.Keys)
	case a.AdminKey != "":
		if _, err := apikey.ParseRoot(a.AdminKey.Reveal()); err != nil {
			return fault.New(fault.Invalid, "config", "access.admin_key", "is neither a key nor the id and hash of one").WithRemedy("make one with autoglm key root")
		}
	}
	return nil
}

// root is the operator's first key, as the configuration or the identity has it.
func (c *Config) root() (r apikey.Root, err error) {
	text := c.Access.AdminKey.Reveal()
	from := "access.admin_key"
	switch {
	case c.Access.AdminKeyFile != "":
		from = c.Access.AdminKeyFile
		b, err := os.ReadFile(from)
		if err != nil {
			return r, fault.New(fault.Invalid, "config", "access.admin_key_file", "%w", err).WithRemedy("name a file with a key or its hash, readable by this user")
		}
		text = string(b)
	case text == "" && c.Cluster.Identity != "":
		from = c.Cluster.Identity
		if text, err = pki.AdminHash(from); err != nil {
			return r, err
		}
	}
	if text == "" {
		if c.keysNeeded() {
			err = fault.New(fault.Invalid, "config", "access.admin_key", "clients need keys here, and %s has no admin.hash: without the operator's first key nobody could make any", from).
				WithRemedy("make one with autoglm init --new-admin-key and copy the node's folder again; or, where only this machine reaches the API, set access.keys to off")
		}
		return r, err
	}
	if r, err = apikey.ParseRoot(text); err != nil {
		return r, fault.New(fault.Invalid, "config", from, "is neither a key nor the id and hash of one").WithRemedy("make one with autoglm key root")
	}
	return r, nil
}

// access makes the gate that clients go through.
func (n *Node) access() api.Access {
	keys := apikey.New(n.sys.Router, n.now)
	return api.Access{Gate: access.New(!n.cfg.keysNeeded(), n.root, keys, n.now), Keys: keys, Audit: audit.New(n.sys.Router),
		CallbackSecret: n.poster.Secret, Rolled: func() error { return allKnow(n.svc.members(), knowsAll, "keys, tenants, sinks, schedules and quotas") }}
}
