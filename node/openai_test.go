package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// TestOnlyAnEndpointsEngineGetsItsTasks: two engines have the model, and each serves one endpoint.
func TestOnlyAnEndpointsEngineGetsItsTasks(t *testing.T) {
	cfg := testConfig(t)
	cfg.Engines = []EngineConfig{{URL: EngineEcho, Name: "talker", Endpoints: []string{task.EndpointChat}}, {URL: EngineEcho, Name: "embedder", Endpoints: []string{task.EndpointEmbeddings}}}
	n := boot(t, cfg)
	for i := range 40 {
		spec := map[string]any{"task_id": fmt.Sprint(i), "endpoint": task.EndpointChat, "request": map[string]any{"messages": []any{map[string]any{"role": "user", "content": "x"}}}}
		if i%2 == 1 {
			spec["endpoint"], spec["request"] = task.EndpointEmbeddings, map[string]any{"input": "x"}
		}
		call(t, n, "POST", "/v1/tasks", spec, nil)
	}
	for i := range 40 {
		var view struct {
			State    string
			Attempts []struct{ Engine string }
		}
		call(t, n, "GET", fmt.Sprintf("/v1/tasks/%d?wait=20s", i), nil, &view)
		require.Equal(t, "completed", view.State)
		require.Len(t, view.Attempts, 1)
		require.Equal(t, []string{"talker", "embedder"}[i%2], view.Attempts[0].Engine)
	}
	res := call(t, n, "POST", "/v1/tasks", map[string]any{"endpoint": task.EndpointCompletions, "request": map[string]any{"prompt": "x"}}, nil)
	require.Equal(t, http.StatusUnprocessableEntity, res.StatusCode)
	require.NoError(t, n.svc.CheckEndpoint(t.Context(), task.EndpointEmbeddings, ""))
	require.Equal(t, fault.Invalid, fault.KindOf(n.svc.CheckEndpoint(t.Context(), task.EndpointResponses, "m")))
	require.NoError(t, n.svc.CheckModel(t.Context(), ""))
}

// TestLinesOfABatchLeaveRows: as many as there are lines, with the size that each renders to.
func TestLinesOfABatchLeaveRows(t *testing.T) {
	n := boot(t, testConfig(t))
	var msgs []*task.Submit
	for i := range 20 {
		text := fmt.Sprintf("line %d", i)
		if i%5 == 4 {
			text = "#echo fail=always kind=refused\n"
		}
		body, err := json.Marshal(map[string]any{"model": "m", "messages": []any{map[string]any{"role": "user", "content": text}}})
		require.NoError(t, err)
		msgs = append(msgs, &task.Submit{Spec: &task.Spec{ID: fmt.Sprintf("batch_x-%d", i), Request: body}, Line: &task.Line{Batch: "batch_x", Number: uint64(i), CustomID: text}})
	}
	for _, r := range n.svc.SubmitLines(t.Context(), msgs) {
		require.NoError(t, r.Err)
	}
	for _, r := range n.svc.SubmitLines(t.Context(), msgs) {
		require.NoError(t, r.Err)
		require.True(t, r.Existed)
	}
	msgs[0].Line = &task.Line{Batch: "batch_x", Number: 99}
	require.Equal(t, fault.Conflict, fault.KindOf(n.svc.SubmitLines(t.Context(), msgs[:1])[0].Err), "another line is another body")

	records := map[uint64]*task.Record{}
	for i := range 20 {
		id := fmt.Sprintf("batch_x-%d", i)
		call(t, n, "GET", "/v1/tasks/"+id+"?wait=20s", nil, nil)
		r, err := n.svc.Get(t.Context(), id)
		require.NoError(t, err)
		require.True(t, r.State.Final())
		records[uint64(i)] = r
	}
	for _, index := range []string{task.IndexLine, task.IndexLineEnd} {
		seen := 0
		for _, o := range n.sys.Shards.Owners() {
			require.NoError(t, o.Scan(index, task.LinePrefix("batch_x"), nil, func(key, value []byte) bool {
				_, number, ok := task.ParseLineKey(key)
				if index == task.IndexLineEnd {
					_, _, number, ok = task.ParseLineEndKey(key)
				}
				require.True(t, ok)
				row, ok := task.ParseLineRow(value)
				require.True(t, ok)
				r := records[number]
				require.Equal(t, r.State != task.Completed, row.Failed)
				require.Equal(t, number%5 == 4, row.Failed)
				require.Equal(t, len(r.AppendLine(nil, fmt.Sprintf("batch_x-%d", number))), row.Size)
				seen++
				return true
			}))
		}
		require.Equal(t, 20, seen)
	}
}

