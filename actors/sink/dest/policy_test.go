package dest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/result"
	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestPolicy(t *testing.T) {
	p := Policy{AllowedDirs: []string{"/srv/out", "/etc/certs"}, Allow: []string{"db", "minio:9000", "::1", "/run/pg"}, Env: func(name string) (string, bool) { return "x", name == "SINK_SET" }}
	for url, ok := range map[string]bool{
		"file:///srv/out": true, "file:///srv/out/a/b": true, "file:///srv/outside": false, "file:///srv": false, "file:///srv/out/../x": false, "file:///etc/passwd": false,
		"sqlite:///srv/out/r.db": true, "sqlite:///tmp/r.db": false,
		"postgres://u@db/d": true, "postgres://u@db:5433/d": true, "postgres://u@db.evil/d": false, "postgres://u@/d?host=/run/pg": true, "postgres://u@/d?host=/run": false, "postgres://u@[::1]:5432/d": true,
		"postgres://u@db/d?sslrootcert=/etc/certs/ca.pem": true, "postgres://u@db/d?sslrootcert=/opt/x": false, "postgres://u@db/d?sslrootcert=system": true,
		"s3://b?endpoint=http://minio:9000": true, "s3://b?endpoint=http://minio:9001": false, "s3://b?endpoint=http://minio": false, "s3://b?region=eu-central-1": false,
	} {
		err := p.Check(&sink.Definition{URL: url})
		if ok {
			require.NoError(t, err, url)
			continue
		}
		require.Equal(t, fault.Refused, fault.KindOf(err), "%s: %v", url, err)
		require.Contains(t, fault.RemedyOf(err), "sink.allow", url)
		require.Error(t, Policy{}.Check(&sink.Definition{URL: url}))
	}
	require.NoError(t, p.Check(&sink.Definition{URL: "postgres://u@db/d", PasswordEnv: "SINK_SET"}))
	err := p.Check(&sink.Definition{URL: "postgres://u@db/d", PasswordEnv: "SINK_UNSET"})
	require.Equal(t, fault.Refused, fault.KindOf(err))
	_, err = Policy{}.Open(t.Context(), &sink.Definition{URL: "file:///srv/out"}, "l")
	require.Equal(t, fault.Refused, fault.KindOf(err), "it is checked again where it is opened")
}

// TestPasswordsInFiles are read from the operator's folder and nowhere else, whatever a sink names.
func TestPasswordsInFiles(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "secrets")
	put := func(name, text string, mode os.FileMode) {
		require.NoError(t, os.WriteFile(filepath.Join(base, name), []byte(text), mode))
		require.NoError(t, os.Chmod(filepath.Join(base, name), mode))
	}
	require.NoError(t, errors.Join(os.MkdirAll(filepath.Join(dir, "..data"), 0o700), os.Symlink("..data/k8s", filepath.Join(dir, "k8s")), os.Symlink("../outside", filepath.Join(dir, "link"))))
	put("secrets/pg", "p w\n", 0o600)
	put("secrets/..data/k8s", "mounted", 0o440)
	put("secrets/open", "x", 0o644)
	put("secrets/empty", "", 0o600)
	put("outside", "stolen", 0o600)
	p := Policy{SecretsDir: dir, Allow: []string{"db"}}
	for name, want := range map[string]string{"pg": "p w", "k8s": "mounted", "open": "", "empty": "", "link": "", "..data": "", "missing": ""} {
		d := &sink.Definition{URL: "postgres://u@db/d", PasswordFile: name}
		got, err := p.secret(d)
		require.Equal(t, want, got, name)
		if want == "" {
			require.Equal(t, fault.Refused, fault.KindOf(err), "%s: %v", name, err)
			require.NotEmpty(t, fault.RemedyOf(err))
			require.Error(t, p.Check(d), "it is found out when the sink is created")
		}
	}
	_, err := Policy{}.secret(&sink.Definition{PasswordFile: "pg"})
	require.Contains(t, fault.RemedyOf(err), "sink.secrets_dir")
}

// TestWhatIsThereMustFit: a sink is refused when it is created, not at its first write.
func TestWhatIsThereMustFit(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o600))
	p := Policy{AllowedDirs: []string{dir}}
	for url, ok := range map[string]bool{"sqlite://" + dir: false, "sqlite://" + dir + "/f": true, "sqlite://" + dir + "/new/f": true, "file://" + dir + "/f": false, "file://" + dir + "/new": true} {
		err := p.Check(&sink.Definition{URL: url})
		require.Equal(t, ok, err == nil, "%s: %v", url, err)
		if !ok {
			require.Equal(t, fault.Invalid, fault.KindOf(err))
		}
	}
}

