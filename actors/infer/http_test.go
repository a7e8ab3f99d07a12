package infer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// newHTTP makes an engine for a fake server; both end with the test.
func newHTTP(t *testing.T, o HTTPOptions, serve http.HandlerFunc) *HTTP {
	t.Helper()
	s := httptest.NewServer(serve)
	t.Cleanup(s.Close)
	if o.URL == "" {
		o.URL = s.URL
	}
	h, err := NewHTTP(o)
	require.NoError(t, err)
	t.Cleanup(h.Close)
	return h
}

func reply(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

const okBody = `{"id":"x","object":"chat.completion","model":"glm","choices":[{"index":0,"message":{"role":"assistant","content":"2024-05-06"},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":7}}`

func TestNewHTTPReadsTheURL(t *testing.T) {
	for _, c := range []struct{ url, base, root, name string }{
		{"http://h:8000", "http://h:8000/v1", "http://h:8000", "h:8000"},
		{"http://h:8000/", "http://h:8000/v1", "http://h:8000", "h:8000"},
		{"https://h/v1/", "https://h/v1", "https://h", "h"},
		{"https://h/api/paas/v4", "https://h/api/paas/v4", "https://h/api/paas", "h"},
		{"http://[::1]:1/openai?x=1#f", "http://[::1]:1/openai", "http://[::1]:1/openai", "[::1]:1"},
		{"unix:///tmp/a.sock", "http://localhost/v1", "http://localhost", "a.sock"},
	} {
		h, err := NewHTTP(HTTPOptions{URL: c.url})
		require.NoError(t, err, c.url)
		require.Equal(t, c.base, h.base)
		require.Equal(t, c.root, h.root)
		require.Equal(t, c.name, h.Name())
	}
	for _, bad := range []string{"", "h:8000", "ftp://h", "http://", "unix://rel.sock", "unix:", "http://a b", "http://u:secret@h:x"} {
		_, err := NewHTTP(HTTPOptions{URL: bad})
		require.Equal(t, fault.Invalid, fault.KindOf(err), "%q: %v", bad, err)
		require.NotEmpty(t, fault.RemedyOf(err))
		require.NotContains(t, err.Error(), "secret")
	}
	_, err := NewHTTP(HTTPOptions{URL: "http://h", MaxBody: -1})
	require.Equal(t, fault.Invalid, fault.KindOf(err))
}

func TestHTTPSendsWhatWasAskedAndNoMore(t *testing.T) {
	var got struct {
		path, key, auth string
		trace           []string
		body            map[string]any
	}
	h := newHTTP(t, HTTPOptions{APIKey: "k"}, func(w http.ResponseWriter, r *http.Request) {
		got.path, got.key, got.auth, got.body = r.URL.Path, r.Header.Get("X-Request-Id"), r.Header.Get("Authorization"), nil
		got.trace = r.Header["Traceparent"]
		require.NoError(t, json.NewDecoder(r.Body).Decode(&got.body))
		io.WriteString(w, okBody)
	})
	r, err := h.Do(t.Context(), &Request{Model: "glm", Messages: []Message{{Role: "user", Content: "6 May <2024>"}}, Key: "täsk\n/1", Trace: "00-a-b-01"})
	require.NoError(t, err)
	require.Equal(t, &Response{Text: "2024-05-06", FinishReason: "stop", Model: "glm", PromptTokens: 12, OutputTokens: 7}, r)
	require.Equal(t, "/v1/chat/completions", got.path)
	require.Equal(t, "t?sk?/1", got.key)
	require.Equal(t, "Bearer k", got.auth)
	require.Equal(t, []string{"00-a-b-01"}, got.trace)
	require.Equal(t, map[string]any{"model": "glm", "messages": []any{map[string]any{"role": "user", "content": "6 May <2024>"}}}, got.body)

	zero, seed := 0.0, int64(7)
	_, err = h.Do(t.Context(), &Request{Messages: []Message{{Role: "user", Content: "x"}}, MaxTokens: 9, Temperature: &zero, TopP: &zero, Seed: &seed, Stop: []string{"."}, Format: json.RawMessage(`{"type":"json_object"}`)})
	require.NoError(t, err)
	require.Equal(t, map[string]any{"messages": []any{map[string]any{"role": "user", "content": "x"}}, "max_tokens": 9.0, "temperature": 0.0,
		"top_p": 0.0, "seed": 7.0, "stop": []any{"."}, "response_format": map[string]any{"type": "json_object"}}, got.body)
	require.Empty(t, got.trace)

	_, err = h.Do(t.Context(), &Request{Format: json.RawMessage(`{`)})
	require.Equal(t, fault.Invalid, fault.KindOf(err))
}

func TestHTTPMapsEveryAnswer(t *testing.T) {
	choice := func(s string) string { return `{"choices":[` + s + `]}` }
	for _, c := range []struct {
		status int
		body   string
		kind   fault.Kind
		text   string // in the answer, or in the error
	}{
		{200, choice(`{"message":{"content":""},"finish_reason":"stop"}`), 0, ""},
		{200, choice(`{"message":{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}}`), 0, "ab"},
		{200, choice(``), fault.Malformed, "without choices"},
		{200, `{}`, fault.Malformed, "without choices"},
		{200, choice(`{"message":{"content":null},"finish_reason":"stop"}`), fault.Malformed, `content null (finish_reason "stop")`},
		{200, choice(`{"message":{}}`), fault.Malformed, "content null"},
		{200, choice(`{"message":{"content":null},"finish_reason":"length"}`), fault.Invalid, "raise max_tokens"},
		{200, choice(`{"message":{"content":null,"refusal":"no"}}`), fault.Refused, "the model refused: no"},
		{200, choice(`{"message":{"content":null},"finish_reason":"content_filter"}`), fault.Refused, "content filter"},
		{200, choice(`{"message":{"content":null,"tool_calls":[{}]},"finish_reason":"tool_calls"}`), fault.Invalid, "tool"},
		{200, choice(`{"message":{"content":5}}`), fault.Unavailable, "no chat completion"},
		{200, `<html>hello</html>`, fault.Unavailable, "OpenAI-compatible"},
		{200, ``, fault.Unavailable, "no chat completion"},
		{200, `{"error":{"message":"boom"}}`, fault.Unavailable, "boom"},
		{200, `{"error":null,"choices":[{"message":{"content":"x"}}]}`, 0, "x"},
		{200, `{"error":{"message":"m","code":"context_length_exceeded"}}`, fault.TooLarge, "m"},
		{302, ``, fault.Unavailable, "redirects are not followed"},
		{400, `{"error":{"message":"bad temperature","code":null}}`, fault.Invalid, "bad temperature"},
		{400, `{"error":{"message":"m","code":"context_length_exceeded"}}`, fault.TooLarge, "shorten"},
		{400, `{"object":"error","message":"This model's maximum context length is 4096 tokens.","code":400}`, fault.TooLarge, "4096"},
		{400, `{"error":{"code":400,"message":"m","type":"exceed_context_size_error"}}`, fault.TooLarge, "m"},
		{401, `{"error":"no key"}`, fault.Refused, "check the engine's API key"},
		{403, `no`, fault.Refused, "answered 403: no"},
		{404, `{"detail":"Not Found"}`, fault.NotFound, "Not Found"},
		{408, ``, fault.Timeout, "no message"},
		{413, ``, fault.TooLarge, "413"},
		{422, `{"detail":[{"loc":["body","messages"],"msg":"field required"}]}`, fault.Invalid, "field required"},
		{429, `{"error":{"message":"slow down"}}`, fault.Overloaded, "slow down"},
		{500, `oops`, fault.Unavailable, "oops"},
		{502, `<html>` + strings.Repeat("x ", 2000), fault.Unavailable, "…"},
		{503, `{"error":{"code":503,"message":"Loading model"}}`, fault.Overloaded, "Loading model"},
		{504, ``, fault.Unavailable, "504"},
	} {
		t.Run(fmt.Sprintf("%d %.60s", c.status, c.body), func(t *testing.T) {
			h := newHTTP(t, HTTPOptions{Name: "e"}, reply(c.status, c.body))
			r, err := h.Do(t.Context(), ask("x"))
			if c.kind == 0 {
				require.NoError(t, err)
				require.Equal(t, c.text, r.Text)
				require.Equal(t, "m", r.Model, "an engine that names no model used the one asked for")
				return
			}
			require.Nil(t, r)
			require.Equal(t, c.kind, fault.KindOf(err), "%v", err)
			require.Contains(t, err.Error(), c.text)
			require.Contains(t, err.Error(), "infer.http e: ")
			require.Less(t, len(err.Error()), 1000)
		})
	}
}

func TestHTTPRetryAfterRidesOnTheError(t *testing.T) {
	for status, want := range map[int]time.Duration{429: 7 * time.Second, 503: 7 * time.Second, 500: 0} {
		h := newHTTP(t, HTTPOptions{}, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
		})
		_, err := h.Do(t.Context(), ask("x"))
		require.Equal(t, want, RetryAfterOf(fmt.Errorf("attempt: %w", err)), "%d", status)
	}
	require.Zero(t, RetryAfterOf(nil))
}

