package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/node/api/apitest"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// reply is an answer with its body read.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// send makes a request; headers are "Name: value".
func send(t *testing.T, method, url, body string, headers ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	for _, h := range headers {
		k, v, _ := strings.Cut(h, ": ")
		if k == "Host" {
			req.Host = v
		}
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	for k, v := range resp.Trailer {
		resp.Header[k] = v
	}
	return reply{resp.StatusCode, resp.Header, b}
}

func (r reply) problem(t *testing.T, status int) wire.Problem {
	t.Helper()
	require.Equal(t, status, r.status, string(r.body))
	require.Equal(t, wire.ProblemType, r.header.Get("Content-Type"))
	p := decode[wire.Problem](t, r.body)
	require.Equal(t, status, p.Status)
	require.Equal(t, "urn:autoglm:problem:"+p.Kind, p.Type)
	require.NotEmpty(t, p.Title)
	require.NotEmpty(t, p.Detail)
	require.NotEmpty(t, p.RequestID)
	return p
}

func decode[T any](t *testing.T, b []byte) (v T) {
	t.Helper()
	require.NoError(t, json.Unmarshal(b, &v), string(b))
	return v
}

const (
	asJSON   = "Content-Type: application/json"
	asNDJSON = "Content-Type: application/x-ndjson"
)

func TestSubmitOne(t *testing.T) {
	base := apitest.Serve(t, apitest.New())
	r := send(t, "POST", base+"/v1/tasks", `{"task_id":"a b","prompt":"p"}`, asJSON)
	require.Equal(t, 201, r.status, string(r.body))
	require.Equal(t, "/v1/tasks/a%20b", r.header.Get("Location"))
	require.Equal(t, `"1"`, r.header.Get("ETag"))
	got := decode[wire.Submitted](t, r.body)
	require.Equal(t, wire.Submitted{ID: "a b", State: task.Pending, Version: 1}, got)

	r = send(t, "POST", base+"/v1/tasks", `{"prompt":"p","task_id":"a b"}`, asJSON)
	require.Equal(t, 200, r.status)
	require.True(t, decode[wire.Submitted](t, r.body).Existed)

	p := send(t, "POST", base+"/v1/tasks", `{"prompt":"q","task_id":"a b"}`, asJSON).problem(t, 409)
	require.Equal(t, "conflict", p.Kind)
	require.Equal(t, "a b", p.Key)
	require.NotEmpty(t, p.Remedy)

	r = send(t, "POST", base+"/v1/tasks", `{"prompt":"p"}`, asJSON)
	require.Equal(t, 201, r.status)
	require.Len(t, decode[wire.Submitted](t, r.body).ID, 36)
}

func TestRefusals(t *testing.T) {
	f := apitest.New()
	lim := api.DefaultLimits()
	lim.BodyMax, lim.ArrayMax = 2000, 2
	base := apitest.Serve(t, f, api.WithLimits(lim))
	send(t, "POST", base+"/v1/tasks", `{"task_id":"done","prompt":"p"}`, asJSON)
	f.Claim("done")
	f.Answer("done", "x")
	for _, tc := range []struct {
		name, method, path, body string
		headers                  []string
		status                   int
		key, detail              string
	}{
		{"unknown field", "POST", "/v1/tasks", `{"promt":"p"}`, []string{asJSON}, 422, "promt", "no field"},
		{"bad value", "POST", "/v1/tasks", `{"prompt":"p","priority":12}`, []string{asJSON}, 422, "priority", "priority is 12: use high, normal or low, or a number from 0 (first) to 9 (last)"},
		{"malformed", "POST", "/v1/tasks", `{"prompt":`, []string{asJSON}, 400, "", "too early"},
		{"no content type", "POST", "/v1/tasks", `{}`, nil, 415, "Content-Type", "not understood"},
		{"a browser's form", "POST", "/v1/tasks", `{}`, []string{"Content-Type: text/plain"}, 415, "Content-Type", "not understood"},
		{"packed", "POST", "/v1/tasks", `{}`, []string{asJSON, "Content-Encoding: br"}, 415, "Content-Encoding", "not understood"},
		{"body too long", "POST", "/v1/tasks", `{"prompt":"` + strings.Repeat("p", 2000) + `"}`, []string{asJSON}, 413, "", "http.body_max"},
		{"array too long", "POST", "/v1/tasks", `[{},{},{}]`, []string{asJSON}, 413, "", "http.array_max"},
		{"nothing of an array is good", "POST", "/v1/tasks", `[{"promt":"p"},3]`, []string{asJSON}, 422, "promt", "none of 2 tasks"},
		{"unknown task", "GET", "/v1/tasks/nope", "", nil, 404, "nope", "no such task"},
		{"unknown task waited for", "GET", "/v1/tasks/nope?wait=1s", "", nil, 404, "nope", "no such task"},
		{"wait too long", "GET", "/v1/tasks/done?wait=1h", "", nil, 422, "wait", "use 0s to 5m"},
		{"bad wait", "GET", "/v1/tasks/done?wait=soon", "", nil, 422, "wait", ""},
		{"bad limit", "GET", "/v1/tasks?limit=5000", "", nil, 422, "limit", ""},
		{"bad state", "GET", "/v1/tasks?state=gone", "", nil, 422, "state", ""},
		{"bad cursor", "GET", "/v1/tasks?cursor=x", "", nil, 422, "cursor", "no cursor"},
		{"misspelt filter", "GET", "/v1/tasks?metdata.job=x", "", nil, 422, "metdata.job", "no parameter"},
		{"filter twice", "GET", "/v1/tasks?metadata.a=1&metadata.a=2", "", nil, 422, "metadata.a", "once"},
		{"cancel a completed task", "POST", "/v1/tasks/done/cancel", "", nil, 409, "done", "completed already"},
		{"cancel with nonsense", "POST", "/v1/tasks/done/cancel", `{"raison":"x"}`, []string{asJSON}, 422, "raison", ""},
		{"cancel unknown", "POST", "/v1/tasks/nope/cancel", "", nil, 404, "nope", ""},
		{"events of unknown", "GET", "/v1/tasks/nope/events", "", nil, 404, "nope", ""},
		{"follow unknown", "GET", "/v1/tasks/nope/events", "", []string{"Accept: text/event-stream"}, 404, "nope", ""},
		{"bad event id", "GET", "/v1/tasks/done/events", "", []string{"Last-Event-ID: x"}, 422, "Last-Event-ID", ""},
		{"results in no final state", "GET", "/v1/results?state=pending", "", nil, 422, "state", "use completed"},
		{"results with a bad cursor", "GET", "/v1/results?cursor=x", "", nil, 422, "cursor", "no cursor"},
		{"results with a misspelt filter", "GET", "/v1/results?folow=1", "", nil, 422, "folow", "no parameter"},
		{"backup to a relative folder", "POST", "/v1/admin/backup", `{"dir":"x"}`, []string{asJSON}, 422, "dir", "absolute"},
		{"backup through a proxy", "POST", "/v1/admin/backup", `{"dir":"/x"}`, []string{asJSON, "X-Forwarded-For: 1.2.3.4"}, 403, "", "own machine"},
		{"no such path", "GET", "/v2/nothing", "", nil, 404, "/v2/nothing", "nothing at"},
		{"wrong method", "PUT", "/v1/tasks/done", "", nil, 405, "PUT", "does not take PUT"},
		{"foreign host", "GET", "/v1/status", "", []string{"Host: evil.example"}, 421, "Host", "no name of this machine"},
		{"page of another site", "POST", "/v1/tasks", `{"prompt":"p"}`, []string{asJSON, "Sec-Fetch-Site: cross-site"}, 403, "Origin", "other sites"},
		{"old browser's page of another site", "POST", "/v1/tasks", `{"prompt":"p"}`, []string{asJSON, "Origin: http://evil.example"}, 403, "Origin", "other sites"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := send(t, tc.method, base+tc.path, tc.body, tc.headers...).problem(t, tc.status)
			require.Equal(t, tc.key, p.Key)
			require.Contains(t, p.Detail, tc.detail)
		})
	}
	require.Equal(t, "GET, DELETE, HEAD", send(t, "PUT", base+"/v1/tasks/done", "").header.Get("Allow"))
}

