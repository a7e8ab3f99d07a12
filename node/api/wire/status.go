package wire

import "time"

// Status is a node's condition, as GET /v1/status shows it.
type Status struct {
	Ready       bool             `json:"ready"`
	Reason      string           `json:"reason,omitempty" doc:"Why it is not ready."`
	Node        string           `json:"node"`
	Version     string           `json:"version"`
	StartedAt   time.Time        `json:"started_at"`
	Shards      int              `json:"shards"`
	ShardsOwned int              `json:"shards_owned"`
	Tasks       map[string]int64 `json:"tasks" doc:"Tasks by state."`
	Partial     bool             `json:"partial,omitempty" doc:"Some shards did not answer: tasks and queues lack theirs."`
	Queues      []Queue          `json:"queues" nullable:"false" doc:"Waiting tasks."`
	Engines     []Engine         `json:"engines" nullable:"false"`
	Disk        Disk             `json:"disk"`
}

// Queue counts the waiting tasks of one model and priority.
type Queue struct {
	Model    string `json:"model"`
	Priority int    `json:"priority"`
	Waiting  int64  `json:"waiting"`
}

// Engine is one inference engine as the node sees it.
type Engine struct {
	Name      string    `json:"name"`
	Models    []string  `json:"models" nullable:"false"`
	Endpoints []string  `json:"endpoints" nullable:"false" doc:"Of the OpenAI API, that a task's request may go to."`
	Healthy   bool      `json:"healthy"`
	Reason    string    `json:"reason,omitempty" doc:"Of the newest trouble."`
	Limit     int       `json:"limit" doc:"Requests at once."`
	InFlight  int       `json:"in_flight"`
	Paused    time.Time `json:"paused_until,omitzero" doc:"It was overloaded and asked for nothing before then; absent: it never did."`
	Restarts  int       `json:"restarts" doc:"Of a supervised child."`
	Answered  uint64    `json:"answered" doc:"Since it was added, or its node started."`
	Failed    uint64    `json:"failed" doc:"Requests that ended with an error."`
	Mean      float64   `json:"mean_seconds" doc:"Of its answers."`
	Limits    string    `json:"limits,omitempty" doc:"Of a supervised child: which are in force and by which means, and which are not kept and why."`
	Circuit   string    `json:"circuit,omitempty" enum:"closed,open,half-open" doc:"open: it kept failing what it was given, and gets nothing for a while; half-open: it gets one task, whose end decides."`
}

// Disk is how full the disk below the data directory is.
type Disk struct {
	FreeBytes    uint64 `json:"free_bytes"`
	ReserveBytes uint64 `json:"reserve_bytes" doc:"New tasks are refused with 507 when less is free."`
	Full         bool   `json:"full" doc:"New tasks are refused now."`
}

// Health answers /healthz and /readyz.
type Health struct {
	Status string `json:"status" enum:"ok,not ready,starting"`
	Reason string `json:"reason,omitempty"`
}

// HealthStarting is the Status of a node that has no API yet.
const HealthStarting = "starting"

// Backup asks for and answers POST /v1/admin/backup.
type Backup struct {
	Dir     string `json:"dir" minLength:"1" maxLength:"4096" doc:"A new folder on the node's machine, as an absolute path."`
	Warning string `json:"warning,omitempty" readOnly:"true" doc:"What the copy may lack."`
}

// Cancel may go with POST /v1/tasks/{id}/cancel.
type Cancel struct {
	Reason string `json:"reason,omitempty" maxLength:"512" doc:"Kept in the task's history."`
}
