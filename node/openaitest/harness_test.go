package openaitest

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/node"
)

func testConfig(t *testing.T) node.Config {
	c := node.Default()
	c.DataDir, c.Shards, c.HTTP.Listen, c.Engines = t.TempDir(), 4, "127.0.0.1:0", []node.EngineConfig{{URL: node.EngineEcho}}
	c.Task.BackoffMin, c.Task.BackoffMax = 5*time.Millisecond, 20*time.Millisecond
	c.Task.SlowFactor = 1
	return c
}

func boot(t *testing.T, c node.Config) *node.Node {
	t.Helper()
	n, err := node.New(c, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	require.NoError(t, n.Start(ctx))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		require.NoError(t, n.Stop(ctx))
	})
	return n
}

// official is OpenAI's own client of a node.
func official(n *node.Node) openai.Client {
	return openai.NewClient(option.WithBaseURL("http://"+n.HTTPAddr()+"/v1"), option.WithAPIKey("any"), option.WithMaxRetries(0))
}

// apiError is err as the client has it.
func apiError(t *testing.T, err error, status int, code string) *openai.Error {
	t.Helper()
	var e *openai.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, status, e.StatusCode, "%v", err)
	require.Equal(t, code, e.Code)
	return e
}

// engineBehind is a node whose only engine is serve, which has the model glm.
func engineBehind(t *testing.T, serve http.HandlerFunc) *node.Node {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"data":[{"id":"glm"}]}`) })
	mux.HandleFunc("POST /v1/", serve)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	cfg := testConfig(t)
	cfg.Engines = []node.EngineConfig{{URL: s.URL}}
	n := boot(t, cfg)
	c := official(n)
	require.Eventually(t, func() bool {
		m, err := c.Models.Get(t.Context(), "glm")
		return err == nil && m.ID == "glm"
	}, 20*time.Second, time.Millisecond, "the engine said what it serves")
	return n
}

// call does one request beside the client's and decodes a JSON answer into out, when there is one.
func call(t *testing.T, n *node.Node, method, path string, body any, out any) *http.Response {
	t.Helper()
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		require.NoError(t, err)
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+n.HTTPAddr()+path, r)
	require.NoError(t, err)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	if out != nil {
		require.NoError(t, json.Unmarshal(b, out), "%s", b)
	}
	return res
}

type taskView struct {
	State  string `json:"state"`
	Answer string `json:"answer"`
}