// Each kind of fault has one status, and those that pass say when to come back.
func TestKindsBecomeStatuses(t *testing.T) {
	status := map[fault.Kind]int{fault.Unknown: 500, fault.Invalid: 422, fault.NotFound: 404, fault.Conflict: 409, fault.Fenced: 503,
		fault.Unavailable: 503, fault.Overloaded: 429, fault.NoSpace: 507, fault.TooLarge: 413, fault.Timeout: 504, fault.Corrupt: 500,
		fault.Refused: 403, fault.Malformed: 502}
	f := apitest.New()
	var kind fault.Kind
	f.BeforeSubmit = func([]*task.Spec) error {
		return fault.New(kind, "fake.submit", "the-key", "the cause").WithRemedy("the remedy")
	}
	base := apitest.Serve(t, f)
	for k := fault.Unknown; k == fault.Unknown || k.String() != "unknown"; k++ {
		kind = k
		require.Contains(t, status, k)
		r := send(t, "POST", base+"/v1/tasks", `{"prompt":"p"}`, asJSON)
		p := r.problem(t, status[k])
		require.Equal(t, k.String(), p.Kind)
		want := "the-key: the cause"
		if k == fault.Invalid || k == fault.TooLarge {
			want = "the-key the cause" // a field's message is a predicate
		}
		require.Equal(t, want, p.Detail)
		require.Equal(t, "the remedy", p.Remedy)
		require.Equal(t, k.Retryable(), r.header.Get("Retry-After") != "", k)
	}
}

