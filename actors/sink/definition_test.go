package sink

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestTargets(t *testing.T) {
	for raw, want := range map[string]Target{
		"file:///var/out/x/":                               {Scheme: File, Path: "/var/out/x"},
		"sqlite:///var/out/r.db":                           {Scheme: SQLite, Path: "/var/out/r.db"},
		"s3://b/p/q/?region=eu-central-1":                  {Scheme: S3, Bucket: "b", Path: "p/q", Region: "eu-central-1", Endpoint: "https://s3.eu-central-1.amazonaws.com", Host: "s3.eu-central-1.amazonaws.com"},
		"s3://KEY@b?endpoint=http://minio:9000/":           {Scheme: S3, User: "KEY", Bucket: "b", Region: "us-east-1", Endpoint: "http://minio:9000", Host: "minio:9000"},
		"postgres://u@db:5433/results":                     {Scheme: Postgres, User: "u", Host: "db:5433", Path: "results"},
		"postgresql://u@localhost/d":                       {Scheme: Postgres, User: "u", Host: "localhost", Path: "d"},
		"postgres://u@/d?host=/var/run/postgresql/":        {Scheme: Postgres, User: "u", Host: "/var/run/postgresql", Path: "d"},
		"postgres://u@db/d?sslmode=disable":                {Scheme: Postgres, User: "u", Host: "db", Path: "d"},
		"postgres://u@[::1]:5432/d?application_name=other": {Scheme: Postgres, User: "u", Host: "[::1]:5432", Path: "d"},
	} {
		got, err := ParseURL(raw)
		require.NoError(t, err, raw)
		params := got.Params
		got.Params = nil
		require.Equal(t, want, *got, raw)
		if got.Scheme == Postgres {
			safe := map[string]string{"db:5433": "verify-full", "db": "disable"}[got.Host]
			require.Equal(t, safe, params.Get("sslmode"), "%s: what leaves the machine is encrypted and its receiver known, unless the URL says otherwise", raw)
		}
	}
	for _, raw := range []string{
		"", "x", "/var/out", "file://host/x", "file:///", "file:x", "file:///x?y=1", "file://u@/x", "sqlite://", "s3://", "s3://b", "s3://b:1/x?region=r", "s3://b?region=r&region=q",
		"s3://b?endpoint=minio:9000", "s3://b?endpoint=ftp://x", "s3://b?endpoint=https://h/path", "s3://b?endpoint=https://u:p@h", "postgres://db/d", "postgres://u@db", "postgres://u@/d",
		"postgres://u@a,b/d", "postgres://u@db/d?host=/x", "postgres://u@/d?host=db", "postgres://u@/d?host=/a,/b", "postgres://u@db/d?service=x", "postgres://u@db/d?passfile=/etc/x", "http://x/", "mysql://u@h/d",
		"file:///x" + strings.Repeat("y", URLMax), "http://[::1",
	} {
		_, err := ParseURL(raw)
		require.Equal(t, fault.Invalid, fault.KindOf(err), "%s", raw)
	}
}

// TestNoSecretIsShown: a URL with a password is refused, by words that do not have it.
func TestNoSecretIsShown(t *testing.T) {
	for _, raw := range []string{"postgres://u:hunter2@db/d", "postgres://u:hunter2@db/%zz", "postgres://u@db/d?password=hunter2", "s3://k:hunter2@b?region=r", "s3://k@b?region=r&secret_key=hunter2", "s3://k@b?x-amz-security-token=hunter2"} {
		_, err := ParseURL(raw)
		require.Equal(t, fault.Invalid, fault.KindOf(err), raw)
		require.NotContains(t, err.Error(), "hunter2")
		require.NotEmpty(t, fault.RemedyOf(err))
	}
}

