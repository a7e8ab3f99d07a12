package openaitest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/stretchr/testify/require"
)

// used is what GET /v1/quotas says of the only tenant.
func used(t *testing.T, call func(method, path string, body, out any) int) int {
	var all struct {
		Quotas []struct {
			Used struct {
				Bytes int `json:"bytes"`
			} `json:"used"`
		} `json:"quotas"`
	}
	require.Equal(t, 200, call("GET", "/v1/quotas", nil, &all))
	require.Len(t, all.Quotas, 1)
	return all.Quotas[0].Used.Bytes
}

// TestQuotasAreSetTogether: one that is wrong, wherever it stands, leaves all as they were; and what is used of this minute is shown.
func TestQuotasAreSetTogether(t *testing.T) {
	n := boot(t, testConfig(t))
	do := func(path string, body any, out any) int { return call(t, n, "PUT", path, body, out).StatusCode }
	quota := func(tenant string, requests int) map[string]any {
		return map[string]any{"tenant": tenant, "hard": map[string]int{"requests_per_minute": requests, "tokens_per_minute": 60}} // it comes back more slowly than it is spent
	}
	set := func(all ...map[string]any) map[string]any { return map[string]any{"quotas": all} }
	type entry struct {
		Tenant string
		Used   struct{ Requests, Tokens int }
	}
	list := func() []entry {
		var all struct{ Quotas []entry }
		require.Equal(t, 200, call(t, n, "GET", "/v1/quotas", nil, &all).StatusCode)
		return all.Quotas
	}
	var p struct{ Detail, Remedy string }
	for bad, detail := range map[string]string{"nobody": "document 2: nobody: there is no such tenant: it never had a key; none of the 2 was set", "default": "document 2: tenant default has another document before; none of the 2 was set",
		"A b": `document 2: tenant is "A b": use 1 to 40 of a-z, 0-9 and -, with a letter or digit at both ends; none of the 2 was set`} {
		require.GreaterOrEqual(t, do("/v1/quotas", set(quota("default", 600), quota(bad, 5)), &p), 400, bad)
		require.Equal(t, detail, p.Detail)
		require.Empty(t, list())
	}
	require.Equal(t, 200, do("/v1/quotas", set(quota("default", 60)), nil))
	require.Equal(t, 201, call(t, n, "POST", "/v1/tasks", map[string]string{"task_id": "a", "prompt": "x"}, nil).StatusCode)
	require.Equal(t, 200, call(t, n, "GET", "/v1/tasks/a?wait=20s", nil, nil).StatusCode)
	number := 0
	require.Eventually(t, func() bool {
		number++
		call(t, n, "POST", "/v1/tasks", map[string]string{"task_id": fmt.Sprint(number), "prompt": "x"}, nil) // may be early: 429
		all := list()
		return len(all) == 1 && all[0].Used.Requests > 0 && all[0].Used.Tokens > 0
	}, 20*time.Second, 100*time.Millisecond, "what the node says it has spent is shown")
}

// TestAQuotaOfBytes: prompts, results and files count until they are deleted, to the byte, and what has no room is refused and leaves nothing.
func TestAQuotaOfBytes(t *testing.T) {
	n := boot(t, testConfig(t))
	c := official(n)
	do := func(method, path string, body, out any) int { return call(t, n, method, path, body, out).StatusCode }
	before := map[string]string{"task_id": "before", "prompt": strings.Repeat("x", 100)}
	require.Equal(t, 201, do("POST", "/v1/tasks", before, nil))
	require.Equal(t, 422, do("PUT", "/v1/quotas/default", map[string]any{"tenant": "default", "hard": map[string]int{"bytes": -1}}, nil))
	require.Equal(t, 200, do("PUT", "/v1/quotas/default", map[string]any{"tenant": "default", "hard": map[string]int{"bytes": 1000}}, nil))

	var got taskView
	require.Equal(t, 200, do("GET", "/v1/tasks/before?wait=20s", nil, &got))
	kept := 100 + len(got.Answer)
	require.Equal(t, kept, used(t, do), "the prompt and the answer")

	big := map[string]string{"task_id": "big", "prompt": strings.Repeat("x", 900)}
	var p struct{ Detail, Remedy string }
	require.Eventually(t, func() bool {
		if do("POST", "/v1/tasks", big, &p) == 429 {
			return true
		}
		return do("GET", "/v1/tasks/big?wait=20s", nil, nil) != 200 || do("DELETE", "/v1/tasks/big", nil, nil) != 204
	}, 20*time.Second, 10*time.Millisecond, "the node hears of the quota")
	require.Contains(t, p.Detail, "it may keep 1000 in tasks, results and files, and there is no room for 900 more")
	require.Contains(t, p.Remedy, "DELETE /v1/tasks/{id}")
	res := call(t, n, "POST", "/v1/tasks", big, nil)
	require.Equal(t, 429, res.StatusCode)
	require.NotEmpty(t, res.Header.Get("Retry-After"))
	res = call(t, n, "POST", "/v1/tasks", map[string]string{"prompt": strings.Repeat("x", 1001)}, nil)
	require.Equal(t, 413, res.StatusCode, "more than all it may have")
	require.Empty(t, res.Header.Get("Retry-After"), "it never fits")
	require.Equal(t, 200, do("POST", "/v1/tasks", before, nil), "a repeat costs nothing")

	room := 1000 - used(t, do)
	_, err := c.Files.New(t.Context(), openai.FileNewParams{File: openai.File(strings.NewReader(strings.Repeat("y", room+1)), "f.jsonl", "application/jsonl"), Purpose: "batch"})
	e := apiError(t, err, 429, "insufficient_quota")
	require.Contains(t, e.Message, "no room for")
	require.Equal(t, 1000-room, used(t, do), "nothing of it is counted")
	var f *openai.FileObject
	require.Eventually(t, func() bool {
		f, err = c.Files.New(t.Context(), openai.FileNewParams{File: openai.File(strings.NewReader(strings.Repeat("y", room)), "f.jsonl", "application/jsonl"), Purpose: "batch"})
		return err == nil
	}, 10*time.Second, 10*time.Millisecond, "what fits to the byte is taken")
	require.Equal(t, 1000, used(t, do))
	require.Equal(t, 429, do("POST", "/v1/tasks", map[string]string{"prompt": "x"}, nil))
	_, err = c.Files.Delete(t.Context(), f.ID)
	require.NoError(t, err)
	require.Equal(t, 1000-room, used(t, do), "what is deleted makes room")
	require.Equal(t, 204, do("DELETE", "/v1/tasks/before", nil, nil))
	require.Equal(t, 1000-room-kept, used(t, do))
	require.Eventually(t, func() bool { return do("POST", "/v1/tasks", map[string]string{"prompt": "x"}, nil) == 201 }, 10*time.Second, 10*time.Millisecond, "by the next question at the latest")
}
