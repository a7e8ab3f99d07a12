package sink

import (
	"maps"
	"regexp"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Limits of a sink as it is asked for.
const (
	URLMax   = 2048      // bytes
	RowsMax  = 100_000   // of one batch
	EveryMax = time.Hour // that a result may wait for others

	rowsTable    = 1000 // of a batch, unless it is said
	rowsObject   = 10_000
	everyTable   = time.Second
	everyObject  = 10 * time.Second
	defaultTable = "autoglm_results"
)

// Where a sink starts.
const (
	FromStart = "start" // with all results that there are
	FromEnd   = "end"   // with those that end later
)

// Formats of objects.
const (
	FormatJSONL   = "jsonl"
	FormatCSV     = "csv"
	FormatParquet = "parquet"
)

// Definition is a sink as its creator describes it. It is journaled once and never changes. There is no secret in it.
type Definition struct {
	Name         string            `json:"name" doc:"1 to 63 of a-z, 0-9, - and _, a letter or a digit first." maxLength:"63"`
	URL          string            `json:"url" doc:"file:///DIR, s3://[ACCESS_KEY_ID@]BUCKET/PREFIX?endpoint=URL&region=NAME, postgres://USER@HOST[:PORT]/DATABASE[?sslmode=…] or sqlite:///FILE. No password in it." maxLength:"2048"`
	PasswordEnv  string            `json:"password_env,omitempty" doc:"Environment variable of the nodes with the password, or with S3's secret access key; its name begins with SINK_."`
	PasswordFile string            `json:"password_file,omitempty" doc:"Name of a file with the same, in the folder of the nodes' setting sink.secrets_dir; read again whenever the destination is opened." maxLength:"100"`
	Format       string            `json:"format,omitempty" doc:"Of objects in a directory or a bucket; jsonl when empty." enum:"jsonl,csv,parquet"`
	Table        string            `json:"table,omitempty" doc:"In a database; autoglm_results when empty. It is made when it is missing."`
	Rows         int               `json:"batch_rows,omitempty" doc:"Results of one object or transaction; 0: 10000 of an object, 1000 of a transaction." minimum:"0" maximum:"100000"`
	Every        task.Duration     `json:"every,omitempty" doc:"A result waits no longer for others, like \"10s\"; empty: 10s for objects, 1s for databases."`
	State        string            `json:"state,omitempty" doc:"Only tasks that ended so." enum:"completed,failed,cancelled"`
	Model        string            `json:"model,omitempty" doc:"Only tasks submitted for this model." maxLength:"256"`
	Metadata     map[string]string `json:"metadata,omitempty" doc:"Only tasks with these pairs."`
	Prompt       bool              `json:"prompt,omitempty" doc:"Give the prompt with each result."`
	From         string            `json:"from,omitempty" doc:"start (the default): with all results there are; end: with those that end from now on; or a cursor of GET /v1/results."`
}

var (
	nameForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)
	tableForm  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?$`)
	secretForm = regexp.MustCompile(`^SINK_[A-Z0-9_]{1,100}$`)
	fileForm   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$`) // no path
)

