package callback

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/actors/egress"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var key = []byte("0123456789abcdef0123456789abcdef")

var secret = secretPrefix + base64.StdEncoding.EncodeToString(key)

func newPoster(t *testing.T, change func(*Options)) *Poster {
	t.Helper()
	o := Options{Secret: secret, Egress: egress.Policy{AllowLoopback: true}}
	if change != nil {
		change(&o)
	}
	p, err := New(o)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func delivery(url string) Delivery {
	return Delivery{URL: url, ID: MessageID("t1"), Timestamp: time.Now(), Body: []byte(`{"type":"task.completed"}`)}
}

// The signature by the specification's words, by hand; and by the library, as a receiver would.
func TestPostSigns(t *testing.T) {
	var got http.Header
	var body []byte
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusAccepted)
	})
	d := delivery(u + "/hook?x=1")
	d.Trace = "00-a-b-01"
	require.NoError(t, newPoster(t, nil).Post(t.Context(), d))
	require.Equal(t, d.Body, body)
	require.Equal(t, "application/json", got.Get("Content-Type"))
	require.Equal(t, d.ID, got.Get("webhook-id"))
	require.Equal(t, []string{d.Trace}, got["Traceparent"])
	require.Equal(t, fmt.Sprint(d.Timestamp.Unix()), got.Get("webhook-timestamp"))

	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%d.%s", d.ID, d.Timestamp.Unix(), d.Body)
	require.Equal(t, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)), got.Get("webhook-signature"))

	wh, err := webhooks.NewWebhook(secret)
	require.NoError(t, err)
	require.NoError(t, wh.Verify(body, got))
	require.Error(t, wh.Verify(append(body, ' '), got))
}

func TestPostMapsStatus(t *testing.T) {
	for status, want := range map[int]fault.Kind{200: 0, 201: 0, 204: 0, 301: fault.Invalid, 307: fault.Invalid, 400: fault.Invalid, 401: fault.Invalid,
		403: fault.Invalid, 404: fault.NotFound, 408: fault.Timeout, 410: fault.Refused, 413: fault.TooLarge, 429: fault.Overloaded,
		500: fault.Unavailable, 502: fault.Unavailable, 503: fault.Overloaded, 504: fault.Unavailable} {
		var calls atomic.Int32
		u := serve(t, func(w http.ResponseWriter, r *http.Request) {
			calls.Add(1)
			w.Header().Set("Location", "/elsewhere")
			w.Header().Set("Retry-After", "9")
			w.WriteHeader(status)
			if status != 204 {
				w.Write([]byte("internal secrets"))
			}
		})
		err := newPoster(t, nil).Post(t.Context(), delivery(u))
		require.Equal(t, want, fault.KindOf(err), "%d: %v", status, err)
		require.Equal(t, status == 410, Final(err))
		require.EqualValues(t, 1, calls.Load(), "redirects are not followed")
		if err != nil {
			require.NotContains(t, err.Error(), "secrets")
			require.Equal(t, 9*time.Second, backoff.AskedBy(err))
		}
	}
}

func TestPostGuardsAddresses(t *testing.T) {
	var heard atomic.Int32
	u := serve(t, func(http.ResponseWriter, *http.Request) { heard.Add(1) })
	p := newPoster(t, func(o *Options) { o.Egress = egress.Policy{} })
	for _, url := range []string{u, "http://169.254.169.254/", "http://[::1]:1/", "http://2130706433/", "ftp://a/", "http://", "\x00"} {
		err := p.Post(t.Context(), delivery(url))
		require.Equal(t, fault.Refused, fault.KindOf(err), "%s: %v", url, err)
		require.True(t, Final(err))
	}
	require.Zero(t, heard.Load())
}

func TestPostTransportFaults(t *testing.T) {
	hang := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	p := newPoster(t, func(o *Options) { o.Timeout = 20 * time.Millisecond })
	require.Equal(t, fault.Timeout, fault.KindOf(p.Post(t.Context(), delivery(hang))))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Equal(t, fault.Unavailable, fault.KindOf(p.Post(ctx, delivery(hang))))

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l.Close()
	err = p.Post(t.Context(), delivery("http://u:geheim@"+l.Addr().String()))
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.NotContains(t, err.Error(), "geheim")
	require.False(t, Final(err))
}

