package sink

import (
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Schemes of destinations.
const (
	File     = "file"
	S3       = "s3"
	Postgres = "postgres"
	SQLite   = "sqlite"
)

// Target is a destination's URL, taken apart. It is pure: nothing is looked up.
type Target struct {
	Scheme string
	Path   string // File, SQLite: absolute and clean; S3: the prefix, without slashes around it; Postgres: the database
	User   string // Postgres: the role; S3: the access key id, "" for the node's own credentials
	Host   string // host:port, or a directory with a socket: what sink.allow is about; "" for files
	Bucket string // S3

	Endpoint string // S3: http(s)://host[:port]
	Region   string // S3
	Params   url.Values
}

// params that a URL may have. Each is written down in docs/sinks.md; others are refused, for a misspelt one would silently do nothing.
var params = map[string][]string{
	S3:       {"endpoint", "region"},
	Postgres: {"sslmode", "sslrootcert", "host", "application_name"},
}

// Objects tells whether batches become objects, rather than rows of a table.
func (t *Target) Objects() bool { return t.Scheme == File || t.Scheme == S3 }

// ParseURL takes a destination apart. An error shows nothing of a URL that may have a password in it.
func ParseURL(raw string) (*Target, error) {
	bad := func(format string, args ...any) *fault.Error {
		return fault.New(fault.Invalid, "sink.create", "url", format, args...)
	}
	const forms = "write file:///DIR, s3://[ACCESS_KEY_ID@]BUCKET/PREFIX?endpoint=URL&region=NAME, postgres://USER@HOST/DATABASE or sqlite:///FILE"
	if len(raw) > URLMax {
		return nil, bad("has %d bytes, the limit is %d", len(raw), URLMax)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, bad("cannot be read").WithRemedy(forms) // err would show the whole of it
	}
	if _, has := u.User.Password(); has || secretIn(u.Query()) {
		return nil, bad("has a password in it, where it would be journaled and shown").
			WithRemedy("put the password into an environment variable of every node whose name begins with SINK_, and name that in password_env; or into a file in sink.secrets_dir, and name that in password_file")
	}
	t := &Target{Scheme: u.Scheme, User: u.User.Username(), Params: u.Query()}
	if t.Scheme == "postgresql" {
		t.Scheme = Postgres
	}
	for name, values := range t.Params {
		if !slices.Contains(params[t.Scheme], name) || len(values) != 1 {
			return nil, bad("has the parameter %.40q, which is not known or comes twice: use %s", name, strings.Join(append(params[t.Scheme], "none"), ", "))
		}
	}
	switch t.Scheme {
	case File, SQLite:
		if u.Host != "" || !filepath.IsAbs(u.Path) || u.Path == "/" || strings.ContainsRune(u.Path, 0) || t.User != "" {
			return nil, bad("needs an absolute path and no host: " + forms)
		}
		t.Path = filepath.Clean(u.Path)
	case S3:
		err = t.s3(u)
	case Postgres:
		err = t.postgres(u)
	default:
		err = bad("has the scheme %.20q", u.Scheme).WithRemedy(forms)
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

func secretIn(q url.Values) bool {
	for name := range q {
		n := strings.ToLower(name)
		if strings.Contains(n, "password") || strings.Contains(n, "secret") || strings.Contains(n, "token") {
			return true
		}
	}
	return false
}

func (t *Target) s3(u *url.URL) error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "sink.create", "url", format, args...)
	}
	t.Bucket, t.Path = u.Host, strings.Trim(u.Path, "/")
	t.Endpoint, t.Region = t.Params.Get("endpoint"), t.Params.Get("region")
	if t.Bucket == "" || u.Port() != "" {
		return bad("needs a bucket: s3://BUCKET/PREFIX")
	}
	if t.Region == "" {
		if t.Endpoint == "" {
			return bad("needs a region, or the endpoint of a store that is not Amazon's: s3://BUCKET/PREFIX?region=eu-central-1")
		}
		t.Region = "us-east-1" // what other stores expect in the signature
	}
	if t.Endpoint == "" {
		t.Endpoint = "https://s3." + t.Region + ".amazonaws.com"
	}
	e, err := url.Parse(t.Endpoint)
	if err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "" || e.User != nil || e.Path != "" && e.Path != "/" || e.RawQuery != "" {
		return bad("needs an endpoint like https://minio:9000")
	}
	t.Endpoint, t.Host = e.Scheme+"://"+e.Host, e.Host
	return nil
}

func (t *Target) postgres(u *url.URL) error {
	bad := func(format string, args ...any) error {
		return fault.New(fault.Invalid, "sink.create", "url", format, args...)
	}
	t.Path = strings.Trim(u.Path, "/")
	if t.Path == "" || t.User == "" {
		return bad("needs a role and a database: postgres://USER@HOST/DATABASE")
	}
	t.Host = u.Host
	if dir := t.Params.Get("host"); dir != "" {
		if u.Host != "" || !filepath.IsAbs(dir) || strings.Contains(dir, ",") {
			return bad("has a parameter host, which is for the directory of a socket: postgres://USER@/DATABASE?host=/var/run/postgresql")
		}
		t.Host = filepath.Clean(dir)
	}
	if t.Host == "" || strings.Contains(t.Host, ",") {
		return bad("needs one host: postgres://USER@HOST/DATABASE")
	}
	if t.Params.Get("sslmode") == "" && !local(t.Host) {
		t.Params.Set("sslmode", "verify-full") // a password and results leave this machine
	}
	return nil
}

// local tells whether a host is this machine.
func local(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return filepath.IsAbs(host) || host == "localhost" || ip != nil && ip.IsLoopback()
}