// TestNoLinkLeadsOut of an allowed directory.
func TestNoLinkLeadsOut(t *testing.T) {
	base := t.TempDir()
	allowed, outside := filepath.Join(base, "allowed"), filepath.Join(base, "outside")
	require.NoError(t, errors.Join(os.Mkdir(allowed, 0o755), os.Mkdir(outside, 0o755), os.Symlink(outside, filepath.Join(allowed, "link")),
		os.Symlink(filepath.Join(outside, "x.db"), filepath.Join(allowed, "x.db")), os.WriteFile(filepath.Join(outside, "x.db"), nil, 0o600)))
	p := Policy{AllowedDirs: []string{allowed}}
	for _, url := range []string{"file://" + allowed + "/link", "file://" + allowed + "/link/deeper", "sqlite://" + allowed + "/link/r.db", "sqlite://" + allowed + "/x.db"} {
		d := sink.Definition{Name: "s", URL: url}
		require.NoError(t, d.Validate())
		_, err := p.Open(t.Context(), &d, "l")
		require.Error(t, err, url)
	}
	entries, err := os.ReadDir(outside)
	require.NoError(t, err)
	require.Len(t, entries, 1)

	// A directory that is allowed by a link is where the link leads.
	require.NoError(t, os.Symlink(allowed, filepath.Join(base, "name")))
	d := sink.Definition{Name: "s", URL: "sqlite://" + base + "/name/r.db"}
	require.NoError(t, d.Validate())
	out, err := Policy{AllowedDirs: []string{filepath.Join(base, "name")}}.Open(t.Context(), &d, "l")
	require.NoError(t, err)
	require.NoError(t, out.Close())
}

// TestWhatACrashLeft half written is taken away when its sink is opened again; nobody else's is.
func TestWhatACrashLeft(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".tmp-s-l1-000000000001-ab", ".tmp-s-l2-000000000001-ab", "s-l1-000000000001.jsonl", "other"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	d := sink.Definition{Name: "s", URL: "file://" + dir}
	require.NoError(t, d.Validate())
	out, err := Policy{AllowedDirs: []string{dir}}.Open(t.Context(), &d, "l1")
	require.NoError(t, err)
	require.NoError(t, out.Write(t.Context(), "s-l1-000000000002", []sink.Item{{JSON: []byte("{}")}}))
	require.NoError(t, out.Close())
	var names []string
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	require.Equal(t, []string{".tmp-s-l2-000000000001-ab", "other", "s-l1-000000000001.jsonl", "s-l1-000000000002.jsonl"}, names)
}

// TestWhatIsMovedAway while it is open is not written to any more.
func TestWhatIsMovedAway(t *testing.T) {
	base := t.TempDir()
	p := Policy{AllowedDirs: []string{base}}
	batch := []sink.Item{{Row: result.Row{TaskID: "a", State: "completed"}, JSON: []byte("{}")}}
	for _, url := range []string{"file://" + base + "/d", "sqlite://" + base + "/r.db"} {
		d := sink.Definition{Name: "s", URL: url}
		require.NoError(t, d.Validate())
		out, err := p.Open(t.Context(), &d, "l")
		require.NoError(t, err)
		require.NoError(t, out.Write(t.Context(), "s-l-1", batch))
		_, path, _ := strings.Cut(url, "://")
		require.NoError(t, os.Rename(path, path+".old"))
		if err = out.Write(t.Context(), "s-l-2", batch); err != nil { // a driver opens it anew
			require.Equal(t, fault.Unavailable, fault.KindOf(err))
			require.NoError(t, out.Close())
			out, err = p.Open(t.Context(), &d, "l")
			require.NoError(t, err)
			require.NoError(t, out.Write(t.Context(), "s-l-2", batch))
		}
		require.NoError(t, out.Close())
		_, err = os.Stat(path)
		require.NoError(t, err)
	}
	entries, err := os.ReadDir(filepath.Join(base, "d"))
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

// TestAFolderThatIsNotThere is not made: it may be a file system that is not mounted.
func TestAFolderThatIsNotThere(t *testing.T) {
	base := filepath.Join(t.TempDir(), "mount")
	d := sink.Definition{Name: "s", URL: "file://" + base + "/d"}
	require.NoError(t, d.Validate())
	_, err := Policy{AllowedDirs: []string{base}}.Open(t.Context(), &d, "l")
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.Contains(t, fault.RemedyOf(err), "mount it")
}

type leaky struct{ sink.Destination }

func (leaky) Write(context.Context, string, []sink.Item) error {
	return fault.New(fault.Unavailable, "x", "", "login as u with hunter2 failed").WithRemedy("not hunter2")
}

func TestSecretsAreKeptOutOfErrors(t *testing.T) {
	err := redacted{leaky{}, "hunter2"}.Write(t.Context(), "o", nil)
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.Contains(t, err.Error(), "login as u with *** failed")
	require.NotContains(t, err.Error()+fault.RemedyOf(err), "hunter2")
	require.NoError(t, redact(nil, "x"))
	plain := errors.New("hunter2")
	require.Equal(t, plain, redact(plain, ""))
}

func TestColumns(t *testing.T) {
	require.Equal(t, strings.Join(result.Columns(), ", "), names())
	require.Equal(t, `"s"."t"`, quoted("s.t"))
	require.Equal(t, 17, strings.Count(insertPostgres("t"), "::"))
	for in, want := range map[string]any{"": nil, "x": "x", "a\x00b": "a\uFFFDb", "\xff": "\uFFFD", "☃": "☃"} {
		require.Equal(t, want, text(in), fmt.Sprintf("%q", in))
	}
}
