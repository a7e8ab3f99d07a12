package bench

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api/apitest"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func connTo(t *testing.T, url string) *conn {
	c, err := dial(t.Context(), strings.TrimPrefix(url, "http://"))
	require.NoError(t, err)
	t.Cleanup(c.close)
	return c
}

// slowServer takes requests and answers none until the test ends.
func slowServer(t *testing.T) string {
	ended := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-ended }))
	t.Cleanup(func() { close(ended); s.Close() })
	return strings.TrimPrefix(s.URL, "http://")
}

func TestSubmitKeepsItsConnection(t *testing.T) {
	fake := apitest.New()
	c := connTo(t, apitest.Serve(t, fake))
	for i := range 5 {
		require.NoError(t, c.submit(newTemplate("t", true).task(nil, i)))
	}
	require.Equal(t, 5, fake.Len())
	require.ErrorContains(t, c.submit(newTemplate("t", true).task(nil, 0)), "200 OK", "a repeat is no new task")
}

func TestSubmitRefused(t *testing.T) {
	c := connTo(t, apitest.Serve(t, apitest.New()))
	err := c.submit([]byte(`{"prompt":""}`))
	require.ErrorContains(t, err, "422")
	require.ErrorContains(t, err, "prompt")
}

func TestStreamOfManyChunks(t *testing.T) {
	fake := apitest.New()
	c := connTo(t, apitest.Serve(t, fake))
	sum, err := c.stream(3000, newTemplate("t", true).line)
	require.NoError(t, err)
	require.EqualValues(t, 3000, sum.Accepted)
	require.Equal(t, 3000, fake.Len())
}

func TestStreamWithARefusedLine(t *testing.T) {
	c := connTo(t, apitest.Serve(t, apitest.New()))
	_, err := c.stream(10, func(b []byte, i int) []byte {
		return fmt.Appendf(b, "{\"task_id\":\"t%d\",\"prompt\":\"%s\"}\n", i, strings.Repeat("x", i%2))
	})
	require.ErrorContains(t, err, "5 tasks were refused, one of them:")
	require.ErrorContains(t, err, `"line":1`)
}

func TestStreamOfWhatFails(t *testing.T) {
	fake := apitest.New()
	fake.BeforeSubmit = func([]*task.Spec) error { return fault.New(fault.NoSpace, "x", "", "the disk is full") }
	c := connTo(t, apitest.Serve(t, fake))
	_, err := c.stream(10, newTemplate("t", true).line)
	require.ErrorContains(t, err, "the disk is full")
}

func TestStreamToSomethingElse(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"404 Not Found":     http.NotFound,
		"without a summary": say(`{"task_id":"a"}` + "\n"),
		"bench.stream: ": func(_ http.ResponseWriter, r *http.Request) { // EOF, or a reset: as the kernel sees it
			_, _ = io.CopyN(io.Discard, r.Body, 10)
			panic(http.ErrAbortHandler)
		},
	} {
		s := httptest.NewServer(answer)
		_, err := connTo(t, s.URL).stream(100_000, newTemplate("t", true).line)
		require.ErrorContains(t, err, name)
		s.Close()
	}
}

func TestBulkCountsOnlyNewTasks(t *testing.T) {
	url := apitest.Serve(t, apitest.New())
	n := &node{addr: strings.TrimPrefix(url, "http://")}
	_, err := bulk(t.Context(), n, 1, 10, newTemplate("t", true).line)
	require.NoError(t, err)
	_, err = bulk(t.Context(), n, 1, 20, newTemplate("t", true).line)
	require.ErrorContains(t, err, "10 of 20 tasks were accepted as new")
}