func TestDefinitions(t *testing.T) {
	const pg, dir = "postgres://u@db/d", "file:///x"
	for name, d := range map[string]Definition{
		"no name": {URL: dir}, "a big name": {Name: strings.Repeat("a", 64), URL: dir}, "capitals": {Name: "A", URL: dir}, "a path": {Name: "a/b", URL: dir}, "dots": {Name: "..", URL: dir},
		"no URL": {Name: "a"}, "another variable": {Name: "a", URL: pg, PasswordEnv: "AWS_SECRET_ACCESS_KEY"}, "small letters": {Name: "a", URL: pg, PasswordEnv: "SINK_x"},
		"a path to a password": {Name: "a", URL: pg, PasswordFile: "../shadow"}, "dots for a password": {Name: "a", URL: pg, PasswordFile: ".."}, "two passwords": {Name: "a", URL: pg, PasswordFile: "x", PasswordEnv: "SINK_X"},
		"a file's password file": {Name: "a", URL: dir, PasswordFile: "x"}, "a secret of no key": {Name: "a", URL: "s3://b?region=r", PasswordFile: "x"},
		"a file's password": {Name: "a", URL: dir, PasswordEnv: "SINK_X"}, "half a key": {Name: "a", URL: "s3://k@b?region=r"}, "the other half": {Name: "a", URL: "s3://b?region=r", PasswordEnv: "SINK_X"},
		"a format of a table": {Name: "a", URL: pg, Format: "csv"}, "another format": {Name: "a", URL: dir, Format: "xlsx"}, "a table of a folder": {Name: "a", URL: dir, Table: "t"},
		"a table with more in it": {Name: "a", URL: pg, Table: `t"; DROP TABLE x; --`}, "two dots": {Name: "a", URL: pg, Table: "a.b.c"}, "SQLite's schema": {Name: "a", URL: "sqlite:///x/y", Table: "a.b"},
		"rows": {Name: "a", URL: dir, Rows: RowsMax + 1}, "fewer rows": {Name: "a", URL: dir, Rows: -1}, "days": {Name: "a", URL: dir, Every: task.Duration(24 * time.Hour)},
		"a state": {Name: "a", URL: dir, State: "done"}, "no final state": {Name: "a", URL: dir, State: "running"},
	} {
		require.Equal(t, fault.Invalid, fault.KindOf(d.Validate()), name)
	}
	table := Definition{Name: "a-1_b", URL: pg, PasswordEnv: "SINK_PG_PASSWORD", Table: "s.t", State: "failed"}
	require.NoError(t, table.Validate())
	require.Equal(t, Definition{Name: "a-1_b", URL: pg, PasswordEnv: "SINK_PG_PASSWORD", Table: "s.t", State: "failed", Rows: 1000, Every: task.Duration(time.Second), From: FromStart}, table)
	object := Definition{Name: "a", URL: dir}
	require.NoError(t, object.Validate())
	require.Equal(t, Definition{Name: "a", URL: dir, Format: FormatJSONL, Rows: 10_000, Every: task.Duration(10 * time.Second), From: FromStart}, object)

	again := object
	require.True(t, object.same(&again))
	again.Metadata = map[string]string{"a": "b"}
	require.False(t, object.same(&again))
	again = object
	b, err := json.Marshal(&object)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &again))
	require.True(t, object.same(&again), "it is the same when it comes back from a journal")
	for name, change := range map[string]func(*Definition){
		"name": func(d *Definition) { d.Name = "b" }, "url": func(d *Definition) { d.URL = "file:///y" }, "env": func(d *Definition) { d.PasswordEnv = "SINK_Y" }, "format": func(d *Definition) { d.Format = "csv" },
		"table": func(d *Definition) { d.Table = "t" }, "rows": func(d *Definition) { d.Rows++ }, "every": func(d *Definition) { d.Every++ }, "state": func(d *Definition) { d.State = "failed" },
		"model": func(d *Definition) { d.Model = "m" }, "prompt": func(d *Definition) { d.Prompt = true }, "from": func(d *Definition) { d.From = FromEnd },
	} {
		other := object
		change(&other)
		require.False(t, object.same(&other), name)
	}
}

func TestWhatASinkWants(t *testing.T) {
	r := &task.Record{State: task.Failed, Spec: &task.Spec{Model: "m", Metadata: map[string]string{"a": "1", "b": ""}}}
	for _, c := range []struct {
		d    Definition
		want bool
	}{
		{Definition{}, true}, {Definition{State: "failed"}, true}, {Definition{State: "completed"}, false}, {Definition{Model: "m"}, true}, {Definition{Model: "n"}, false},
		{Definition{Metadata: map[string]string{"a": "1", "b": ""}}, true}, {Definition{Metadata: map[string]string{"a": "2"}}, false}, {Definition{Metadata: map[string]string{"c": ""}}, false},
	} {
		require.Equal(t, c.want, c.d.wants(r), "%+v", c.d)
	}
	require.True(t, (&Definition{}).wants(&task.Record{State: task.Failed}))
	require.False(t, (&Definition{Model: "m"}).wants(&task.Record{State: task.Failed}))
}

func TestObjectsSortAsTheyWereDelivered(t *testing.T) {
	s := State{Def: &Definition{Name: "out"}, Life: "0a1b2c3d"}
	require.Equal(t, "out-0a1b2c3d-000000000042", s.Object(42))
	require.Less(t, s.Object(99), s.Object(100))
}