func TestGet(t *testing.T) {
	f := apitest.New()
	base := apitest.Serve(t, f)
	send(t, "POST", base+"/v1/tasks", `{"task_id":"a","prompt":"p","steps":["s"],"metadata":{"k":"v"},"callback_url":"http://x/"}`, asJSON)
	f.Claim("a")
	f.Answer("a", "one")
	f.Claim("a")
	f.Answer("a", "two")
	r := send(t, "GET", base+"/v1/tasks/a", "")
	require.Equal(t, 200, r.status, string(r.body))
	require.Equal(t, `"5"`, r.header.Get("ETag"))
	got := decode[wire.Task](t, r.body)
	require.Equal(t, "a", got.ID)
	require.Equal(t, task.Completed, got.State)
	require.Equal(t, "two", got.Answer)
	require.Equal(t, []string{"one", "two"}, got.Answers)
	require.Equal(t, wire.Usage{PromptTokens: 6, CompletionTokens: 4, TotalTokens: 10}, got.Usage)
	require.Equal(t, task.Normal, *got.Priority)
	require.Equal(t, "v", got.Metadata["k"])
	require.Equal(t, task.CallbackWaiting, got.Callback.State)
	require.Len(t, got.Attempts, 2)
	require.NotNil(t, got.EndedAt)

	r = send(t, "GET", base+"/v1/tasks/a", "", `If-None-Match: "4", W/"5"`)
	require.Equal(t, 304, r.status)
	require.Empty(t, r.body)
	require.Equal(t, 200, send(t, "GET", base+"/v1/tasks/a", "", `If-None-Match: "4"`).status)
}

func TestGetWaits(t *testing.T) {
	f := apitest.New()
	base := apitest.Serve(t, f)
	send(t, "POST", base+"/v1/tasks", `{"task_id":"a","prompt":"p"}`, asJSON)
	r := send(t, "GET", base+"/v1/tasks/a?wait=1ms", "")
	require.Equal(t, task.Pending, decode[wire.Task](t, r.body).State)
	got := make(chan reply)
	go func() { got <- send(t, "GET", base+"/v1/tasks/a?wait=1m", "") }()
	f.Claim("a")
	f.Answer("a", "x")
	require.Equal(t, task.Completed, decode[wire.Task](t, (<-got).body).State)
}

func TestCancel(t *testing.T) {
	base := apitest.Serve(t, apitest.New())
	send(t, "POST", base+"/v1/tasks", `{"task_id":"a","prompt":"p"}`, asJSON)
	for range 2 { // the second time changes nothing
		r := send(t, "POST", base+"/v1/tasks/a/cancel", `{"reason":"enough"}`, asJSON)
		require.Equal(t, 200, r.status, string(r.body))
		require.Equal(t, task.Cancelled, decode[wire.Task](t, r.body).State)
	}
	h := decode[wire.History](t, send(t, "GET", base+"/v1/tasks/a/events", "").body)
	require.Len(t, h.Events, 2)
	require.Equal(t, "enough", h.Events[1].Reason)
	h = decode[wire.History](t, send(t, "GET", base+"/v1/tasks/a/events?after=1", "").body)
	require.Len(t, h.Events, 1)
	require.Equal(t, uint64(2), h.Events[0].Version)
}

func TestListPages(t *testing.T) {
	base := apitest.Serve(t, apitest.New())
	for i := range 5 {
		send(t, "POST", base+"/v1/tasks", fmt.Sprintf(`{"task_id":"%d","prompt":"p","metadata":{"even":"%v"}}`, i, i%2 == 0), asJSON)
	}
	var got []string
	cursor := ""
	for {
		l := decode[wire.List](t, send(t, "GET", base+"/v1/tasks?limit=2&metadata.even=true&cursor="+url.QueryEscape(cursor), "").body)
		for _, b := range l.Tasks {
			got = append(got, b.ID)
		}
		if cursor = l.NextCursor; cursor == "" {
			break
		}
	}
	require.Equal(t, []string{"4", "2", "0"}, got)
	require.Contains(t, string(send(t, "GET", base+"/v1/tasks?state=failed", "").body), `"tasks":[]`)
}