func TestHTTPBoundsTheAnswer(t *testing.T) {
	h := newHTTP(t, HTTPOptions{MaxBody: 1000}, func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < 100 && r.Context().Err() == nil; i++ { // no Content-Length
			w.Write(bytes.Repeat([]byte("x"), 1000))
			w.(http.Flusher).Flush()
		}
	})
	_, err := h.Do(t.Context(), ask("x"))
	require.Equal(t, fault.Malformed, fault.KindOf(err), "another engine may do better")
	require.ErrorContains(t, err, "max_body = 1000")
}

func TestHTTPDeadlines(t *testing.T) {
	arrived := make(chan struct{}, 1)
	hang := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // else the server does not notice that the client left
		arrived <- struct{}{}
		<-r.Context().Done()
	}
	h := newHTTP(t, HTTPOptions{Timeout: 20 * time.Millisecond}, hang)
	_, err := h.Do(t.Context(), ask("x"))
	require.Equal(t, fault.Timeout, fault.KindOf(err), "%v", err)
	<-arrived

	h = newHTTP(t, HTTPOptions{}, hang)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = h.Do(ctx, ask("x"))
	require.Equal(t, fault.Timeout, fault.KindOf(err), "%v", err)
	<-arrived

	ctx, stop := context.WithCancel(t.Context())
	go func() { <-arrived; stop() }()
	_, err = h.Do(ctx, ask("x"))
	require.Equal(t, fault.Unavailable, fault.KindOf(err), "%v", err)
	require.ErrorIs(t, err, context.Canceled)
}

