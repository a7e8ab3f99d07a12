package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/node/api/apitest"
	"github.com/open-autoglm/autoglm/node/api/client"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func dial(t *testing.T, url string, opts ...client.Option) *client.Client {
	t.Helper()
	c, err := client.New(url, opts...)
	require.NoError(t, err)
	return c
}

// flaky serves f through a handler that may cut answers off.
func flaky(t *testing.T, f api.Service, wrap func(http.Handler) http.Handler, opts ...api.Option) string {
	t.Helper()
	s, err := api.New(f, append([]api.Option{api.WithLogger(slog.New(slog.DiscardHandler))}, opts...)...)
	require.NoError(t, err)
	srv := httptest.NewUnstartedServer(wrap(s.Handler()))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.URL
}

// cutAfter cuts an answer off when more than n bytes were written.
type cutAfter struct {
	http.ResponseWriter
	n int
}

func (c *cutAfter) Write(b []byte) (int, error) {
	if c.n -= len(b); c.n < 0 {
		panic(http.ErrAbortHandler)
	}
	return c.ResponseWriter.Write(b)
}

func (c *cutAfter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func TestCalls(t *testing.T) {
	f := apitest.New()
	c := dial(t, apitest.Serve(t, f))
	ctx := t.Context()
	sub, err := c.Submit(ctx, &task.Spec{Prompt: "p", Metadata: map[string]string{"k": "v"}})
	require.NoError(t, err)
	require.Len(t, sub.ID, 36)

	got, err := c.Wait(ctx, sub.ID, time.Millisecond)
	require.NoError(t, err)
	require.Equal(t, task.Pending, got.State)
	f.Claim(sub.ID)
	f.Answer(sub.ID, "x")
	got, err = c.Wait(ctx, sub.ID, 0)
	require.NoError(t, err)
	require.Equal(t, "x", got.Answer)
	got, err = c.Get(ctx, sub.ID)
	require.NoError(t, err)
	require.Equal(t, "p", got.Prompt)

	list, err := c.List(ctx, client.Query{State: task.Completed, Metadata: map[string]string{"k": "v"}, Limit: 5})
	require.NoError(t, err)
	require.Len(t, list.Tasks, 1)
	h, err := c.Events(ctx, sub.ID, 1)
	require.NoError(t, err)
	require.Len(t, h.Events, 2)
	st, err := c.Status(ctx)
	require.NoError(t, err)
	require.Equal(t, int64(1), st.Tasks["completed"])
	warning, err := c.Backup(ctx, filepath.Join(t.TempDir(), "b"))
	require.NoError(t, err)
	require.Empty(t, warning)

	_, err = c.Cancel(ctx, sub.ID, "why")
	require.Equal(t, fault.Conflict, fault.KindOf(err))
	var p *wire.Problem
	require.ErrorAs(t, err, &p)
	require.Equal(t, 409, p.Status)
	_, err = c.Get(ctx, "a/b c")
	require.Equal(t, fault.NotFound, fault.KindOf(err))
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	c := dial(t, "http://"+l.Addr().String())
	_, err = c.Status(t.Context())
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.ErrorContains(t, err, "start one with: autoglm serve")
	_, err = client.New("ftp://x")
	require.ErrorContains(t, err, "http://127.0.0.1:8080")
}

func TestBusyNodeIsAskedAgain(t *testing.T) {
	f := apitest.New()
	var calls atomic.Int64
	f.BeforeSubmit = func([]*task.Spec) error {
		if calls.Add(1) <= 2 {
			return fault.New(fault.Unavailable, "x", "", "moving")
		}
		return nil
	}
	url := flaky(t, f, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if calls.Load() == 2 { // an answer that got lost: the task is there
				h.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}
			h.ServeHTTP(noRetryAfter{w}, r)
		})
	})
	sub, err := dial(t, url).Submit(t.Context(), &task.Spec{Prompt: "p"})
	require.NoError(t, err)
	require.False(t, sub.Existed)
	require.Equal(t, 1, f.Len())

	f.BeforeSubmit = func([]*task.Spec) error { return fault.New(fault.NoSpace, "x", "", "full") }
	_, err = dial(t, url).Submit(t.Context(), &task.Spec{Prompt: "p"})
	require.Equal(t, fault.NoSpace, fault.KindOf(err))
}