func TestSubmitArrayKeepsTheGoodOnes(t *testing.T) {
	base := apitest.Serve(t, apitest.New())
	r := send(t, "POST", base+"/v1/tasks", `[{"task_id":"a","prompt":"p"}, {"prompt":""}, null, {"task_id":"a","prompt":"p"}]`, asJSON)
	require.Equal(t, 200, r.status, string(r.body))
	many := decode[wire.Many](t, r.body)
	require.Equal(t, wire.Summary{Accepted: 1, Existed: 1, Rejected: 2}, many.Summary)
	require.Len(t, many.Results, 4)
	require.Equal(t, "prompt", many.Results[1].Error.Key)
	require.Equal(t, 400, many.Results[2].Error.Status)
	require.Equal(t, 2, many.Results[1].Line)
}

func TestProbesDocsAndMetrics(t *testing.T) {
	f := apitest.New()
	reg := prometheus.NewRegistry()
	base := apitest.Serve(t, f, api.WithMetrics(reg, promhttp.HandlerFor(reg, promhttp.HandlerOpts{})), api.WithVersion("9.9"))
	require.Equal(t, 200, send(t, "GET", base+"/healthz", "").status)
	require.Equal(t, 200, send(t, "GET", base+"/readyz", "").status)
	f.SetReady("shard 3 has no owner")
	r := send(t, "GET", base+"/readyz", "")
	require.Equal(t, 503, r.status)
	require.Contains(t, string(r.body), "shard 3")
	require.False(t, decode[wire.Status](t, send(t, "GET", base+"/v1/status", "").body).Ready)

	docs := send(t, "GET", base+"/docs", "")
	require.Equal(t, 200, docs.status)
	require.NotContains(t, string(docs.body), "<script")
	require.Contains(t, string(docs.body), "/v1/tasks/{id}/events")

	var doc struct {
		OpenAPI string
		Info    struct{ Version string }
		Paths   map[string]map[string]any
		Parts   struct {
			Schemas map[string]map[string]any
		} `json:"components"`
	}
	require.NoError(t, json.Unmarshal(send(t, "GET", base+"/openapi.json", "").body, &doc))
	require.True(t, strings.HasPrefix(doc.OpenAPI, "3.1"))
	require.Equal(t, "9.9", doc.Info.Version)
	for _, route := range []string{"get /v1/tasks", "post /v1/tasks", "get /v1/tasks/{id}", "post /v1/tasks/{id}/cancel", "get /v1/tasks/{id}/events",
		"get /v1/results", "get /v1/status", "post /v1/admin/backup", "get /healthz", "get /readyz", "get /metrics"} {
		method, path, _ := strings.Cut(route, " ")
		require.Contains(t, doc.Paths[path], method, route)
	}
	require.Equal(t, false, doc.Parts.Schemas["Spec"]["additionalProperties"])
	require.NotContains(t, doc.Parts.Schemas["Task"], "additionalProperties") // answers may grow
	for _, name := range []string{"Spec", "Task"} {
		steps := doc.Parts.Schemas[name]["properties"].(map[string]any)["steps"].(map[string]any)
		require.Len(t, steps["items"].(map[string]any)["oneOf"], 2, "a step of a %s is a string or an object", name)
	}
	send(t, "GET", base+"/v1/tasks/one", "")
	send(t, "GET", base+"/v1/tasks/two", "")
	send(t, "BREW", base+"/pot", "")
	metrics := string(send(t, "GET", base+"/metrics", "").body)
	require.Contains(t, metrics, `autoglm_http_requests_total{code="404",method="GET",route="/v1/tasks/{id}"} 2`)
	require.Contains(t, metrics, `autoglm_http_requests_total{code="404",method="other",route="other"} 1`)
}

// TestTheDocumentSaysWhoNeedsAKey: each route that asks for one names the scheme and both refusals.
func TestTheDocumentSaysWhoNeedsAKey(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]struct {
			Security  []map[string][]string
			Responses map[string]struct{ Content map[string]any }
		}
		Components struct {
			SecuritySchemes map[string]struct{ Type, Scheme string }
		}
	}
	require.NoError(t, json.Unmarshal(send(t, "GET", apitest.Serve(t, apitest.New())+"/openapi.json", "").body, &doc))
	require.Equal(t, "http bearer", doc.Components.SecuritySchemes["bearer"].Type+" "+doc.Components.SecuritySchemes["bearer"].Scheme)
	open := 0
	for path, ops := range doc.Paths {
		for method, op := range ops {
			if path == "/healthz" || path == "/readyz" {
				open++
				require.Empty(t, op.Security, path)
				continue
			}
			require.Equal(t, []map[string][]string{{"bearer": {}}}, op.Security, "%s %s", method, path)
			for _, status := range []string{"401", "403"} {
				require.NotEmpty(t, op.Responses[status].Content, "%s %s %s", method, path, status)
			}
		}
	}
	require.Equal(t, 2, open)
}