// A receiver that never ends its answer has acknowledged all the same, and is read no further.
func TestPostBoundsTheAnswer(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write(bytes.Repeat([]byte("x"), 4096)); err != nil {
				return
			}
		}
	})
	require.NoError(t, newPoster(t, nil).Post(t.Context(), delivery(u)))
}

// TestEachTenantHasASecret: the operator's is the node's, so that nothing changes for it; another tenant's tells nothing of it, and is the same
// on every node and for ever: receivers keep it.
func TestEachTenantHasASecret(t *testing.T) {
	var got http.Header
	var body []byte
	u := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		got = r.Header
		body, _ = io.ReadAll(r.Body)
	})
	p := newPoster(t, nil)
	secrets := map[string]string{}
	for _, whose := range []string{"default", "acme", "beta"} {
		var err error
		secrets[whose], err = p.Secret(whose)
		require.NoError(t, err)
	}
	require.Equal(t, secret, secrets["default"])
	require.Equal(t, "whsec_alS1ScfyQ1KmGt4Bdx0E3QLybB2pWk8mDZPfaYast7s=", secrets["acme"])
	for whose := range secrets {
		d := delivery(u)
		d.Tenant = whose
		require.NoError(t, p.Post(t.Context(), d))
		for other, s := range secrets {
			wh, err := webhooks.NewWebhook(s)
			require.NoError(t, err)
			require.Equal(t, whose == other, wh.Verify(body, got) == nil, "%s's, by %s", whose, other)
		}
	}
	_, err := p.Secret("No Name")
	require.Equal(t, fault.Invalid, fault.KindOf(err))
}

func TestNewRefuses(t *testing.T) {
	short := base64.StdEncoding.EncodeToString(key[:23])
	for _, s := range []string{"", "abc", "whsec_", "whsec_%%%", "whsec_" + short, base64.StdEncoding.EncodeToString(key)} {
		_, err := New(Options{Secret: s})
		require.Equal(t, fault.Invalid, fault.KindOf(err), "%q: %v", s, err)
	}
	_, err := New(Options{Secret: secret, Timeout: -1})
	require.Equal(t, fault.Invalid, fault.KindOf(err))
}

func TestNext(t *testing.T) {
	for _, c := range []struct {
		try        int
		retryAfter time.Duration
		random     float64
		want       time.Duration
		giveUp     bool
	}{
		{-1, 0, 0, 5 * time.Second, false},
		{0, 0, 0, 5 * time.Second, false},
		{1, 0, 0, 5 * time.Second, false},
		{1, 0, 0.5, 5500 * time.Millisecond, false},
		{1, time.Hour, 0, time.Hour, false},
		{2, 0, 0, 5 * time.Minute, false},
		{3, time.Second, 0, 30 * time.Minute, false},
		{4, 0, 0, 2 * time.Hour, false},
		{5, 0, 0, 5 * time.Hour, false},
		{6, 0, 0, 10 * time.Hour, false},
		{7, 0, 0, 14 * time.Hour, false},
		{8, 0, 0, 20 * time.Hour, false},
		{9, 0, 0, 24 * time.Hour, false},
		{9, 0, 0.999999999999, 28*time.Hour + 48*time.Minute - 1, false},
		{10, 0, 0, 0, true},
		{11, time.Hour, 0.5, 0, true},
	} {
		delay, giveUp := Next(c.try, c.retryAfter, c.random)
		require.InDelta(t, float64(c.want), float64(delay), 1000, "%+v", c)
		require.Equal(t, c.giveUp, giveUp)
	}
	require.Equal(t, 10, TriesMax)
}

func TestMessageID(t *testing.T) {
	require.Equal(t, MessageID("täsk\n"), MessageID("täsk\n"))
	require.NotEqual(t, MessageID("a"), MessageID("b"))
	require.Regexp(t, `^msg_[0-9a-f]{32}$`, MessageID(""))
}

func apply(t *testing.T, r task.Record, facts ...task.Fact) task.Record {
	t.Helper()
	for _, f := range facts {
		var err error
		r, err = r.Apply(f)
		require.NoError(t, err)
	}
	return r
}