// noRetryAfter takes out the header, so that a test does not wait whole seconds.
type noRetryAfter struct{ http.ResponseWriter }

func (n noRetryAfter) WriteHeader(status int) {
	n.Header().Del("Retry-After")
	n.ResponseWriter.WriteHeader(status)
}

func TestSubmitLines(t *testing.T) {
	f := apitest.New()
	c := dial(t, apitest.Serve(t, f), client.WithRetry(0))
	in := "{\"prompt\":\"p\"}\n\nnot JSON\n{\"task_id\":\"mine\",\"prompt\":\"q\",\"priority\":1}\n{\"task_id\":\"mine\",\"prompt\":\"q\",\"priority\":1}\n" +
		`{"prompt":"` + strings.Repeat("x", client.LineMax) + `"}`
	var got []wire.Submitted
	sum, err := c.SubmitLines(t.Context(), strings.NewReader(in), func(m map[string]json.RawMessage) {
		m["priority"] = json.RawMessage("7")
	}, func(s wire.Submitted) error {
		got = append(got, s)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, wire.Summary{Accepted: 2, Existed: 1, Rejected: 2}, sum)
	require.Equal(t, []int{1, 3, 4, 5, 6}, []int{got[0].Line, got[1].Line, got[2].Line, got[3].Line, got[4].Line})
	require.Equal(t, 400, got[1].Error.Status)
	require.Equal(t, "http.line_max", got[4].Error.Limit)
	rec, err := f.Get(t.Context(), "mine")
	require.NoError(t, err)
	require.EqualValues(t, 7, *rec.Spec.Priority)

	sum, err = c.SubmitLines(t.Context(), strings.NewReader(""), nil, nil)
	require.NoError(t, err)
	require.Zero(t, sum)

	enough := errors.New("enough")
	_, err = c.SubmitLines(t.Context(), strings.NewReader(in), nil, func(wire.Submitted) error { return enough })
	require.ErrorIs(t, err, enough)
	broken := errors.New("broken")
	_, err = c.SubmitLines(t.Context(), io.MultiReader(strings.NewReader("{\"prompt\":\"p\"}\n"), errReader{broken}), nil,
		func(wire.Submitted) error { return nil })
	require.ErrorIs(t, err, broken)
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

// Answers that are cut off again and again: each task is made once and answered once, in order.
func TestSubmitAllSurvivesBrokenConnections(t *testing.T) {
	f := apitest.New()
	var cuts atomic.Int64
	url := flaky(t, f, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if cuts.Add(1) <= 5 {
				w = &cutAfter{w, 300_000}
			}
			h.ServeHTTP(w, r)
		})
	})
	const n = 20_000
	var got []string
	sum, err := dial(t, url).SubmitAll(t.Context(), func(yield func(*task.Spec) bool) {
		for i := range n {
			if !yield(&task.Spec{Prompt: fmt.Sprint(i)}) {
				return
			}
		}
	}, func(s wire.Submitted) error {
		require.Equal(t, len(got)+1, s.Line)
		got = append(got, s.ID)
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, wire.Summary{Accepted: n}, sum)
	require.Greater(t, cuts.Load(), int64(5))
	require.Equal(t, n, f.Len())
	for i, id := range got {
		rec, err := f.Get(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), rec.Spec.Prompt)
	}
}

