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
	SecretsDir  string                                // absolute; files with passwords; "" for none
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
		if _, _, err = p.place(t.Path); err == nil {
			err = fits(t)
		}
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

// fits refuses a path with something of another form at it. What is not there yet may come.
func fits(t *sink.Target) error {
	st, err := os.Stat(t.Path)
	switch {
	case err != nil:
		return nil
	case t.Scheme == sink.SQLite && st.IsDir():
		return fault.New(fault.Invalid, "sink.open", "url", "names a folder, %s, and SQLite writes to a file", t.Path).WithRemedy("name a file in it: sqlite://%s/results.db", t.Path)
	case t.Scheme == sink.File && !st.IsDir():
		return fault.New(fault.Invalid, "sink.open", "url", "names a file, %s, and objects are written to a folder", t.Path).WithRemedy("name a folder, or write sqlite:// for a database")
	}
	return nil
}

// secretMax is the size of a file with a password, in bytes.
const secretMax = 4 << 10

// filed reads a password from a file of the operator's folder: what leads out of it, and what others on the machine can read, is none.
func (p Policy) filed(name string) (string, error) {
	refused := func(format string, args ...any) *fault.Error {
		return fault.New(fault.Refused, "sink.open", name, format, args...)
	}
	if p.SecretsDir == "" {
		return "", refused("this node has no folder with passwords of sinks").WithRemedy("set sink.secrets_dir on every node, or use password_env")
	}
	root, err := os.OpenRoot(p.SecretsDir)
	if err != nil {
		return "", refused("the folder of sink.secrets_dir cannot be opened on this node: %w", err).WithRemedy("make it on every node")
	}
	defer root.Close()
	st, err := root.Stat(name)
	switch {
	case err != nil:
		return "", refused("this file of sink.secrets_dir cannot be read on this node: %w", err).WithRemedy("put it there on every node, readable by the user that runs autoglm")
	case !st.Mode().IsRegular() || st.Size() == 0 || st.Size() > secretMax:
		return "", refused("it is no file with 1 to %d bytes", secretMax).WithRemedy("put the password into it, and nothing else")
	case st.Mode().Perm()&0o007 != 0:
		return "", refused("mode %v lets everybody on this machine at the password", st.Mode().Perm()).WithRemedy("run chmod 600 on it (in Kubernetes: defaultMode: 0440)")
	}
	b, err := root.ReadFile(name)
	if err != nil {
		return "", unavailable(name, err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// secret returns what password_env or password_file names, "" when they name nothing.
func (p Policy) secret(d *sink.Definition) (string, error) {
	if d.PasswordFile != "" {
		return p.filed(d.PasswordFile)
	}
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
