package actors_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// liar says that it is well, and fails what it is given.
type liar struct {
	lie   atomic.Pointer[func(http.ResponseWriter, *http.Request)] // nil: it is honest
	asked atomic.Int64
	mu    sync.Mutex
	told  map[string]int // right answers by prompt
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/health":
		return
	case "/v1/models":
		_, _ = io.WriteString(w, `{"data":[{"id":"m"}]}`)
		return
	}
	l.asked.Add(1)
	body, _ := io.ReadAll(r.Body)
	if lie := l.lie.Load(); lie != nil {
		(*lie)(w, r)
		return
	}
	var q struct{ Messages []infer.Message }
	_ = json.Unmarshal(body, &q)
	p := q.Messages[0].Content
	l.mu.Lock()
	l.told[p]++
	l.mu.Unlock()
	_, _ = fmt.Fprintf(w, `{"model":"m","choices":[{"message":{"content":%q},"finish_reason":"stop"}]}`, p)
}

func text(status int, body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

var lies = map[string]func(http.ResponseWriter, *http.Request){
	"wrong JSON": text(200, `{"choices":[{"mess`),
	"a web page": text(200, `<html>welcome</html>`),
	"no choices": text(200, `{}`),
	"200, error": text(200, `{"error":{"message":"out of memory"}}`),
	"500":        text(500, `{"error":{"message":"out of memory"}}`),
	"half of it": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "900")
		text(200, `{"model":"m","cho`)(w, r)
	},
	"crash midway": func(w http.ResponseWriter, r *http.Request) {
		text(200, `{"model":"m","cho`)(w, r)
		panic(http.ErrAbortHandler)
	},
	"endless": func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat(" ", 64<<10)); err != nil {
				return
			}
		}
	},
}

func newLiar(t *testing.T, name string) (*liar, actors.Engine) {
	t.Helper()
	l := &liar{told: map[string]int{}}
	s := httptest.NewServer(l)
	t.Cleanup(s.Close)
	h, err := infer.NewHTTP(infer.HTTPOptions{Name: name, URL: s.URL, MaxBody: 256 << 10})
	require.NoError(t, err)
	t.Cleanup(h.Close)
	return l, actors.Engine{Engine: h, Concurrency: 8, Prefetch: 8}
}

// TestALyingEngine: beside an honest one, it is found out after a few tasks, and gets one at a time then. Every task is completed, and answered once.
func TestALyingEngine(t *testing.T) {
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			liar, bad := newLiar(t, "liar")
			honest, good := newLiar(t, "honest")
			liar.lie.Store(&lie)
			sys := startWith(t, persisttest.NewStore(4), func(o *actors.Options) { o.Policy.Attempts = 10 }, bad, good)
			const n = 400
			for i := range n {
				submit(t, sys, &task.Spec{ID: fmt.Sprint("t", i), Prompt: fmt.Sprint("say ", i)})
			}
			for i := range n {
				r := await(t, sys, fmt.Sprint("t", i))
				require.Equal(t, task.Completed, r.State, "%+v", r.Error)
				require.Equal(t, fmt.Sprint("say ", i), r.Text())
				require.Len(t, r.Answers, 1)
			}
			for p, times := range honest.told {
				require.Equal(t, 1, times, p)
			}
			require.Less(t, liar.asked.Load(), int64(60), "of %d tasks", n)
			require.NotEqual(t, infer.Closed, sys.Engines()[0].Circuit)
			require.False(t, sys.Engines()[0].Healthy)
			require.Contains(t, sys.Engines()[0].Reason, "it keeps failing")
		})
	}
}

// TestALiarThatMends: it is alone, so its tasks wait; they are tried one at a time, and all go through once one of them did.
func TestALiarThatMends(t *testing.T) {
	liar, e := newLiar(t, "liar")
	lie := lies["200, error"]
	liar.lie.Store(&lie)
	sys := startWith(t, persisttest.NewStore(2), func(o *actors.Options) { o.Policy.Attempts = 10 }, e)
	const n = 200
	for i := range n {
		submit(t, sys, &task.Spec{ID: fmt.Sprint("t", i), Prompt: fmt.Sprint("say ", i)})
	}
	require.Eventually(t, func() bool { return sys.Engines()[0].Circuit == infer.Open }, 10*time.Second, time.Millisecond)
	asked := liar.asked.Load()
	require.Less(t, asked, int64(40), "of %d tasks", n)
	liar.lie.Store(nil)
	for i := range n {
		require.Equal(t, task.Completed, await(t, sys, fmt.Sprint("t", i)).State)
	}
	st := sys.Engines()[0]
	require.Equal(t, infer.Closed, st.Circuit)
	require.True(t, st.Healthy)
	for p, times := range liar.told {
		require.Equal(t, 1, times, p)
	}
}
