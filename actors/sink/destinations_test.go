package sink_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/parquet-go/parquet-go"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/result"
	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/actors/sink/dest"
	"github.com/open-autoglm/autoglm/actors/task"
)

// place is a real destination as a test knows it.
type place struct {
	url, format, secret string
	policy              dest.Policy
	cut                 func() // ends connections
	stop, start         func() // of its server; nil: it has none
	read                func() []result.Row
	exact               bool // texts come back as they were: not from a database, which takes no zero byte, nor through JSON, which is UTF-8
}

const secretName, secretValue = "SINK_TEST_PASSWORD", "s3cr3t-and-long"

func env(name string) (string, bool) { return secretValue, name == secretName }

func inFolder(t *testing.T, format string) place {
	dir := t.TempDir()
	p := place{url: "file://" + dir + "/a/b", format: format, policy: dest.Policy{AllowedDirs: []string{dir}}, exact: format != sink.FormatJSONL}
	p.read = func() (rows []result.Row) {
		entries, err := os.ReadDir(filepath.Join(dir, "a/b"))
		require.NoError(t, err)
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") {
				continue // not whole
			}
			require.Equal(t, "."+format, path.Ext(e.Name()))
			b, err := os.ReadFile(filepath.Join(dir, "a/b", e.Name()))
			require.NoError(t, err)
			rows = append(rows, decode(t, format, b)...)
		}
		return rows
	}
	return p
}

func decode(t *testing.T, format string, b []byte) (rows []result.Row) {
	switch format {
	case sink.FormatJSONL:
		for d := json.NewDecoder(bytes.NewReader(b)); ; {
			var r result.Row
			err := d.Decode(&r)
			if err == io.EOF {
				return rows
			}
			require.NoError(t, err)
			rows = append(rows, r)
		}
	case sink.FormatCSV:
		all, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
		require.NoError(t, err)
		require.Equal(t, result.Columns(), all[0])
		for _, f := range all[1:] {
			rows = append(rows, result.Row{TaskID: f[0], State: f[3], Prompt: f[5], Answer: f[6], CreatedAt: timeOf(t, f[10]), EndedAt: timeOf(t, f[11]), Attempts: intOf(t, f[12]), Metadata: f[15]})
		}
	case sink.FormatParquet:
		rows, err := parquet.Read[result.Row](bytes.NewReader(b), int64(len(b)))
		require.NoError(t, err)
		return rows
	}
	return rows
}

func timeOf(t *testing.T, s string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, s)
	require.NoError(t, err)
	return at
}

func intOf(t *testing.T, s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	require.NoError(t, err)
	return n
}

func inSQLite(t *testing.T) place {
	dir := t.TempDir()
	file := filepath.Join(dir, "r.db")
	p := place{url: "sqlite://" + file, policy: dest.Policy{AllowedDirs: []string{dir}}}
	p.read = func() []result.Row {
		db, err := sql.Open("sqlite", "file:"+file)
		require.NoError(t, err)
		defer db.Close()
		rows, err := db.Query("SELECT task_id, state, coalesce(prompt, ''), coalesce(answer, ''), created_at, ended_at, attempts, coalesce(metadata, '') FROM autoglm_results")
		require.NoError(t, err)
		defer rows.Close()
		var all []result.Row
		for rows.Next() {
			var r result.Row
			var created, ended string
			require.NoError(t, rows.Scan(&r.TaskID, &r.State, &r.Prompt, &r.Answer, &created, &ended, &r.Attempts, &r.Metadata))
			r.CreatedAt, r.EndedAt = timeOf(t, created), timeOf(t, ended)
			all = append(all, r)
		}
		require.NoError(t, rows.Err())
		return all
	}
	return p
}

func inPostgres(t *testing.T) place {
	s := startPostgres(t)
	p := place{url: s.url, secret: secretName, policy: dest.Policy{Allow: []string{"127.0.0.1"}, Env: env}, stop: s.stop, start: s.start}
	p.cut = func() {
		c := s.connect()
		defer c.Close(context.Background())
		_, err := c.Exec(context.Background(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'autoglm'")
		require.NoError(t, err)
	}
	p.read = func() []result.Row {
		c := s.connect()
		defer c.Close(context.Background())
		rows, err := c.Query(context.Background(), "SELECT task_id, state, coalesce(prompt, ''), coalesce(answer, ''), created_at, ended_at, attempts, coalesce(metadata, '') FROM autoglm_results")
		require.NoError(t, err)
		all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r result.Row, err error) {
			return r, row.Scan(&r.TaskID, &r.State, &r.Prompt, &r.Answer, &r.CreatedAt, &r.EndedAt, &r.Attempts, &r.Metadata)
		})
		require.NoError(t, err)
		return all
	}
	return p
}

// fakeS3 is a store in memory behind a port that can be closed and opened again.
type fakeS3 struct {
	t       *testing.T
	backend *s3mem.Backend
	addr    string
	srv     *http.Server
}

func (f *fakeS3) start() {
	l, err := net.Listen("tcp", f.addr)
	for i := 0; err != nil && f.srv == nil && i < 100; i++ { // the first time: a port that no outgoing connection gets while it is closed
		l, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(10000+rand.IntN(20000)))
	}
	require.NoError(f.t, err)
	f.addr = l.Addr().String()
	srv := &http.Server{Handler: gofakes3.New(f.backend).Server()}
	f.srv = srv
	go func() { _ = srv.Serve(l) }()
}

func (f *fakeS3) stop() { require.NoError(f.t, f.srv.Close()) }

