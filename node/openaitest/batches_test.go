package openaitest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/bulk"
	"github.com/open-autoglm/autoglm/actors/callback"
	"github.com/open-autoglm/autoglm/node"
)

// TestABatchWithTheOfficialClient creates, polls, lists and downloads, and verifies the webhook as OpenAI's client does.
func TestABatchWithTheOfficialClient(t *testing.T) {
	type hook struct {
		body   []byte
		header http.Header
	}
	hooks := make(chan hook, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		hooks <- hook{b, r.Header}
	}))
	t.Cleanup(receiver.Close)
	cfg := testConfig(t)
	cfg.Callback.Secret, cfg.Webhook.URLs = node.Secret(callback.NewSecret()), []string{receiver.URL}
	n := boot(t, cfg)
	c := official(n)

	in := inputOf(50) + inputLine("bad", "any", "#echo fail=always kind=invalid\nx")
	b := newBatch(t, c, in)
	b = poll(t, c, b.ID, is("completed"))
	require.Equal(t, openai.BatchRequestCounts{Total: 51, Completed: 50, Failed: 1}, openai.BatchRequestCounts{
		Total: b.RequestCounts.Total, Completed: b.RequestCounts.Completed, Failed: b.RequestCounts.Failed})
	require.Equal(t, "any", b.Model)
	require.Equal(t, "v", b.Metadata["k"])
	require.Positive(t, b.Usage.TotalTokens)
	require.Equal(t, b.Usage.TotalTokens, b.Usage.InputTokens+b.Usage.OutputTokens)
	for _, at := range []int64{b.InProgressAt, b.FinalizingAt, b.CompletedAt} {
		require.Positive(t, at)
	}
	require.Equal(t, b.CreatedAt+24*3600, b.ExpiresAt)

	lines := download(t, c, b.OutputFileID)
	require.Len(t, lines, 50)
	for i, l := range lines {
		require.Equal(t, fmt.Sprint("c", i), l.CustomID)
		require.Equal(t, 200, l.Response.Status)
		require.Equal(t, fmt.Sprint("say ", i), l.Response.Body.Choices[0].Message.Content)
		require.True(t, strings.HasPrefix(l.ID, "batch_req_"))
		require.Nil(t, l.Error)
	}
	failed := download(t, c, b.ErrorFileID)
	require.Len(t, failed, 1)
	require.Equal(t, "bad", failed[0].CustomID)
	file, err := c.Files.Get(t.Context(), b.OutputFileID)
	require.NoError(t, err)
	require.EqualValues(t, "batch_output", file.Purpose)
	require.Equal(t, b.ID+"_output.jsonl", file.Filename)

	hc := openai.NewClient(option.WithWebhookSecret(cfg.Callback.Secret.Reveal()), option.WithAPIKey("any"))
	select {
	case h := <-hooks:
		e, err := hc.Webhooks.Unwrap(h.body, h.header)
		require.NoError(t, err)
		require.Equal(t, "batch.completed", e.Type)
		require.Equal(t, b.ID, e.AsBatchCompleted().Data.ID)
		h.body[len(h.body)-2] ^= 1
		_, err = hc.Webhooks.Unwrap(h.body, h.header)
		require.Error(t, err, "what was changed is refused")
	case <-time.After(30 * time.Second):
		t.Fatal("no webhook came")
	}

	ids := []string{b.ID}
	for range 4 {
		ids = append([]string{newBatch(t, c, inputOf(1)).ID}, ids...)
	}
	var listed []string
	pages := c.Batches.ListAutoPaging(t.Context(), openai.BatchListParams{Limit: openai.Int(2)})
	for pages.Next() {
		listed = append(listed, pages.Current().ID)
	}
	require.NoError(t, pages.Err())
	require.Equal(t, ids, listed, "newest first, over three pages")
	for _, id := range ids {
		poll(t, c, id, is("completed"))
	}
}

