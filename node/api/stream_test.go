package api_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/node/api/apitest"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// lines parses an NDJSON answer.
func lines[T any](t *testing.T, b []byte) (out []T) {
	t.Helper()
	for l := range strings.Lines(string(b)) {
		out = append(out, decode[T](t, []byte(l)))
	}
	return out
}

func TestStreamKeepsGoodLines(t *testing.T) {
	lim := api.DefaultLimits()
	lim.LineMax = 2000
	base := apitest.Serve(t, apitest.New(), api.WithLimits(lim))
	in := "\xef\xbb\xbf" + `{"task_id":"a","prompt":"p"}` + "\r\n" +
		"\n" +
		`{"task_id":"b","promt":"p"}` + "\n" +
		`{"task_id":"c","prompt":"` + strings.Repeat("x", 3000) + `"}` + "\n" +
		"not JSON\n" +
		`{"task_id":"a","prompt":"p"}` + "\n" +
		`{"task_id":"a","prompt":"other"}` + "\n" +
		`{"prompt":"last"}`
	r := send(t, "POST", base+"/v1/tasks", in, asNDJSON)
	require.Equal(t, 200, r.status, string(r.body))
	require.Equal(t, "application/x-ndjson", r.header.Get("Content-Type"))
	got := lines[wire.SubmitLine](t, r.body)
	require.Len(t, got, 8, string(r.body))
	var numbers []int
	for _, l := range got[:7] {
		numbers = append(numbers, l.Line)
	}
	require.Equal(t, []int{1, 3, 4, 5, 6, 7, 8}, numbers)
	require.Equal(t, task.Pending, got[0].State)
	require.Equal(t, "promt", got[1].Error.Key)
	require.Equal(t, "http.line_max", got[2].Error.Limit)
	require.Equal(t, 413, got[2].Error.Status)
	require.Equal(t, 400, got[3].Error.Status)
	require.True(t, got[4].Existed)
	require.Equal(t, 409, got[5].Error.Status)
	require.Len(t, got[6].ID, 36)
	require.Equal(t, &wire.Summary{Accepted: 2, Existed: 1, Rejected: 4}, got[7].Summary)
}

func TestEmptyStream(t *testing.T) {
	base := apitest.Serve(t, apitest.New())
	got := lines[wire.SubmitLine](t, send(t, "POST", base+"/v1/tasks", "\n\n", asNDJSON).body)
	require.Len(t, got, 1)
	require.Equal(t, &wire.Summary{}, got[0].Summary)
}

// A client sees a line's answer before it sends the next line: the stream is full duplex.
func TestStreamAnswersWhileItReads(t *testing.T) {
	base := apitest.Serve(t, apitest.New())
	in, out := io.Pipe()
	answers := make(chan *http.Response)
	go func() {
		resp, err := http.Post(base+"/v1/tasks", "application/x-ndjson", in)
		if err != nil {
			t.Error(err)
		}
		answers <- resp
	}()
	_, err := io.WriteString(out, `{"task_id":"t0","prompt":"p"}`+"\n")
	require.NoError(t, err)
	resp := <-answers
	defer resp.Body.Close()
	scan := bufio.NewScanner(resp.Body)
	for i := range 5 {
		require.True(t, scan.Scan())
		require.Equal(t, fmt.Sprintf("t%d", i), decode[wire.SubmitLine](t, scan.Bytes()).ID)
		_, err = fmt.Fprintf(out, `{"task_id":"t%d","prompt":"p"}`+"\n", i+1)
		require.NoError(t, err)
	}
	require.NoError(t, out.Close())
	require.True(t, scan.Scan())
	require.True(t, scan.Scan())
	require.Equal(t, int64(6), decode[wire.SubmitLine](t, scan.Bytes()).Summary.Accepted)
	require.False(t, scan.Scan())
}

