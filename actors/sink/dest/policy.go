package dest

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Policy says what a node may write to. The zero Policy forbids everything.
type Policy struct {
	AllowedDirs []string                              // absolute; files and databases lie below one of them
	Allow       []string                              // hosts, with or without a port, and directories of sockets, as they stand in a URL
	Env         func(name string) (v string, ok bool) // os.LookupEnv when nil
}

// Check refuses what the policy does not allow, and a secret that the node does not have.
func (p Policy) Check(d *sink.Definition) error {
	t, err := sink.ParseURL(d.URL)
	if err != nil {
		return err
	}
	if _, err := p.secret(d); err != nil {
		return err
	}
	if t.Scheme == sink.File || t.Scheme == sink.SQLite {
		_, _, err = p.place(t.Path)
		return err
	}
	if cert := t.Params.Get("sslrootcert"); cert != "" && cert != "system" {
		if _, _, err := p.place(cert); err != nil {
			return err
		}
	}
	return p.host(t.Host)
}

func (p Policy) host(hostport string) error {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	if slices.Contains(p.Allow, hostport) || slices.Contains(p.Allow, host) || slices.Contains(p.Allow, strings.Trim(host, "[]")) {
		return nil
	}
	return fault.New(fault.Refused, "sink.open", host, "sinks may not write to this host").WithRemedy("add %s to sink.allow in the configuration of every node", host)
}

// place finds the allowed directory of a path, and the path in it.
func (p Policy) place(path string) (dir, rel string, err error) {
	for _, d := range p.AllowedDirs {
		if rel, err := filepath.Rel(d, path); err == nil && filepath.IsLocal(rel) {
			return d, rel, nil
		}
	}
	return "", "", fault.New(fault.Refused, "sink.open", path, "sinks may not write there: it is below no allowed directory").
		WithRemedy("add its directory to sink.allowed_dirs in the configuration of every node")
}

// secret returns what password_env names, "" when it names nothing.
func (p Policy) secret(d *sink.Definition) (string, error) {
	if d.PasswordEnv == "" {
		return "", nil
	}
	look := p.Env
	if look == nil {
		look = os.LookupEnv
	}
	v, ok := look(d.PasswordEnv)
	if !ok || v == "" {
		return "", fault.New(fault.Refused, "sink.open", d.PasswordEnv, "this environment variable is not set on this node").
			WithRemedy("set it for the process of every node, and restart them")
	}
	return v, nil
}

// Open makes a destination ready. What can be tried again fails as Unavailable.
func (p Policy) Open(ctx context.Context, d *sink.Definition, life string) (sink.Destination, error) {
	if err := p.Check(d); err != nil {
		return nil, err
	}
	t, err := sink.ParseURL(d.URL)
	if err != nil {
		return nil, err
	}
	secret, err := p.secret(d)
	if err != nil {
		return nil, err
	}
	var out sink.Destination
	switch t.Scheme {
	case sink.File:
		out, err = p.openDir(t, d, life)
	case sink.S3:
		out, err = openS3(ctx, t, d, secret)
	case sink.Postgres:
		out, err = openPostgres(ctx, t, d, secret)
	case sink.SQLite:
		out, err = p.openSQLite(ctx, t, d)
	}
	if err != nil {
		return nil, redact(err, secret)
	}
	return redacted{out, secret}, nil
}

// redacted keeps a secret out of what a destination says, whoever wrote it.
type redacted struct {
	sink.Destination
	secret string
}

func (r redacted) Write(ctx context.Context, object string, batch []sink.Item) error {
	return redact(r.Destination.Write(ctx, object, batch), r.secret)
}

func redact(err error, secret string) error {
	if err == nil || secret == "" || !strings.Contains(err.Error(), secret) {
		return err
	}
	return fault.New(fault.KindOf(err), "sink.write", "", "%s", strings.ReplaceAll(fault.Plain(err), secret, "***")).WithRemedy("%s", strings.ReplaceAll(fault.RemedyOf(err), secret, "***"))
}

func unavailable(key string, err error) *fault.Error {
	return fault.New(fault.Unavailable, "sink.write", key, "%w", err)
}