// A node that holds lines back, as a busy one does for http.stream_retry, is waited for no longer than was asked for; a quiet input is no reason to end.
func TestSubmitLinesEndsInTheTimeItWasGiven(t *testing.T) {
	f, lim := apitest.New(), api.DefaultLimits()
	lim.StreamRetry = 5 * time.Second
	c := dial(t, apitest.Serve(t, f, api.WithLimits(lim)), client.WithRetry(200*time.Millisecond))
	in, out := io.Pipe()
	defer out.Close()
	quiet := time.AfterFunc(time.Second, func() { out.Close() })
	defer quiet.Stop()
	go io.WriteString(out, "{\"prompt\":\"p\"}\n") //nolint:errcheck
	sum, err := c.SubmitLines(t.Context(), in, nil, func(wire.Submitted) error { return nil })
	require.NoError(t, err, "the input was quiet for longer than that")
	require.EqualValues(t, 1, sum.Accepted)

	f.BeforeSubmit = func([]*task.Spec) error { return fault.New(fault.Overloaded, "fake.submit", "", "busy") }
	_, err = c.SubmitLines(t.Context(), strings.NewReader("{\"prompt\":\"p\"}\n"), nil, func(wire.Submitted) error { return nil })
	require.Equal(t, fault.Timeout, fault.KindOf(err), "the server would have refused the line after 5 s: %v", err)
	require.ErrorContains(t, err, "no answer to a line within 200ms")
	require.ErrorContains(t, err, "quota", "it may be that, and not the node")
}

func TestSubmitEndsWithItsContext(t *testing.T) {
	c := dial(t, apitest.Serve(t, apitest.New()))
	ctx, cancel := context.WithCancel(t.Context())
	in, out := io.Pipe()
	defer out.Close()
	go io.WriteString(out, "{\"prompt\":\"p\"}\n") //nolint:errcheck
	_, err := c.SubmitLines(ctx, in, nil, func(wire.Submitted) error { cancel(); return nil })
	require.ErrorIs(t, err, context.Canceled)
}

func TestResultsSurviveBrokenConnections(t *testing.T) {
	f := apitest.New()
	f.AutoAnswer = apitest.Echo
	var cuts atomic.Int64
	url := flaky(t, f, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "GET" && cuts.Add(1) <= 3 {
				w = &cutAfter{w, 100_000}
			}
			h.ServeHTTP(w, r)
		})
	})
	c := dial(t, url)
	const n = 2000
	_, err := c.SubmitAll(t.Context(), func(yield func(*task.Spec) bool) {
		for i := 0; i < n && yield(&task.Spec{ID: fmt.Sprint(i), Prompt: "p"}); i++ {
		}
	}, func(wire.Submitted) error { return nil })
	require.NoError(t, err)
	seen := map[string]bool{}
	cursor, err := c.Results(t.Context(), client.Query{}, false, func(r wire.Result) error {
		require.False(t, seen[r.ID], "%s twice", r.ID)
		seen[r.ID] = true
		return nil
	})
	require.NoError(t, err)
	require.Len(t, seen, n)
	require.Equal(t, fmt.Sprint(n), cursor)
	require.Equal(t, int64(4), cuts.Load())
}

func TestResultsFollow(t *testing.T) {
	f := apitest.New()
	f.AutoAnswer = apitest.Echo
	lim := api.DefaultLimits()
	lim.ResultsPoll, lim.Heartbeat = time.Millisecond, 10*time.Millisecond
	c := dial(t, apitest.Serve(t, f, api.WithLimits(lim)))
	submit := func() {
		_, err := c.Submit(t.Context(), &task.Spec{Prompt: "p"})
		require.NoError(t, err)
	}
	submit()
	enough := errors.New("enough")
	n := 0
	_, err := c.Results(t.Context(), client.Query{}, true, func(wire.Result) error {
		if n++; n == 3 {
			return enough
		}
		submit()
		return nil
	})
	require.ErrorIs(t, err, enough)
}

func TestFollow(t *testing.T) {
	f := apitest.New()
	var cuts atomic.Int64
	url := flaky(t, f, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "GET" && cuts.Add(1) == 1 {
				w = &cutAfter{w, 300}
			}
			h.ServeHTTP(w, r)
		})
	})
	c := dial(t, url)
	_, err := c.Submit(t.Context(), &task.Spec{ID: "a", Prompt: "p"})
	require.NoError(t, err)
	var got []string
	err = c.Follow(t.Context(), "a", 0, func(e wire.Event) error {
		got = append(got, e.Event.String())
		switch e.Event {
		case task.Submitted:
			f.Claim("a")
		case task.Claimed:
			f.Answer("a", "x")
		}
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, []string{"submitted", "claimed", "answered"}, got)
	require.Equal(t, fault.NotFound, fault.KindOf(c.Follow(t.Context(), "b", 0, nil)))
}