// However long the stream, the lines read but not answered are bounded.
func TestStreamReadsNoFurtherThanItsChunks(t *testing.T) {
	f := apitest.New()
	release := make(chan bool)
	var held atomic.Int64
	f.BeforeSubmit = func(specs []*task.Spec) error {
		held.Add(int64(len(specs)))
		<-release
		return nil
	}
	lim := api.DefaultLimits()
	lim.ChunkLines, lim.ChunksInFlight = 10, 2
	base := apitest.Serve(t, f, api.WithLimits(lim))
	done := make(chan []byte)
	go func() {
		resp, err := http.Post(base+"/v1/tasks", "application/x-ndjson", generator(100_000))
		if err != nil {
			t.Error(err)
			close(done)
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		done <- b
	}()
	// one chunk waits on the full list, ChunksInFlight are in it, and one the writer waits for
	require.Eventually(t, func() bool { return held.Load() >= 30 }, 10*time.Second, time.Millisecond)
	require.LessOrEqual(t, held.Load(), int64(10*(lim.ChunksInFlight+2)))
	close(release)
	got := lines[wire.SubmitLine](t, <-done)
	require.Equal(t, int64(100_000), got[len(got)-1].Summary.Accepted)
	for i, l := range got[:100_000] {
		require.Equal(t, i+1, l.Line)
	}
	require.Equal(t, 100_000, f.Len())
}

func TestStreamWaitsForABusyNode(t *testing.T) {
	f := apitest.New()
	var refused atomic.Int64
	f.BeforeSubmit = func(specs []*task.Spec) error {
		if specs[0].ID == "" {
			return errors.New("a spec without an id could become two tasks")
		}
		if refused.Add(1) <= 3 {
			return fault.New(fault.Overloaded, "fake.submit", "", "busy")
		}
		return nil
	}
	base := apitest.Serve(t, f)
	got := lines[wire.SubmitLine](t, send(t, "POST", base+"/v1/tasks", "{\"prompt\":\"p\"}\n{\"prompt\":\"q\"}", asNDJSON).body)
	require.Equal(t, &wire.Summary{Accepted: 2}, got[2].Summary)
	require.Equal(t, 1, got[0].Line)
	require.Equal(t, 2, got[1].Line)

	lim := api.DefaultLimits()
	lim.StreamRetry = 0
	refused.Store(-1000)
	f.BeforeSubmit = func([]*task.Spec) error { return fault.New(fault.Overloaded, "fake.submit", "", "busy") }
	base = apitest.Serve(t, f, api.WithLimits(lim))
	got = lines[wire.SubmitLine](t, send(t, "POST", base+"/v1/tasks", "{\"prompt\":\"p\"}", asNDJSON).body)
	require.Equal(t, 429, got[0].Error.Status)
}

func TestStreamsMax(t *testing.T) {
	lim := api.DefaultLimits()
	lim.StreamsMax = 1
	f := apitest.New()
	base := apitest.Serve(t, f, api.WithLimits(lim))
	resp, err := http.Get(base + "/v1/results?follow=true")
	require.NoError(t, err)
	defer resp.Body.Close()
	p := send(t, "POST", base+"/v1/tasks", `{"prompt":"p"}`, asNDJSON).problem(t, 429)
	require.Equal(t, "http.streams_max", p.Limit)
}

func TestStreamSurvivesAClientThatGoesAway(t *testing.T) {
	f := apitest.New()
	lim := api.DefaultLimits()
	lim.StreamsMax = 1
	base := apitest.Serve(t, f, api.WithLimits(lim))
	ctx, cancel := context.WithCancel(t.Context())
	in, out := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, "POST", base+"/v1/tasks", in)
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-ndjson")
	failed := make(chan error)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		failed <- err
	}()
	_, err = io.WriteString(out, `{"task_id":"t0","prompt":"p"}`+"\n")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return f.Len() == 1 }, 10*time.Second, time.Millisecond)
	cancel()
	out.CloseWithError(context.Canceled) // the transport waits for its body
	require.Error(t, <-failed)
	require.Eventually(t, func() bool { // its token comes back
		return send(t, "POST", base+"/v1/tasks", `{"prompt":"p"}`, asNDJSON).status == 200
	}, 10*time.Second, 5*time.Millisecond)
}

func TestStreamIdle(t *testing.T) {
	lim := api.DefaultLimits()
	lim.StreamIdle = time.Second
	base := apitest.Serve(t, apitest.New(), api.WithLimits(lim))
	in, out := io.Pipe()
	defer out.Close()
	go io.WriteString(out, "{\"prompt\":\"p\"}\n{\"prompt\":\"half") //nolint:errcheck
	resp, err := http.Post(base+"/v1/tasks", "application/x-ndjson", in)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	got := lines[wire.SubmitLine](t, b)
	require.Equal(t, int64(1), got[1].Summary.Accepted)
	require.Equal(t, "http.stream_idle", got[1].Summary.Error.Limit, string(b))
}

func TestFollowEvents(t *testing.T) {
	f := apitest.New()
	lim := api.DefaultLimits()
	lim.Heartbeat = 10 * time.Millisecond
	base := apitest.Serve(t, f, api.WithLimits(lim))
	send(t, "POST", base+"/v1/tasks", `{"task_id":"a","prompt":"p","callback_url":"http://x/"}`, asJSON)
	req, _ := http.NewRequestWithContext(t.Context(), "GET", base+"/v1/tasks/a/events", nil)
	req.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	scan := bufio.NewScanner(resp.Body)
	until := func(want string) {
		t.Helper()
		for scan.Scan() {
			if strings.HasPrefix(scan.Text(), want) {
				return
			}
		}
		t.Fatalf("the stream ended before %q", want)
	}
	until("id: 1")
	until("event: submitted")
	until(`data: {"version":1,"event":"submitted"`)
	until(": still pending")
	f.Claim("a")
	until("event: claimed")
	f.Answer("a", "x")
	until("event: answered")
	until(": still completed") // the callback is not through
	f.Apply("a", task.Fact{Event: task.CallbackSent, Attempt: 1})
	until("id: 4")
	until("event: callback_sent")
	until("data: ")
	for scan.Scan() {
		require.Empty(t, scan.Text())
	}

	r := send(t, "GET", base+"/v1/tasks/a/events", "", "Accept: text/event-stream", "Last-Event-ID: 2")
	require.NotContains(t, string(r.body), "id: 2\n")
	require.Contains(t, string(r.body), "id: 3\n")
	require.Equal(t, 204, send(t, "GET", base+"/v1/tasks/a/events", "", "Accept: text/event-stream", "Last-Event-ID: 4").status)
}

