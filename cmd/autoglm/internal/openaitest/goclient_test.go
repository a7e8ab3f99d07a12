package openaitest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/require"
)

const (
	goVersion = "3.96.0" // docs/openai.md names it

	endsWithin = 90 * time.Second
	pollEvery  = 50 * time.Millisecond
)

// TestTheGoClientOnThreeNodes goes to the next node with each step.
func TestTheGoClientOnThreeNodes(t *testing.T) {
	k := start(t)
	r := goRun{t: t, k: k, ids: map[string]string{}, names: map[string]string{}}
	for _, url := range k.urls {
		r.clients = append(r.clients, openai.NewClient(option.WithBaseURL(url), option.WithAPIKey("any"), option.WithWebhookSecret(k.secret),
			option.WithMiddleware(func(req *http.Request, next option.MiddlewareNext) (*http.Response, error) {
				r.said = req.Header.Get("User-Agent")
				return next(req)
			})))
	}
	rep := report{Batches: map[string]outcome{}, Errors: map[string]refusal{}}
	r.create("expired", expires)
	r.create("completed", "24h")
	rep.Batches["completed"] = r.outcome("completed")
	r.create("cancelled", "24h")
	r.poll("cancelled", func(b *openai.Batch) bool { return b.RequestCounts.Completed == 1 })
	b, err := r.next().Batches.Cancel(t.Context(), r.ids["cancelled"])
	require.NoError(t, err)
	cancelled := r.outcome("cancelled")
	cancelled.Cancelled = b.Status == openai.BatchStatusCancelling
	rep.Batches["cancelled"] = cancelled
	r.create("failed", "24h")
	for _, name := range []string{"failed", "expired"} {
		rep.Batches[name] = r.outcome(name)
	}
	rep.Listed = r.list()
	r.refusals(rep.Errors)
	rep.Client = r.said
	check(t, rep, "OpenAI/Go "+goVersion, map[int]string{400: "Error", 404: "Error", 409: "Error"})
}

type goRun struct {
	t          *testing.T
	k          *cluster
	clients    []openai.Client // of each node
	turn       int
	said       string            // of itself
	ids, names map[string]string // of batches, by each other
}

func (r *goRun) next() *openai.Client {
	r.turn++
	return &r.clients[r.turn%len(r.clients)]
}

func (r *goRun) create(name, window string) {
	ctx := r.t.Context()
	f, err := r.next().Files.New(ctx, openai.FileNewParams{File: openai.File(strings.NewReader(inputs()[name]), name+".jsonl", "application/jsonl"), Purpose: openai.FilePurposeBatch})
	require.NoError(r.t, err)
	b, err := r.next().Batches.New(ctx, openai.BatchNewParams{InputFileID: f.ID, Endpoint: openai.BatchNewParamsEndpointV1ChatCompletions,
		CompletionWindow: openai.BatchNewParamsCompletionWindow(window), Metadata: map[string]string{"name": name}})
	require.NoError(r.t, err)
	r.ids[name], r.names[b.ID] = b.ID, name
}

func (r *goRun) poll(name string, ok func(*openai.Batch) bool) *openai.Batch {
	ctx, cancel := context.WithTimeout(r.t.Context(), endsWithin)
	defer cancel()
	again := time.NewTicker(pollEvery)
	defer again.Stop()
	for {
		b, err := r.next().Batches.Get(ctx, r.ids[name])
		require.NoError(r.t, err)
		require.Equal(r.t, name, b.Metadata["name"])
		if ok(b) {
			return b
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			require.Fail(r.t, "the batch does not come so far", "%s", b.RawJSON())
		}
	}
}

