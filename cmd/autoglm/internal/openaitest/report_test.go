package openaitest

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// report is what a client saw, said without anything that differs from run to run.
type report struct {
	Client  string             `json:"client"`
	Batches map[string]outcome `json:"batches"` // by their names in inputs
	Listed  []string           `json:"listed"`  // those names, over pages of two, from each node alike
	Errors  map[string]refusal `json:"errors"`
}

// outcome is a batch at its end.
type outcome struct {
	Status    string   `json:"status"`
	Counts    [3]int64 `json:"counts"` // total, completed, failed
	Output    []string `json:"output"` // of each line: custom_id and the answer's text
	Errors    []string `json:"errors"` // of each line of the error file: custom_id and the code; of a failed batch: line and code
	Webhook   string   `json:"webhook"`
	Tampered  string   `json:"tampered"`   // what unwrapping the webhook says once a byte of it is changed
	Cancelled bool     `json:"cancelling"` // cancelling answered with that status
}

// refusal is an error as the client's own type has it.
type refusal struct {
	Class  string `json:"class"`
	Status int    `json:"status"`
	Type   string `json:"type"`
	Code   string `json:"code"`
	Param  string `json:"param"`
}

const refused = "refused"

// check compares a report with the one report that is right. classes are what the client calls the errors with a status.
func check(t *testing.T, got report, client string, classes map[int]string) {
	t.Helper()
	var answers []string
	for i := range 20 {
		answers = append(answers, fmt.Sprintf("c%d yes: now", i))
	}
	want := report{
		Client: client,
		Batches: map[string]outcome{
			"completed": {Status: "completed", Counts: [3]int64{21, 20, 1}, Output: answers, Errors: []string{"c20 not_that"}, Webhook: "batch.completed", Tampered: refused},
			"cancelled": {Status: "cancelled", Counts: [3]int64{3, 1, 2}, Output: answers[:1], Errors: []string{"c1 batch_cancelled", "c2 batch_cancelled"},
				Webhook: "batch.cancelled", Tampered: refused, Cancelled: true},
			"expired": {Status: "expired", Counts: [3]int64{2, 1, 1}, Output: answers[:1], Errors: []string{"c1 batch_expired"}, Webhook: "batch.expired", Tampered: refused},
			"failed":  {Status: "failed", Output: []string{}, Errors: []string{"2 invalid_json_line"}, Webhook: "batch.failed", Tampered: refused},
		},
		Listed: []string{"failed", "cancelled", "completed", "expired"},
		Errors: map[string]refusal{
			"no such batch":      {Status: 404, Param: "id"},
			"no such file":       {Status: 404, Param: "id"},
			"no such input file": {Status: 404, Param: "input_file_id"},
			"wrong endpoint":     {Status: 400, Param: "endpoint"},
			"unknown parameter":  {Status: 400, Param: "mixed_model", Code: "unknown_parameter"},
			"cancel of an ended": {Status: 409},
			"unknown model":      {Status: 404, Param: "model", Code: "model_not_found"},
			"the engine's":       {Status: 400, Type: "engine_says", Param: "messages", Code: "not_that"},
		},
	}
	for name, e := range want.Errors {
		if e.Class = classes[e.Status]; e.Type == "" {
			e.Type = "invalid_request_error"
		}
		want.Errors[name] = e
	}
	require.Equal(t, want, got)
}