func TestResults(t *testing.T) {
	f := apitest.New()
	f.AutoAnswer = apitest.Echo
	base := apitest.Serve(t, f)
	send(t, "POST", base+"/v1/tasks", "", asNDJSON)
	r := send(t, "GET", base+"/v1/results", "")
	require.Empty(t, r.body)
	const n = 600
	b, err := io.ReadAll(generator(n))
	require.NoError(t, err)
	send(t, "POST", base+"/v1/tasks", string(b), asNDJSON)

	r = send(t, "GET", base+"/v1/results?metadata.even=true&state=completed", "")
	all := lines[wire.Result](t, r.body)
	require.Len(t, all, n/2)
	require.Equal(t, "600", r.header.Get(api.CursorTrailer))
	resume := ""
	for i, res := range all {
		require.Equal(t, "true", res.Metadata["even"])
		require.Equal(t, "prompt", res.Answer)
		require.Equal(t, task.Completed, res.State)
		require.NotNil(t, res.EndedAt)
		if res.Cursor != "" && resume == "" {
			resume = res.Cursor
			rest := lines[wire.Result](t, send(t, "GET", base+"/v1/results?metadata.even=true&cursor="+resume, "").body)
			require.Equal(t, all[i+1:], rest)
		}
	}
	require.NotEmpty(t, resume)
	require.Empty(t, send(t, "GET", base+"/v1/results?state=failed", "").body)
}

func TestResultsFollow(t *testing.T) {
	f := apitest.New()
	f.AutoAnswer = apitest.Echo
	lim := api.DefaultLimits()
	lim.ResultsPoll, lim.Heartbeat = time.Millisecond, 10*time.Millisecond
	base := apitest.Serve(t, f, api.WithLimits(lim))
	resp, err := http.Get(base + "/v1/results?follow=true")
	require.NoError(t, err)
	defer resp.Body.Close()
	scan := bufio.NewScanner(resp.Body)
	next := func() wire.Result {
		require.True(t, scan.Scan())
		return decode[wire.Result](t, scan.Bytes())
	}
	for i := range 3 {
		beat := next()
		require.Equal(t, wire.Result{Cursor: fmt.Sprint(i)}, beat)
		send(t, "POST", base+"/v1/tasks", fmt.Sprintf(`{"task_id":"%d","prompt":"p"}`, i), asJSON)
		got := next()
		for got.ID == "" {
			got = next()
		}
		require.Equal(t, fmt.Sprint(i), got.ID)
		require.Equal(t, fmt.Sprint(i+1), got.Cursor)
	}
}

// generator makes n lines as they are read.
func generator(n int) io.Reader {
	i := 0
	var made bytes.Buffer
	return readerFunc(func(p []byte) (int, error) {
		for ; made.Len() < len(p) && i < n; i++ {
			fmt.Fprintf(&made, `{"task_id":"t%d","prompt":"prompt","metadata":{"even":"%v"}}`+"\n", i, i%2 == 0)
		}
		return made.Read(p)
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestAConnectionOutlivesItsStream: after an upload the same connection serves on. A
// deadline that was moved to now at the stream's end once failed net/http's read-ahead, and
// with it the context of the next request.
func TestAConnectionOutlivesItsStream(t *testing.T) {
	s, err := api.New(apitest.New())
	require.NoError(t, err)
	canceled := make(chan error, 64)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.Handler().ServeHTTP(w, r)
		canceled <- r.Context().Err()
	}))
	defer srv.Close()
	c := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	for i := range 25 {
		id := fmt.Sprint("t", i)
		res, err := c.Post(srv.URL+"/v1/tasks", "application/x-ndjson", strings.NewReader(`{"task_id":"`+id+`","prompt":"p"}`+"\n"))
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		res.Body.Close()
		require.NoError(t, <-canceled)
		res, err = c.Get(srv.URL + "/v1/tasks/" + id + "?wait=2ms")
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, res.StatusCode)
		res.Body.Close()
		require.NoError(t, <-canceled, "the context of the request after upload %d", i)
	}
}
