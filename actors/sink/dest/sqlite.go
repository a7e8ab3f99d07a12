package dest

import (
	"context"
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// busyWithin is how long SQLite waits for a reader or writer that holds the file.
const busyWithin = "10000" // ms

// timeText sorts as time does, and is what SQLite's own functions read.
const timeText = "2006-01-02T15:04:05.000000Z"

// sqlite inserts each batch in one transaction. A row that is there stays as it is.
type sqlite struct {
	db     *sql.DB
	path   string
	file   os.FileInfo // of the file that is open
	insert string
}

func (p Policy) openSQLite(ctx context.Context, t *sink.Target, d *sink.Definition) (sink.Destination, error) {
	path, err := p.follow(t.Path)
	if err != nil {
		return nil, err
	}
	q := url.Values{"_pragma": {"busy_timeout(" + busyWithin + ")", "journal_mode(WAL)", "synchronous(FULL)"}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, unavailable(path, err)
	}
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, createTable(quoted(d.Table), func(c *column) string { return c.sqlite })); err != nil {
		return nil, errFirst(unavailable(path, err), db.Close())
	}
	file, err := os.Stat(path)
	if err != nil {
		return nil, errFirst(unavailable(path, err), db.Close())
	}
	marks := strings.TrimSuffix(strings.Repeat("?, ", len(columns)), ", ")
	return &sqlite{db: db, path: path, file: file, insert: "INSERT INTO " + quoted(d.Table) + " (" + names() + ") VALUES (" + marks + ") ON CONFLICT (task_id) DO NOTHING"}, nil
}

// follow resolves the links of a path and checks again where it leads: SQLite opens by name, and files beside it.
func (p Policy) follow(path string) (string, error) {
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", fault.New(fault.Unavailable, "sink.open", path, "%w", err).WithRemedy("make the directory first")
	}
	real := filepath.Join(dir, filepath.Base(path))
	if to, err := filepath.EvalSymlinks(real); err == nil {
		real = to
	}
	led := p
	led.AllowedDirs = nil
	for _, d := range p.AllowedDirs {
		if to, err := filepath.EvalSymlinks(d); err == nil {
			led.AllowedDirs = append(led.AllowedDirs, to)
		}
	}
	_, _, err = led.place(real)
	return real, err
}

// Write inserts the rows that are not there.
func (s *sqlite) Write(ctx context.Context, _ string, batch []sink.Item) error {
	if now, err := os.Stat(s.path); err != nil || !os.SameFile(now, s.file) {
		return fault.New(fault.Unavailable, "sink.write", s.path, "the file was moved or removed while it was open; it is opened anew")
	}
	if err := s.write(ctx, batch); err != nil {
		return unavailable(s.path, err)
	}
	return nil
}

func (s *sqlite) write(ctx context.Context, batch []sink.Item) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after a commit it does nothing
	stmt, err := tx.PrepareContext(ctx, s.insert)
	if err != nil {
		return err
	}
	defer stmt.Close()
	args := make([]any, len(columns))
	for i := range batch {
		for n, c := range columns {
			args[n] = c.value(&batch[i].Row)
			if at, ok := args[n].(time.Time); ok {
				args[n] = at.Format(timeText)
			}
		}
		if _, err := stmt.ExecContext(ctx, args...); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// Close closes the file.
func (s *sqlite) Close() error { return s.db.Close() }