func TestBackup(t *testing.T) {
	f := apitest.New()
	base := apitest.Serve(t, f)
	dir := filepath.Join(t.TempDir(), "b")
	body := fmt.Sprintf(`{"dir":%q}`, dir)
	res := send(t, "POST", base+"/v1/admin/backup", body, asJSON)
	require.Equal(t, 200, res.status)
	require.NotContains(t, string(res.body), "warning")
	send(t, "POST", base+"/v1/admin/backup", body, asJSON).problem(t, 409)

	f.SetUnowned(3)
	res = send(t, "POST", base+"/v1/admin/backup", fmt.Sprintf(`{"dir":%q}`, dir+"2"), asJSON)
	require.Equal(t, 200, res.status)
	require.Contains(t, string(res.body), "3 shards have no owner")
}

func TestAPanicIsAProblem(t *testing.T) {
	f := apitest.New()
	f.BeforeSubmit = func([]*task.Spec) error { panic("boom") }
	base := apitest.Serve(t, f)
	p := send(t, "POST", base+"/v1/tasks", `{"prompt":"p"}`, asJSON, "X-Request-Id: my-id").problem(t, 500)
	require.Equal(t, "my-id", p.RequestID)
	require.NotContains(t, p.Detail, "boom")
}

func TestRequestsMax(t *testing.T) {
	f := apitest.New()
	entered, leave := make(chan bool), make(chan bool)
	f.BeforeSubmit = func([]*task.Spec) error { entered <- true; <-leave; return nil }
	lim := api.DefaultLimits()
	lim.RequestsMax = 1
	base := apitest.Serve(t, f, api.WithLimits(lim))
	done := make(chan reply)
	go func() { done <- send(t, "POST", base+"/v1/tasks", `{"prompt":"p"}`, asJSON) }()
	<-entered
	p := send(t, "GET", base+"/v1/status", "").problem(t, 429)
	require.Equal(t, "http.requests_max", p.Limit)
	require.Equal(t, 200, send(t, "GET", base+"/healthz", "").status)
	close(leave)
	require.Equal(t, 201, (<-done).status)
}

func TestShutdownEndsStreamsAndThenServe(t *testing.T) {
	f := apitest.New()
	s, err := api.New(f)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	served := make(chan error)
	go func() { served <- s.Serve(l) }()
	base := "http://" + l.Addr().String()
	send(t, "POST", base+"/v1/tasks", `{"task_id":"a","prompt":"p"}`, asJSON)

	resp, err := http.Get(base + "/v1/results?follow=true")
	require.NoError(t, err)
	defer resp.Body.Close()
	in, out := io.Pipe()
	streamed := make(chan string)
	go func() {
		resp, err := http.Post(base+"/v1/tasks", "application/x-ndjson", in)
		if err != nil {
			streamed <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		streamed <- string(b)
	}()
	_, err = io.WriteString(out, `{"task_id":"b","prompt":"p"}`+"\n")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return f.Len() == 2 }, 10*time.Second, time.Millisecond)

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, s.Shutdown(ctx))
	require.NoError(t, s.Shutdown(ctx))
	require.NoError(t, <-served)
	_, err = io.ReadAll(resp.Body)
	require.NoError(t, err)
	got := <-streamed
	require.Contains(t, got, `"task_id":"b"`)
	require.Contains(t, got, "the node is stopping")
	require.NoError(t, out.Close())
}

func TestNewRefusesLimitsThatCannotWork(t *testing.T) {
	_, err := api.New(apitest.New(), api.WithLimits(api.Limits{}))
	require.ErrorContains(t, err, "http.requests_max: is 0")
	_, err = api.New(nil)
	require.Error(t, err)
}

// Behind a public address the Host may be anything; only loopback trusts names.
func TestAnyHostOnOtherAddresses(t *testing.T) {
	s, err := api.New(apitest.New())
	require.NoError(t, err)
	r := httptest.NewRequest("GET", "/v1/status", nil)
	r.Host = "tasks.example.org"
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	require.Equal(t, 200, w.Code)
}