// Validate checks what needs nothing but the Definition itself, and fills in what is empty.
func (d *Definition) Validate() error {
	bad := func(field, format string, args ...any) *fault.Error {
		return fault.New(fault.Invalid, "sink.create", field, format, args...)
	}
	switch {
	case !nameForm.MatchString(d.Name):
		return bad("name", "is %.80q: use 1 to 63 of a-z, 0-9, - and _, a letter or a digit first", d.Name)
	case d.PasswordEnv != "" && !secretForm.MatchString(d.PasswordEnv):
		return bad("password_env", "is no variable that a sink may read").WithRemedy("name one that begins with SINK_, in capitals, and set it on every node")
	case d.PasswordFile != "" && !fileForm.MatchString(d.PasswordFile):
		return bad("password_file", "is no name of a file in sink.secrets_dir").WithRemedy("give its name alone: 1 to 100 letters, digits, -, _ and ., no path")
	case d.PasswordFile != "" && d.PasswordEnv != "":
		return bad("password_file", "is given as well as password_env: give one of them")
	case d.Rows < 0 || d.Rows > RowsMax:
		return bad("batch_rows", "is %d: use 1 to %d, or 0 for the default", d.Rows, RowsMax)
	case d.Every < 0 || time.Duration(d.Every) > EveryMax:
		return bad("every", "is %v: use 0s to %v", time.Duration(d.Every), EveryMax)
	case len(d.Metadata) > task.MetadataMax:
		return bad("metadata", "has %d pairs, the limit is %d", len(d.Metadata), task.MetadataMax)
	}
	if s, ok := task.ParseState(d.State); d.State != "" && (!ok || !s.Final()) {
		return bad("state", "is %.40q: use completed, failed or cancelled", d.State)
	}
	t, err := ParseURL(d.URL)
	if err != nil {
		return err
	}
	if t.Objects() {
		if d.Table != "" {
			return bad("table", "is for databases: leave it out")
		}
		switch d.Format {
		case "":
			d.Format = FormatJSONL
		case FormatJSONL, FormatCSV, FormatParquet:
		default:
			return bad("format", "is %.40q: use jsonl, csv or parquet", d.Format)
		}
	} else {
		if d.Format != "" {
			return bad("format", "is for objects: a database has a table")
		}
		if d.Table == "" {
			d.Table = defaultTable
		}
		if !tableForm.MatchString(d.Table) || t.Scheme == SQLite && strings.Contains(d.Table, ".") {
			return bad("table", "is %.80q: use letters, digits and _, in PostgreSQL with a schema and a dot before it", d.Table)
		}
	}
	secret := d.PasswordEnv != "" || d.PasswordFile != ""
	if secret && (t.Scheme == File || t.Scheme == SQLite) {
		field := "password_env"
		if d.PasswordFile != "" {
			field = "password_file"
		}
		return bad(field, "is for PostgreSQL and S3: a file has no password")
	}
	if t.Scheme == S3 && (t.User == "") == secret {
		return bad("url", "names an access key id, and password_env or password_file where its secret is: give both, or neither for the nodes' own credentials")
	}
	d.Rows, d.Every = or(d.Rows, t.Objects(), rowsObject, rowsTable), or(d.Every, t.Objects(), task.Duration(everyObject), task.Duration(everyTable))
	if d.From == "" {
		d.From = FromStart
	}
	return nil
}

// or is v, or its default.
func or[T int | task.Duration](v T, objects bool, object, table T) T {
	switch {
	case v != 0:
		return v
	case objects:
		return object
	}
	return table
}

// same tells whether two valid definitions are one: creating a sink again is harmless.
func (d *Definition) same(o *Definition) bool {
	a, b := *d, *o
	a.Metadata, b.Metadata = nil, nil
	return maps.Equal(d.Metadata, o.Metadata) && equal(a, b)
}

func equal(a, b Definition) bool {
	return a.Name == b.Name && a.URL == b.URL && a.PasswordEnv == b.PasswordEnv && a.PasswordFile == b.PasswordFile && a.Format == b.Format && a.Table == b.Table && a.Rows == b.Rows && a.Every == b.Every &&
		a.State == b.State && a.Model == b.Model && a.Prompt == b.Prompt && a.From == b.From
}

// wants tells whether a result is one of the sink's. It sees what never changes of a final record.
func (d *Definition) wants(r *task.Record) bool {
	if d.State != "" && r.State.String() != d.State {
		return false
	}
	if r.Spec == nil {
		return d.Model == "" && len(d.Metadata) == 0
	}
	if d.Model != "" && r.Spec.Model != d.Model {
		return false
	}
	for k, v := range d.Metadata {
		if got, ok := r.Spec.Metadata[k]; !ok || got != v {
			return false
		}
	}
	return true
}