func (r *goRun) outcome(name string) outcome {
	b := r.poll(name, func(b *openai.Batch) bool {
		return b.CompletedAt+b.FailedAt+b.ExpiredAt+b.CancelledAt > 0
	})
	o := outcome{Status: string(b.Status), Counts: [3]int64{b.RequestCounts.Total, b.RequestCounts.Completed, b.RequestCounts.Failed}, Output: []string{}}
	for _, l := range r.download(b.OutputFileID) {
		o.Output = append(o.Output, l.CustomID+" "+l.Response.Body.Choices[0].Message.Content)
	}
	for _, l := range r.download(b.ErrorFileID) {
		code := l.Error.Code
		if l.Response != nil {
			code = l.Response.Body.Error.Code
		}
		o.Errors = append(o.Errors, l.CustomID+" "+code)
	}
	for _, e := range b.Errors.Data {
		o.Errors = append(o.Errors, fmt.Sprint(e.Line)+" "+e.Code)
	}

	res, err := http.Get(r.k.hooks + "/" + b.ID)
	require.NoError(r.t, err)
	defer res.Body.Close()
	require.Equal(r.t, http.StatusOK, res.StatusCode, "the webhook of the %s batch", name)
	var h hook
	require.NoError(r.t, json.NewDecoder(res.Body).Decode(&h))
	headers := http.Header{}
	for k, v := range h.Headers {
		headers.Set(k, v)
	}
	c := r.next()
	e, err := c.Webhooks.Unwrap([]byte(h.Body), headers)
	require.NoError(r.t, err)
	o.Webhook = e.Type
	if _, err := c.Webhooks.Unwrap([]byte(h.Body+" "), headers); err != nil {
		o.Tampered = refused
	}
	return o
}

type line struct {
	CustomID string `json:"custom_id"`
	Response *struct {
		Body struct {
			Choices []struct {
				Message struct {
					Content string `json:"content"`
				} `json:"message"`
			} `json:"choices"`
			Error struct {
				Code string `json:"code"`
			} `json:"error"`
		} `json:"body"`
	} `json:"response"`
	Error struct {
		Code string `json:"code"`
	} `json:"error"`
}

func (r *goRun) download(id string) (lines []line) {
	if id == "" {
		return nil
	}
	res, err := r.next().Files.Content(r.t.Context(), id)
	require.NoError(r.t, err)
	defer res.Body.Close()
	sc := bufio.NewScanner(res.Body)
	for sc.Scan() {
		var l line
		require.NoError(r.t, json.Unmarshal(sc.Bytes(), &l), "%s", sc.Text())
		lines = append(lines, l)
	}
	require.NoError(r.t, sc.Err())
	return lines
}

// list is the names that every node lists.
func (r *goRun) list() (names []string) {
	for i := range r.clients {
		var here []string
		pages := r.clients[i].Batches.ListAutoPaging(r.t.Context(), openai.BatchListParams{Limit: openai.Int(2)})
		for pages.Next() {
			here = append(here, r.names[pages.Current().ID])
		}
		require.NoError(r.t, pages.Err())
		if i > 0 {
			require.Equal(r.t, names, here)
		}
		names = here
	}
	return names
}

func (r *goRun) refusals(to map[string]refusal) {
	ctx := r.t.Context()
	completed, err := r.next().Batches.Get(ctx, r.ids["completed"])
	require.NoError(r.t, err)
	in := openai.BatchNewParams{InputFileID: "file-x", Endpoint: openai.BatchNewParamsEndpointV1ChatCompletions, CompletionWindow: openai.BatchNewParamsCompletionWindow24h}
	note := func(name string, _ any, err error) {
		var e *openai.Error
		require.True(r.t, errors.As(err, &e), "%s: %v", name, err)
		to[name] = refusal{"Error", e.StatusCode, e.Type, e.Code, e.Param}
		require.NotEmpty(r.t, e.Message, name)
	}
	ask := func(model, text string) error {
		_, err := r.next().Chat.Completions.New(ctx, openai.ChatCompletionNewParams{Model: model, Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(text)}})
		return err
	}
	b, err := r.next().Batches.Get(ctx, "batch_x")
	note("no such batch", b, err)
	f, err := r.next().Files.Get(ctx, "file-x")
	note("no such file", f, err)
	b, err = r.next().Batches.New(ctx, in)
	note("no such input file", b, err)
	in.InputFileID = completed.InputFileID
	b, err = r.next().Batches.New(ctx, in, option.WithJSONSet("endpoint", "/v1/other"))
	note("wrong endpoint", b, err)
	b, err = r.next().Batches.New(ctx, in, option.WithJSONSet("mixed_model", true))
	note("unknown parameter", b, err)
	b, err = r.next().Batches.Cancel(ctx, r.ids["completed"])
	note("cancel of an ended", b, err)
	note("unknown model", nil, ask("gpt-9", "now"))
	note("the engine's", nil, ask(model, "bad"))
}