// stuck is a node whose engine answers nothing until it is let, but for what says "now".
func stuck(t *testing.T) (n *node.Node, let func()) {
	gate := make(chan struct{})
	n = engineBehind(t, func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Messages []struct {
				Content string `json:"content"`
			} `json:"messages"`
		}
		b, _ := io.ReadAll(r.Body)
		if json.Unmarshal(b, &q) == nil && len(q.Messages) > 0 && !strings.HasPrefix(q.Messages[0].Content, "now") {
			select {
			case <-gate:
			case <-r.Context().Done():
				return
			}
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"ok"}}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`)
	})
	return n, func() { close(gate) }
}

// TestABatchThatIsCancelled also reads its output while it runs.
func TestABatchThatIsCancelled(t *testing.T) {
	n, let := stuck(t)
	defer let()
	c := official(n)
	b := newBatch(t, c, inputLine("now", "glm", "now")+inputLine("c1", "glm", "later")+inputLine("c2", "glm", "later"))
	b = poll(t, c, b.ID, func(b *openai.Batch) bool { return b.RequestCounts.Completed == 1 })
	require.EqualValues(t, "in_progress", b.Status)
	require.NotEmpty(t, b.OutputFileID, "it is there as soon as there is a line")
	require.Empty(t, b.ErrorFileID)
	require.Len(t, download(t, c, b.OutputFileID), 1)
	_, err := c.Files.Delete(t.Context(), b.InputFileID)
	apiError(t, err, 409, "")
	_, err = c.Files.Delete(t.Context(), b.OutputFileID)
	apiError(t, err, 409, "")
	require.Len(t, download(t, c, b.OutputFileID), 1, "what ends later would be nowhere")

	b, err = c.Batches.Cancel(t.Context(), b.ID)
	require.NoError(t, err)
	require.EqualValues(t, "cancelling", b.Status)
	require.Positive(t, b.CancellingAt)
	b = poll(t, c, b.ID, is("cancelled"))
	require.Positive(t, b.CancelledAt)
	require.EqualValues(t, 2, b.RequestCounts.Failed)
	_, err = c.Files.Delete(t.Context(), b.InputFileID)
	require.NoError(t, err)
	for _, l := range download(t, c, b.ErrorFileID) {
		require.Equal(t, "batch_cancelled", l.Error.Code)
		require.Nil(t, l.Response)
	}
	_, err = c.Batches.Cancel(t.Context(), b.ID)
	require.NoError(t, err, "that is what was wanted")

	done := newBatch(t, c, inputLine("now", "glm", "now"))
	poll(t, c, done.ID, is("completed"))
	_, err = c.Batches.Cancel(t.Context(), done.ID)
	e := apiError(t, err, 409, "")
	require.Equal(t, "false", e.Response.Header.Get("X-Should-Retry"))
}

func TestABatchThatExpires(t *testing.T) {
	n, let := stuck(t)
	defer let()
	c := official(n)
	b := newBatch(t, c, inputLine("now", "glm", "now")+inputLine("c1", "glm", "later"), option.WithJSONSet("completion_window", "2s"))
	b = poll(t, c, b.ID, is("expired"))
	require.Positive(t, b.ExpiredAt)
	require.EqualValues(t, 1, b.RequestCounts.Completed)
	require.Len(t, download(t, c, b.OutputFileID), 1)
	failed := download(t, c, b.ErrorFileID)
	require.Len(t, failed, 1)
	require.Equal(t, "batch_expired", failed[0].Error.Code)
}

// TestBadBatches is the reference's list of what is refused, and how.
func TestBadBatches(t *testing.T) {
	n := boot(t, testConfig(t))
	c := official(n)
	ctx := t.Context()
	good := putFile(t, c, inputOf(1))
	params := func(change func(*openai.BatchNewParams)) openai.BatchNewParams {
		p := openai.BatchNewParams{InputFileID: good, Endpoint: "/v1/chat/completions", CompletionWindow: "24h"}
		change(&p)
		return p
	}
	for _, x := range []struct {
		name   string
		p      openai.BatchNewParams
		status int
		param  string
		code   string
	}{
		{"unknown file", params(func(p *openai.BatchNewParams) { p.InputFileID = "file-x" }), 404, "input_file_id", ""},
		{"unknown endpoint", params(func(p *openai.BatchNewParams) { p.Endpoint = "/v1/other" }), 400, "endpoint", ""},
		{"an endpoint that no engine serves", params(func(p *openai.BatchNewParams) { p.Endpoint = "/v1/responses" }), 400, "endpoint", ""},
		{"no endpoint", params(func(p *openai.BatchNewParams) { p.Endpoint = "" }), 400, "endpoint", "missing_required_parameter"},
		{"a bad window", params(func(p *openai.BatchNewParams) { p.CompletionWindow = "soon" }), 400, "completion_window", ""},
		{"no window", params(func(p *openai.BatchNewParams) { p.CompletionWindow = "" }), 400, "completion_window", "missing_required_parameter"},
		{"too long metadata", params(func(p *openai.BatchNewParams) { p.Metadata = map[string]string{"k": strings.Repeat("x", 513)} }), 400, "metadata", ""},
		{"too soon gone", params(func(p *openai.BatchNewParams) {
			p.OutputExpiresAfter = openai.BatchNewParamsOutputExpiresAfter{Seconds: 60}
		}), 400, "output_expires_after.seconds", ""},
	} {
		_, err := c.Batches.New(ctx, x.p)
		e := apiError(t, err, x.status, x.code)
		require.Equal(t, x.param, e.Param, x.name)
		require.Equal(t, "invalid_request_error", e.Type, x.name)
	}
	_, err := c.Batches.New(ctx, params(func(*openai.BatchNewParams) {}), option.WithJSONSet("mixed_model", true))
	e := apiError(t, err, 400, "unknown_parameter")
	require.Equal(t, "mixed_model", e.Param)
	_, err = c.Batches.Get(ctx, "batch_x")
	apiError(t, err, 404, "")
	_, err = c.Batches.Cancel(ctx, "batch_x")
	apiError(t, err, 404, "")
	_, err = c.Batches.List(ctx, openai.BatchListParams{Limit: openai.Int(101)})
	apiError(t, err, 400, "")
	_, err = c.Batches.List(ctx, openai.BatchListParams{After: openai.String("batch_x")})
	apiError(t, err, 400, "")

	line := inputLine("a", "any", "x")
	for _, x := range []struct{ name, in, code, param string }{
		{"no JSON", line + "{\n", "invalid_json_line", ""},
		{"twice", line + line, "duplicate_custom_id", "custom_id"},
		{"another url", strings.Replace(line, "chat/completions", "embeddings", 1), "url_mismatch", "url"},
		{"another model", line + inputLine("b", "other", "x"), "model_mismatch", "body.model"},
		{"blank", "\n", "empty_file", ""},
		{"no custom_id", strings.Replace(line, "custom_id", "customid", 1), "missing_required_parameter", "custom_id"},
		{"no model", strings.Replace(line, `"model"`, `"modl"`, 1), "missing_required_parameter", "body.model"},
		{"a stream", strings.Replace(line, `"model"`, `"stream":true,"model"`, 1), "invalid_request", "body.stream"},
	} {
		b := newBatch(t, c, x.in)
		b = poll(t, c, b.ID, is("failed"))
		require.Positive(t, b.FailedAt)
		require.Len(t, b.Errors.Data, 1, x.name)
		require.Equal(t, x.code, b.Errors.Data[0].Code, x.name)
		require.Equal(t, x.param, b.Errors.Data[0].Param, x.name)
		require.Regexp(t, `^[A-Z'].*\.$`, b.Errors.Data[0].Message, "a sentence, without the steps inside")
		require.Empty(t, b.OutputFileID+b.ErrorFileID)
	}
	odd := "\xef\xbb\xbf" + strings.ReplaceAll(inputOf(2), "\n", "\r\n") + "\r\n\n"
	poll(t, c, newBatch(t, c, odd).ID, is("completed"))
}

