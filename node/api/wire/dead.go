package wire

import "time"

// DeadRetriesMax is how many tasks one POST /v1/dead/retry has tried again at most.
const DeadRetriesMax = 1000

// DeadSummary counts failed tasks by what they failed with, the most first.
type DeadSummary struct {
	Groups  []DeadGroup `json:"groups" nullable:"false"`
	Total   int         `json:"total"`
	Partial bool        `json:"partial,omitempty" doc:"There are more, that failed later: ask again with since."`
}

// DeadGroup is the failed tasks of one model with one kind of error.
type DeadGroup struct {
	Kind    string    `json:"kind" doc:"Of the error."`
	Model   string    `json:"model"`
	Count   int       `json:"count"`
	First   time.Time `json:"first" doc:"When the oldest of them failed."`
	Last    time.Time `json:"last"`
	Example string    `json:"example" doc:"Id of the newest."`
	Message string    `json:"message" doc:"Of its error."`
}

// DeadRetry asks for failed tasks to be tried again.
type DeadRetry struct {
	IDs []string `json:"task_ids" minItems:"1" maxItems:"1000" nullable:"false" doc:"Failed tasks. Those that were tried again already answer with the same task."`
}

// DeadRetried answers DeadRetry, in its order.
type DeadRetried struct {
	Results []DeadResult `json:"results" nullable:"false"`
}

// DeadResult is what became of one wish.
type DeadResult struct {
	RetryOf string `json:"retry_of" doc:"The failed task."`
	Submitted
}