// A server that dies in the middle: connection refused, closed before the answer, reset, cut short.
func TestHTTPUnavailable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	refused := "http://" + l.Addr().String()
	require.NoError(t, l.Close())
	hijack := func(do func(net.Conn)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				do(c)
				c.Close()
			}
		}
	}
	for name, c := range map[string]struct {
		url   string
		serve http.HandlerFunc
	}{
		"refused":   {refused, nil},
		"no socket": {"unix://" + filepath.Join(t.TempDir(), "none.sock"), nil},
		"closed":    {"", hijack(func(net.Conn) {})},
		"reset":     {"", hijack(func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) })},
		"cut": {"", hijack(func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"choices\"")
		})},
		"gibberish": {"", hijack(func(c net.Conn) { io.WriteString(c, "SSH-2.0-OpenSSH\r\n") })},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHTTP(t, HTTPOptions{URL: c.url, Name: "e"}, c.serve)
			_, err := h.Do(t.Context(), ask("x"))
			require.Equal(t, fault.Unavailable, fault.KindOf(err), "%v", err)
			require.ErrorContains(t, err, "infer.http e: ")
		})
	}
}

func TestHTTPHealthAndModels(t *testing.T) {
	var health atomic.Int32
	health.Store(200)
	h := newHTTP(t, HTTPOptions{}, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/health":
			w.WriteHeader(int(health.Load()))
		case "/v1/models":
			io.WriteString(w, `{"object":"list","data":[{"id":"glm"},{"id":""},{"id":"glm-2"},{"id":"glm"}]}`)
		default:
			w.WriteHeader(404)
		}
	})
	require.NoError(t, h.Health(t.Context()))
	health.Store(503)
	require.Equal(t, fault.Overloaded, fault.KindOf(h.Health(t.Context())))
	health.Store(404)
	require.NoError(t, h.Health(t.Context()), "an engine without /health is asked for its models")
	models, err := h.Models(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"glm", "glm-2"}, models)

	for _, body := range []string{`{"data":[]}`, `{}`, `[]`, `no`} {
		h := newHTTP(t, HTTPOptions{}, reply(200, body))
		_, err := h.Models(t.Context())
		require.Equal(t, fault.Unavailable, fault.KindOf(err), body)
	}
	h, err = NewHTTP(HTTPOptions{URL: "http://127.0.0.1:1", Models: []string{"a"}})
	require.NoError(t, err)
	models, err = h.Models(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, models)
}