func TestOpenAIsRoutesAreDescribed(t *testing.T) {
	n := boot(t, testConfig(t))
	type body struct {
		Content map[string]struct {
			Schema struct {
				Ref        string         `json:"$ref"`
				Properties map[string]any `json:"properties"`
			}
		}
	}
	var doc struct {
		Paths map[string]map[string]struct {
			RequestBody body
			Responses   map[string]body
		} `json:"paths"`
		Components struct {
			Schemas map[string]struct {
				Properties map[string]any
				Required   []string
			}
		}
	}
	require.Equal(t, 200, call(t, n, "GET", "/openapi.json", nil, &doc).StatusCode)
	for _, path := range task.Endpoints() {
		require.Contains(t, doc.Paths[path], "post")
	}
	require.Contains(t, doc.Paths["/v1/models/{model}"], "get")

	const inJSON, inForm = "application/json", "multipart/form-data"
	for _, r := range []struct{ method, path, media, takes, gives string }{ // takes: a field of the request's body; gives: of the answer's
		{"post", "/v1/files", inForm, "expires_after[seconds]", "sha256"},
		{"get", "/v1/files", "", "", "has_more"},
		{"get", "/v1/files/{id}", "", "", "sha256"},
		{"delete", "/v1/files/{id}", "", "", "deleted"},
		{"get", "/v1/files/{id}/content", "", "", ""},
		{"post", "/v1/uploads", inJSON, "mime_type", "file"},
		{"post", "/v1/uploads/{id}/parts", inForm, "data", "upload_id"},
		{"post", "/v1/uploads/{id}/complete", inJSON, "part_ids", "file"},
		{"post", "/v1/uploads/{id}/cancel", "", "", "file"},
		{"post", "/v1/batches", inJSON, "mixed_models", "request_counts"},
		{"get", "/v1/batches", "", "", "has_more"},
		{"get", "/v1/batches/{id}", "", "", "request_counts"},
		{"post", "/v1/batches/{id}/cancel", "", "", "request_counts"},
		{"post", "/v1/batches/{id}/pause", "", "", "request_counts"},
		{"post", "/v1/batches/{id}/resume", "", "", "request_counts"},
		{"post", "/v1/batches/{id}/priority", inJSON, "priority", "request_counts"},
		{"post", "/v1/batches/{id}/retry", "", "", "request_counts"},
	} {
		op, ok := doc.Paths[r.path][r.method]
		require.True(t, ok, "%s %s", r.method, r.path)
		fields := func(b body, media string) map[string]any {
			s := b.Content[media].Schema
			if s.Ref == "" {
				return s.Properties
			}
			return doc.Components.Schemas[strings.TrimPrefix(s.Ref, "#/components/schemas/")].Properties
		}
		if require.Equal(t, r.takes == "", len(op.RequestBody.Content) == 0, r.path); r.takes != "" {
			require.Contains(t, fields(op.RequestBody, r.media), r.takes, r.path)
		}
		if r.gives != "" {
			require.Contains(t, fields(op.Responses["200"], inJSON), r.gives, r.path)
		}
		require.Contains(t, fields(op.Responses["default"], inJSON), "error", r.path)
	}
	require.ElementsMatch(t, []string{"input_file_id", "endpoint", "completion_window"}, doc.Components.Schemas["BatchRequest"].Required)
}
