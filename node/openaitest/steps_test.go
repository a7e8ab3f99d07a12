package openaitest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/stretchr/testify/require"
)

// inputLine is a line of a batch's input.
func inputLine(id, model, content string) string {
	b, err := json.Marshal(map[string]any{"custom_id": id, "method": "POST", "url": "/v1/chat/completions",
		"body": map[string]any{"model": model, "messages": []map[string]string{{"role": "user", "content": content}}}})
	if err != nil {
		panic(err)
	}
	return string(b) + "\n"
}

func inputOf(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(inputLine(fmt.Sprint("c", i), "any", fmt.Sprint("say ", i)))
	}
	return b.String()
}

func putFile(t *testing.T, c openai.Client, text string) string {
	t.Helper()
	f, err := c.Files.New(t.Context(), openai.FileNewParams{File: openai.File(strings.NewReader(text), "in.jsonl", "application/jsonl"), Purpose: openai.FilePurposeBatch})
	require.NoError(t, err)
	return f.ID
}

func newBatch(t *testing.T, c openai.Client, text string, opts ...option.RequestOption) *openai.Batch {
	t.Helper()
	b, err := c.Batches.New(t.Context(), openai.BatchNewParams{InputFileID: putFile(t, c, text), Endpoint: openai.BatchNewParamsEndpointV1ChatCompletions,
		CompletionWindow: openai.BatchNewParamsCompletionWindow24h, Metadata: map[string]string{"k": "v"}}, opts...)
	require.NoError(t, err)
	require.EqualValues(t, "validating", b.Status, "creating does not wait")
	require.EqualValues(t, "batch", b.Object)
	return b
}

// poll asks for a batch as clients do.
func poll(t *testing.T, c openai.Client, id string, ok func(*openai.Batch) bool) *openai.Batch {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		b, err := c.Batches.Get(ctx, id)
		require.NoError(t, err)
		if ok(b) {
			return b
		}
		switch b.Status {
		case openai.BatchStatusCompleted, openai.BatchStatusFailed, openai.BatchStatusExpired, openai.BatchStatusCancelled:
			require.Fail(t, "the batch ended otherwise", "%s", b.RawJSON())
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			require.Fail(t, "the batch does not come so far", "%s", b.RawJSON())
		}
	}
}

func is(status string) func(*openai.Batch) bool {
	return func(b *openai.Batch) bool { return string(b.Status) == status }
}

type outputLine struct {
	ID       string `json:"id"`
	CustomID string `json:"custom_id"`
	Response *struct {
		Status int                   `json:"status_code"`
		Body   openai.ChatCompletion `json:"body"`
	} `json:"response"`
	Error *struct {
		Code string `json:"code"`
	} `json:"error"`
}

func download(t *testing.T, c openai.Client, id string) (lines []outputLine) {
	t.Helper()
	res, err := c.Files.Content(t.Context(), id)
	require.NoError(t, err)
	defer res.Body.Close()
	for sc := bufio.NewScanner(res.Body); sc.Scan(); {
		var l outputLine
		require.NoError(t, json.Unmarshal(sc.Bytes(), &l), "%s", sc.Text())
		lines = append(lines, l)
	}
	return lines
}