func inS3(t *testing.T) place {
	f := &fakeS3{t: t, backend: s3mem.New(), addr: "127.0.0.1:-1"}
	require.NoError(t, f.backend.CreateBucket("results"))
	f.start()
	t.Cleanup(f.stop)
	p := place{url: "s3://KEY@results/some/where?endpoint=http://" + f.addr, format: sink.FormatJSONL, secret: secretName,
		policy: dest.Policy{Allow: []string{f.addr}, Env: env}, stop: f.stop, start: f.start, cut: func() { f.stop(); f.start() }}
	p.read = func() (rows []result.Row) {
		list, err := f.backend.ListBucket("results", &gofakes3.Prefix{Prefix: "some/where/", HasPrefix: true}, gofakes3.ListBucketPage{})
		require.NoError(t, err)
		for _, c := range list.Contents {
			o, err := f.backend.GetObject("results", c.Key, nil)
			require.NoError(t, err)
			b, err := io.ReadAll(o.Contents)
			require.NoError(t, errors.Join(err, o.Contents.Close()))
			rows = append(rows, decode(t, sink.FormatJSONL, b)...)
		}
		return rows
	}
	return p
}

// rough is a destination whose driver is lied to now and then: that a batch was not written which was, or which was not.
type rough struct {
	sink.Destination
	y     *yard
	wrote chan struct{}
	lie   func() (before, after bool)
}

func (r rough) Write(ctx context.Context, object string, batch []sink.Item) error {
	before, after := r.lie()
	if before {
		return errors.New("not written")
	}
	err := r.Destination.Write(ctx, object, batch)
	if err == nil && after {
		go r.y.moved() // whoever wrote it is not asked any more
		err = errors.New("written, and nobody knows")
	}
	if err == nil {
		r.wrote <- struct{}{}
	}
	return err
}

// odd texts are in every tenth answer.
var odd = []string{"", "zero \x00 byte", "no UTF-8 \xff", "\"quoted\", and\na new line\r\n", "=1+1", "雪 ☃ 🎿", "back\\slash", "NULL"}

// TestEveryDestination: results come while the destination fails, its connections are cut, it is stopped and started, and the shards of the
// driver move, also between a write and its commit. In the end it has every result once, as it is.
func TestEveryDestination(t *testing.T) {
	for name, make := range map[string]func(*testing.T) place{
		"jsonl":    func(t *testing.T) place { return inFolder(t, sink.FormatJSONL) },
		"csv":      func(t *testing.T) place { return inFolder(t, sink.FormatCSV) },
		"parquet":  func(t *testing.T) place { return inFolder(t, sink.FormatParquet) },
		"sqlite":   inSQLite,
		"postgres": inPostgres,
		"s3":       inS3,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seed := rand.Uint64()
			t.Log("seed", seed)
			try(t, make(t), rand.New(rand.NewPCG(seed, 0)))
		})
	}
}

func try(t *testing.T, p place, r *rand.Rand) {
	y := &yard{}
	wrote := make(chan struct{}, 1<<12)
	var mu sync.Mutex
	lie := func() (before, after bool) {
		mu.Lock()
		defer mu.Unlock()
		n := r.IntN(8)
		return n == 0, n == 1
	}
	y.begin(t, sink.Options{Check: p.policy.Check,
		Open: func(ctx context.Context, d *sink.Definition, life string) (sink.Destination, error) {
			out, err := p.policy.Open(ctx, d, life)
			if err != nil {
				return nil, err
			}
			return rough{out, y, wrote, lie}, nil
		},
		Line: func(id string, r *task.Record, prompt bool) ([]byte, error) {
			return json.Marshal(result.Of(id, r, prompt))
		},
	})
	want := map[string]result.Row{}
	ended := func(n int) {
		for range n {
			i := len(want)
			id, at := strconv.Itoa(i), time.Unix(int64(1_700_000_000+i), 123_000).UTC()
			text := "answer " + id
			if i%10 == 9 {
				text = odd[i/10%len(odd)]
			}
			rec := &task.Record{State: task.Completed, Spec: &task.Spec{Prompt: "p" + id, Metadata: map[string]string{"n": id}}, CreatedAt: at, EndedAt: at, Attempt: 1, Answers: []task.Answer{{Text: text}}}
			y.feed.add(i%2, id, at, rec)
			want[id] = result.Of(id, rec, true)
		}
	}
	ended(40)
	name := y.create(func(d *sink.Definition) {
		d.URL, d.Format, d.PasswordEnv, d.Prompt, d.Rows = p.url, p.format, p.secret, true, 5
	})
	for round := range 4 {
		for range 3 {
			<-wrote
		}
		y.moved()
		ended(20)
		if p.cut != nil {
			p.cut()
		}
		if p.stop != nil && round%2 == 1 {
			p.stop()
			ended(20)
			s := y.until(name, func(s sink.State) bool { return s.Error != nil && !strings.Contains(s.Error.Message, "written") })
			require.NotContains(t, fmt.Sprintf("%+v %s", s, s.Error.Message), secretValue)
			p.start()
		}
	}
	s := y.delivered(name, len(want))
	require.EqualValues(t, len(want), s.Count)

	got := p.read()
	require.Len(t, got, len(want), "no result is there twice, none is missing")
	for _, row := range got {
		w, there := want[row.TaskID]
		require.True(t, there)
		delete(want, row.TaskID)
		if !p.exact {
			w.Answer = strings.ToValidUTF8(w.Answer, "\uFFFD")
		}
		if p.format == "" {
			w.Answer = strings.ReplaceAll(w.Answer, "\x00", "\uFFFD")
		}
		if p.format == sink.FormatCSV {
			w.Answer = strings.ReplaceAll(w.Answer, "\r\n", "\n") // as every reader of CSV in Go does
		}
		row.CreatedAt, row.EndedAt = row.CreatedAt.UTC(), row.EndedAt.UTC()
		require.Equal(t, w, row)
	}
	require.Empty(t, want)
}