func TestBody(t *testing.T) {
	t0 := time.Date(2026, 5, 6, 7, 8, 9, 0, time.FixedZone("x", 3600))
	spec := &task.Spec{ID: "t1", Prompt: "p", Steps: task.Texts("s"), CallbackURL: "http://x", Metadata: map[string]string{"k": "v"}}
	running := apply(t, task.Record{}, task.Fact{Event: task.Submitted, At: t0, Spec: spec}, task.Fact{Event: task.Claimed, At: t0, Attempt: 1})
	_, err := Body("t1", running)
	require.Equal(t, fault.Invalid, fault.KindOf(err))

	step := task.Answer{Text: "one", PromptTokens: 3, OutputTokens: 2}
	last := task.Answer{Text: "", FinishReason: "stop", Model: "glm", PromptTokens: 5, OutputTokens: 4, DataSHA256: "ab"}
	completed := apply(t, running, task.Fact{Event: task.StepDone, At: t0, Answer: &step}, task.Fact{Event: task.Claimed, At: t0, Attempt: 2},
		task.Fact{Event: task.Answered, At: t0.Add(time.Second), Answer: &last})
	b, err := Body("t1", completed)
	require.NoError(t, err)
	require.JSONEq(t, `{"type":"task.completed","timestamp":"2026-05-06T06:08:10Z","data":{"task_id":"t1","state":"completed","version":5,
		"answer":"","finish_reason":"stop","model":"glm","prompt_tokens":8,"completion_tokens":6,"data_sha256":"ab","attempts":2,
		"created_at":"2026-05-06T06:08:09Z","ended_at":"2026-05-06T06:08:10Z","metadata":{"k":"v"}}}`, string(b))

	failure := &task.Failure{Kind: "too_large", Message: "m", Remedy: "r"}
	again := apply(t, completed, task.Fact{Event: task.CallbackLost, At: t0, Attempt: 1, Error: failure}, task.Fact{Event: task.CallbackLost, At: t0, Attempt: 2, Error: failure})
	b2, err := Body("t1", again)
	require.NoError(t, err)
	require.Equal(t, string(b), string(b2), "the body is the same at every try")

	for _, c := range []struct {
		fact task.Fact
		typ  string
	}{{task.Fact{Event: task.Refused, Error: failure}, "task.failed"}, {task.Fact{Event: task.CancelAsked}, "task.cancelled"}} {
		c.fact.At = t0
		b, err := Body("t1", apply(t, running, c.fact))
		require.NoError(t, err)
		var m map[string]any
		require.NoError(t, json.Unmarshal(b, &m))
		require.Equal(t, c.typ, m["type"])
		data := m["data"].(map[string]any)
		require.NotContains(t, data, "answer")
		if c.typ == "task.failed" {
			require.Equal(t, map[string]any{"kind": "too_large", "message": "m", "remedy": "r"}, data["error"])
		} else {
			require.NotContains(t, data, "error")
		}
	}
}

func TestLoadOrCreateSecret(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "callback.secret")
	var all sync.WaitGroup
	got := make([]string, 8)
	for i := range got {
		all.Go(func() {
			s, err := LoadOrCreateSecret(path)
			if err == nil {
				got[i] = s
			}
		})
	}
	all.Wait()
	for _, s := range got {
		require.Equal(t, got[0], s, "all get the same")
	}
	_, err := New(Options{Secret: got[0]})
	require.NoError(t, err)
	st, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "nothing is left lying about")

	require.NoError(t, os.Chmod(path, 0o644))
	_, err = LoadOrCreateSecret(path)
	require.Equal(t, fault.Refused, fault.KindOf(err))
	require.ErrorContains(t, err, "chmod 600")
	require.NoError(t, os.Chmod(path, 0o600))
	require.NoError(t, os.WriteFile(path, []byte("whsec_geheim!"), 0o600))
	_, err = LoadOrCreateSecret(path)
	require.Equal(t, fault.Corrupt, fault.KindOf(err))
	require.NotContains(t, err.Error(), "geheim")
	_, err = LoadOrCreateSecret(filepath.Join(dir, "none", "x"))
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
}