// TestTheRestOfBatches is what OpenAI does not have.
func TestTheRestOfBatches(t *testing.T) {
	n := boot(t, testConfig(t))
	c := official(n)
	ctx := t.Context()
	same := option.WithHeader("Idempotency-Key", "k1")
	in := putFile(t, c, inputOf(3)+inputLine("bad", "other", "#echo fail=always kind=invalid\nx"))
	p := openai.BatchNewParams{InputFileID: in, Endpoint: "/v1/chat/completions", CompletionWindow: "7d"}
	mixed := option.WithJSONSet("mixed_models", true)
	b, err := c.Batches.New(ctx, p, same, mixed)
	require.NoError(t, err)
	again, err := c.Batches.New(ctx, p, same, mixed)
	require.NoError(t, err)
	require.Equal(t, b.ID, again.ID)
	_, err = c.Batches.New(ctx, p, same)
	apiError(t, err, 409, "")
	require.Equal(t, b.CreatedAt+7*24*3600, b.ExpiresAt)
	b = poll(t, c, b.ID, is("completed"))
	require.Empty(t, b.Model, "there are two")

	var got struct {
		ID       string `json:"id"`
		RetryOf  string `json:"retry_of"`
		Paused   bool   `json:"paused"`
		Priority int    `json:"priority"`
	}
	require.Equal(t, 200, call(t, n, "POST", "/v1/batches/"+b.ID+"/retry", nil, &got).StatusCode)
	require.Equal(t, b.ID, got.RetryOf)
	next := poll(t, c, got.ID, is("completed"))
	require.EqualValues(t, 1, next.RequestCounts.Total)
	require.Equal(t, 409, call(t, n, "POST", "/v1/batches/"+b.ID+"/pause", nil, nil).StatusCode)

	// A batch of tasks in several steps.
	steps := `{"custom_id":"a","method":"POST","url":"/v1/tasks","body":{"prompt":"one","steps":["two"]}}` + "\n"
	b, err = c.Batches.New(ctx, openai.BatchNewParams{InputFileID: putFile(t, c, steps), Endpoint: bulk.EndpointTasks, CompletionWindow: "24h"})
	require.NoError(t, err)
	b = poll(t, c, b.ID, is("completed"))
	res, err := c.Files.Content(ctx, b.OutputFileID)
	require.NoError(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Contains(t, string(text), `"text":"two"`)
	require.Contains(t, string(text), `{"text":"one"`)

	taken := map[string]string{"task_id": bulk.LineID(b.ID, 7), "prompt": "x"}
	require.Equal(t, 422, call(t, n, "POST", "/v1/tasks", taken, nil).StatusCode, "ids of lines are the batch's")
}

// TestABatchIsPausedAndGoesOn over HTTP.
func TestABatchIsPausedAndGoesOn(t *testing.T) {
	n, let := stuck(t)
	c := official(n)
	b := newBatch(t, c, inputLine("now", "glm", "now")+inputLine("c1", "glm", "later"))
	var got struct {
		Paused   bool `json:"paused"`
		Priority *int `json:"priority"`
	}
	require.Equal(t, 200, call(t, n, "POST", "/v1/batches/"+b.ID+"/pause", map[string]any{}, &got).StatusCode)
	require.True(t, got.Paused)
	require.Equal(t, 200, call(t, n, "POST", "/v1/batches/"+b.ID+"/priority", map[string]int{"priority": 0}, &got).StatusCode)
	require.Zero(t, *got.Priority)
	require.Equal(t, 200, call(t, n, "POST", "/v1/batches/"+b.ID+"/priority", map[string]string{"priority": "high"}, &got).StatusCode)
	require.Equal(t, 2, *got.Priority, "a word is kept, and shown, as its number")
	require.Equal(t, 400, call(t, n, "POST", "/v1/batches/"+b.ID+"/priority", map[string]int{"priority": 10}, nil).StatusCode)
	var refused struct {
		Error struct{ Message, Param string } `json:"error"`
	}
	require.Equal(t, 400, call(t, n, "POST", "/v1/batches/"+b.ID+"/priority", map[string]string{"priority": "urgent"}, &refused).StatusCode)
	require.Equal(t, `'priority' is "urgent": use high, normal or low, or a number from 0 (first) to 9 (last).`, refused.Error.Message)
	require.Equal(t, "priority", refused.Error.Param)
	var doc struct {
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct{ OneOf []struct{ Type string } }
			}
		}
	}
	require.Equal(t, 200, call(t, n, "GET", "/openapi.json", nil, &doc).StatusCode)
	for _, name := range []string{"Spec", "BatchRequest", "PriorityRequest"} {
		require.Len(t, doc.Components.Schemas[name].Properties["priority"].OneOf, 2, "%s: a number or a word", name)
	}
	require.Equal(t, 400, call(t, n, "POST", "/v1/batches/"+b.ID+"/priority", map[string]int{}, nil).StatusCode)
	for _, verb := range []string{"pause", "resume", "cancel", "retry"} {
		require.Equal(t, 400, call(t, n, "POST", "/v1/batches/"+b.ID+"/"+verb, map[string]int{"foo": 1}, nil).StatusCode, verb)
	}
	var on struct {
		Paused bool `json:"paused"`
	}
	require.Equal(t, 200, call(t, n, "POST", "/v1/batches/"+b.ID+"/resume", nil, &on).StatusCode)
	require.False(t, on.Paused)
	let()
	poll(t, c, b.ID, is("completed"))
}
