package dest

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	connectWithin = 15 * time.Second
	closeWithin   = 2 * time.Second
)

// postgres inserts each batch with one statement, which is all or nothing. A row that is there stays as it is.
type postgres struct {
	conn   *pgx.Conn
	key    string
	insert string
}

func openPostgres(ctx context.Context, t *sink.Target, d *sink.Definition, password string) (sink.Destination, error) {
	q := url.Values{"application_name": {"autoglm"}}
	for name, v := range t.Params {
		q[name] = v
	}
	u := url.URL{Scheme: "postgres", User: url.User(t.User), Host: t.Host, Path: "/" + t.Path, RawQuery: q.Encode()}
	if filepath.IsAbs(t.Host) {
		u.Host = ""
	}
	c, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, fault.New(fault.Invalid, "sink.open", t.Host, "the URL is not good for PostgreSQL: %w", err)
	}
	if password != "" {
		c.Password = password
	}
	c.ConnectTimeout = connectWithin
	c.DefaultQueryExecMode = pgx.QueryExecModeExec // no prepared statements: a pooler in between may not know them
	conn, err := pgx.ConnectConfig(ctx, c)
	if err != nil {
		return nil, unavailable(t.Host, err)
	}
	p := &postgres{conn: conn, key: t.Host + "/" + t.Path, insert: insertPostgres(d.Table)}
	if err := p.prepare(ctx, d.Table); err != nil {
		return nil, errFirst(unavailable(p.key, err), p.Close())
	}
	return p, nil
}

// prepare makes the table, unless it is there: CREATE TABLE wants a right that a role which only inserts need not have.
func (p *postgres) prepare(ctx context.Context, table string) error {
	var there bool
	if err := p.conn.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", quoted(table)).Scan(&there); err != nil || there {
		return err
	}
	_, err := p.conn.Exec(ctx, createTable(quoted(table), func(c *column) string { return c.postgres }))
	return err
}

func insertPostgres(table string) string {
	arrays := make([]string, len(columns))
	for i, c := range columns {
		typ, _, _ := strings.Cut(c.postgres, " ")
		arrays[i] = fmt.Sprintf("$%d::%s[]", i+1, typ)
	}
	return "INSERT INTO " + quoted(table) + " (" + names() + ") SELECT * FROM unnest(" + strings.Join(arrays, ", ") + ") ON CONFLICT (task_id) DO NOTHING"
}

// Write inserts the rows that are not there.
func (p *postgres) Write(ctx context.Context, _ string, batch []sink.Item) error {
	args := make([]any, len(columns))
	for i, c := range columns {
		args[i] = arrayOf(c, batch)
	}
	if _, err := p.conn.Exec(ctx, p.insert, args...); err != nil {
		return unavailable(p.key, err)
	}
	return nil
}

// arrayOf is a column of the batch as one parameter.
func arrayOf(c column, batch []sink.Item) any {
	switch typ, _, _ := strings.Cut(c.postgres, " "); typ {
	case "bigint":
		return array(c, batch, func(v any) int64 { return v.(int64) })
	case "timestamptz":
		return array(c, batch, func(v any) time.Time { return v.(time.Time) })
	}
	return array(c, batch, func(v any) *string {
		s, ok := v.(string)
		if !ok {
			return nil
		}
		return &s
	})
}

func array[T any](c column, batch []sink.Item, of func(any) T) []T {
	vs := make([]T, len(batch))
	for i := range batch {
		vs[i] = of(c.value(&batch[i].Row))
	}
	return vs
}

// Close says goodbye, or hangs up.
func (p *postgres) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	return p.conn.Close(ctx)
}

// errFirst is what went wrong, whatever cleaning up says.
func errFirst(err, _ error) error { return err }
