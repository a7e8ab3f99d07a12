package node

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
)

// TestACallbackIsSignedAndFollowsTheCommit: the receiver verifies the signature with
// the library of the standard, and finds the task final when it asks.
func TestACallbackIsSignedAndFollowsTheCommit(t *testing.T) {
	c := testConfig(t)
	n := boot(t, c)
	secret, err := os.ReadFile(filepath.Join(c.DataDir, "callback.secret"))
	require.NoError(t, err)
	verify, err := webhooks.NewWebhook(strings.TrimSpace(string(secret)))
	require.NoError(t, err)
	type seen struct {
		body  string
		id    string
		state string
		err   error
	}
	got := make(chan seen, 4)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		var now taskView
		call(t, n, "GET", "/v1/tasks/cb", nil, &now)
		got <- seen{string(b), r.Header.Get("webhook-id"), now.State, verify.Verify(b, r.Header)}
	}))
	defer receiver.Close()
	res := call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "cb", "prompt": "hi", "callback_url": receiver.URL}, nil)
	require.Equal(t, http.StatusCreated, res.StatusCode)
	select {
	case s := <-got:
		require.NoError(t, s.err)
		require.Equal(t, "completed", s.state, "never before the state is committed")
		require.Contains(t, s.body, `"task.completed"`)
		require.NotEmpty(t, s.id)
	case <-time.After(20 * time.Second):
		t.Fatal("no callback")
	}
	require.Eventually(t, func() bool {
		var v struct {
			Callback struct {
				State string `json:"state"`
			} `json:"callback"`
		}
		call(t, n, "GET", "/v1/tasks/cb", nil, &v)
		return v.Callback.State == "delivered"
	}, 10*time.Second, 10*time.Millisecond)
	require.Empty(t, got, "acknowledged once, sent once")
}

// TestACallbackThatFailedIsTriedAgain: over a restart of the node, too; the try is in
// the task's history.
func TestACallbackThatFailedIsTriedAgain(t *testing.T) {
	c := testConfig(t)
	n := boot(t, c)
	tries := make(chan string, 16)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tries <- r.Header.Get("webhook-id")
		if len(tries) == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer receiver.Close()
	call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "cb", "prompt": "hi", "callback_url": receiver.URL}, nil)
	lost := func(n *Node, event string) bool {
		var h struct {
			Events []struct {
				Event string `json:"event"`
			} `json:"events"`
		}
		call(t, n, "GET", "/v1/tasks/cb/events", nil, &h)
		for _, e := range h.Events {
			if e.Event == event {
				return true
			}
		}
		return false
	}
	require.Eventually(t, func() bool { return lost(n, "callback_lost") }, 20*time.Second, 10*time.Millisecond)
	halt(t, n)
	n = boot(t, c)
	require.Eventually(t, func() bool { return lost(n, "callback_sent") }, 30*time.Second, 50*time.Millisecond)
	require.Equal(t, <-tries, <-tries, "one stable id")
}

// TestDataURL: the file's text reaches the model, its hash the history; what policy
// forbids fails the task at once.
func TestDataURL(t *testing.T) {
	c := testConfig(t)
	dir := t.TempDir()
	c.Source.AllowedDirs = []string{dir}
	n := boot(t, c)
	file := filepath.Join(dir, "d.csv")
	require.NoError(t, os.WriteFile(file, []byte("a,b\n1,2\n"), 0o644))
	type view struct {
		State    string `json:"state"`
		Answer   string `json:"answer"`
		Error    *struct{ Kind, Message, Remedy string }
		Attempts []struct {
			Answer struct {
				SHA string `json:"data_sha256"`
			} `json:"answer"`
		} `json:"attempts"`
	}
	var got view
	call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "ok", "prompt": "sum up", "data_url": "file://" + file}, nil)
	call(t, n, "GET", "/v1/tasks/ok?wait=20s", nil, &got)
	require.Equal(t, "completed", got.State)
	require.Contains(t, got.Answer, "1,2", "the echo engine saw the data")
	require.Len(t, got.Attempts[0].Answer.SHA, 64)

	inside := httptest.NewServer(http.NotFoundHandler())
	defer inside.Close()
	var refused struct{ Kind, Detail, Remedy string }
	res := call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "passwd", "prompt": "p", "data_url": "file:///etc/passwd"}, &refused)
	require.Equal(t, http.StatusForbidden, res.StatusCode, "it could only fail")
	require.Contains(t, refused.Remedy, "source.allowed_dirs")
	require.NotContains(t, refused.Detail, refused.Remedy, "said once")
	for id, url := range map[string]string{"loopback": inside.URL, "metadata": "http://169.254.169.254/latest"} {
		got = view{}
		call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": id, "prompt": "p", "data_url": url}, nil)
		call(t, n, "GET", "/v1/tasks/"+id+"?wait=20s", nil, &got)
		require.Equal(t, "failed", got.State, id)
		require.Equal(t, "refused", got.Error.Kind, id)
		require.NotContains(t, got.Error.Message, got.Error.Remedy, "said once")
		require.Len(t, got.Attempts, 1, "no second try helps")
	}
}