func TestHTTPCountTokens(t *testing.T) {
	vllm := func(in map[string]any) (int, string) {
		if len(in["messages"].([]any)) != 1 || in["model"] != "m" {
			return 500, ""
		}
		return 200, `{"count":5,"max_model_len":9,"tokens":[1,2,3,4,5]}`
	}
	strict := func(in map[string]any) (int, string) {
		if in["content"] != nil {
			return 400, `{"error":{"message":"unknown parameter"}}`
		}
		return 200, `{"count":5}`
	}
	llama := func(in map[string]any) (int, string) {
		if in["content"] == "a b\n" {
			return 200, `{"tokens":[{"id":1},2,3,4,5]}`
		}
		return 200, `{"tokens":[]}`
	}
	odd := func(map[string]any) (int, string) { return 400, `{"error":"no"}` }
	busy := func(map[string]any) (int, string) { return 503, "" }
	none := func(map[string]any) (int, string) { return 404, "" }
	for _, c := range []struct {
		name   string
		answer func(map[string]any) (int, string)
		kind   fault.Kind
		asked  int32 // by three counts
	}{
		{"vllm", vllm, 0, 3}, {"strict", strict, 0, 3}, {"llama", llama, 0, 4}, {"odd", odd, fault.Invalid, 6},
		{"busy", busy, fault.Overloaded, 3}, {"none", none, fault.NotFound, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked atomic.Int32
			h := newHTTP(t, HTTPOptions{}, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				require.Equal(t, "/tokenize", r.URL.Path)
				var in map[string]any
				require.NoError(t, json.NewDecoder(r.Body).Decode(&in))
				if in["messages"] == nil {
					in["messages"] = []any{}
				}
				status, body := c.answer(in)
				w.WriteHeader(status)
				io.WriteString(w, body)
			})
			for range 3 {
				n, err := h.CountTokens(t.Context(), "m", ask("a b").Messages)
				require.Equal(t, c.kind, fault.KindOf(err), "%v", err)
				if err == nil {
					require.Equal(t, 5, n)
				}
			}
			require.Equal(t, c.asked, asked.Load())
		})
	}
}

func TestHTTPOverAUnixSocketReusesConnections(t *testing.T) {
	dir, err := os.MkdirTemp("", "g") // short: a socket's path has 108 bytes
	require.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	require.NoError(t, err)
	var conns atomic.Int32
	s := &http.Server{Handler: reply(200, okBody), ConnState: func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	h, err := NewHTTP(HTTPOptions{URL: "unix://" + l.Addr().String()})
	require.NoError(t, err)
	t.Cleanup(h.Close)
	for range 20 {
		_, err := h.Do(t.Context(), ask("x"))
		require.NoError(t, err)
	}
	require.EqualValues(t, 1, conns.Load())
	require.Equal(t, "s at http://localhost/v1", h.String())
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(okBody))
	f.Add([]byte(`{"error":{"code":1.5,"message":["x"]}}`))
	f.Add([]byte(`{"choices":[{"message":{"content":[]}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeChat("e", ask("x"), b)
		if (r == nil) == (err == nil) {
			t.Fatal("either an answer or an error")
		}
		decodeModels("e", b)
		decodeTokenize("e", b)
		decodeError(b)
	})
}

func BenchmarkHTTP(b *testing.B) {
	s := httptest.NewServer(reply(200, okBody))
	defer s.Close()
	h, err := NewHTTP(HTTPOptions{URL: s.URL})
	require.NoError(b, err)
	defer h.Close()
	for b.Loop() {
		if _, err := h.Do(b.Context(), ask("6 May 2024")); err != nil {
			b.Fatal(err)
		}
	}
}
