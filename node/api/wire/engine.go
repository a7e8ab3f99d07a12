package wire

import "time"

// EngineSpec is what an engine is: a model's file that the node starts processes for, a server that it starts, or a URL.
type EngineSpec struct {
	Path        string            `json:"path,omitempty" maxLength:"4096" doc:"GGUF file on the node's machine, as an absolute path; with a preset or a command whatever that takes, a file or a folder."`
	Preset      string            `json:"preset,omitempty" maxLength:"64" doc:"A server that the node starts: llama-server, vllm or sglang, where model.allowed_commands has it."`
	Command     []string          `json:"command,omitempty" maxItems:"256" doc:"Program and arguments of another one, as templates, where model.allowed_commands has any."`
	Env         map[string]string `json:"env,omitempty" doc:"More environment variables of a preset or command; their values are not shown."`
	URL         string            `json:"url,omitempty" maxLength:"2048" doc:"Of an engine with OpenAI's API: http(s)://host[:port][/v1] or unix:///path; in place of path."`
	Models      []string          `json:"models,omitempty" maxItems:"64" doc:"Of a path: the one name under which tasks ask for it, the engine's when empty. Of a URL: what it serves; it is asked when empty."`
	Aliases     []string          `json:"aliases,omitempty" maxItems:"64" doc:"Other names for its first model."`
	Endpoints   []string          `json:"endpoints,omitempty" maxItems:"16"`
	GPU         string            `json:"gpu,omitempty" maxLength:"1024" doc:"CUDA_VISIBLE_DEVICES of its processes."`
	Workers     int               `json:"workers,omitempty" doc:"Processes; 0: model.workers."`
	Slots       int               `json:"slots,omitempty" doc:"Answers that one process makes at once; 0: model.slots."`
	Ctx         int               `json:"ctx,omitempty" doc:"Tokens of a prompt with its answer; 0: model.ctx."`
	Limits      *EngineLimits     `json:"limits,omitempty" doc:"What each process may use."`
	Concurrency int               `json:"concurrency,omitempty" doc:"Requests at once; 0: the slots of each process, 16 of a URL."`
	Prefetch    int               `json:"prefetch,omitempty"`
	APIKeyEnv   string            `json:"api_key_env,omitempty" maxLength:"128" doc:"Environment variable of the node with the key of a URL; its name begins with ENGINE_."`
}

// EngineLimits bounds one process; what is left out is not bounded.
type EngineLimits struct {
	CPU      float64 `json:"cpu,omitempty" doc:"Processors."`
	Memory   string  `json:"memory,omitempty" maxLength:"32" doc:"Like 8GiB."`
	IOWeight int     `json:"io_weight,omitempty" doc:"1 to 10000, where everybody else has 100."`
	Nice     int     `json:"nice,omitempty" doc:"1 to 19."`
}

// EngineLoad asks for an engine.
type EngineLoad struct {
	Name string     `json:"name" minLength:"1" maxLength:"63"`
	Node string     `json:"node,omitempty" maxLength:"64" doc:"Where; all, or the node that is asked when empty."`
	Spec EngineSpec `json:"spec"`
}

// EngineSwap asks for another model in an engine's place.
type EngineSwap struct {
	Node string     `json:"node,omitempty" maxLength:"64" doc:"Where; all that have it, or the node that is asked when empty."`
	Spec EngineSpec `json:"spec" doc:"What is to be different; the rest stays."`
	// Canary leaves the one before at work beside it.
	Canary int `json:"canary,omitempty" minimum:"0" maximum:"99" doc:"Percent of the work that the new one gets, at most, beside the one before, until it is promoted or rolled back; 0: it takes its place."`
}

// EnginePromote asks for more of the work, or all of it, for the model that is tried.
type EnginePromote struct {
	Node    string `json:"node,omitempty" maxLength:"64" doc:"Where; all that have it, or the node that is asked when empty."`
	Percent int    `json:"percent,omitempty" minimum:"0" maximum:"99" doc:"Of the work, at most; 0: it takes the place of the one before."`
}

// EngineBack asks for the former model, or for none.
type EngineBack struct {
	Node string `json:"node,omitempty" maxLength:"64" doc:"Where; all that have it, or the node that is asked when empty."`
}

// EngineEntry is one engine of one node.
type EngineEntry struct {
	Node    string        `json:"node"`
	Name    string        `json:"name"`
	Source  string        `json:"source" enum:"configuration,loaded"`
	State   string        `json:"state" enum:"loading,ready,down,draining,failed"`
	Reason  string        `json:"reason,omitempty" doc:"Of the newest trouble, and what else is to be known."`
	Version int           `json:"version" doc:"Counts its models: 1 is the first one."`
	Spec    EngineSpec    `json:"spec"`
	Models  []string      `json:"models" nullable:"false"`
	Engines []Engine      `json:"engines" nullable:"false" doc:"Its processes, or the one behind its URL."`
	Busy    int           `json:"in_flight"`
	Pace    float64       `json:"tokens_per_second" doc:"That it answered in the last half a minute or so."`
	Canary  *CanaryEngine `json:"canary,omitempty" doc:"What is tried beside it."`
	Former  *FormerEngine `json:"former,omitempty" doc:"What a rollback brings back."`
	Change  *EngineChange `json:"change,omitempty" doc:"The newest one."`
}

// CanaryEngine is a model that is tried beside an engine's own.
type CanaryEngine struct {
	Version int        `json:"version"`
	Percent int        `json:"percent" doc:"Of the work, at most."`
	Spec    EngineSpec `json:"spec"`
	Since   time.Time  `json:"since"`
	Engines []Engine   `json:"engines" nullable:"false" doc:"Its processes, or the one behind its URL."`
}

// FormerEngine is what an engine was before it was swapped.
type FormerEngine struct {
	Version int        `json:"version"`
	Spec    EngineSpec `json:"spec"`
	Loaded  bool       `json:"loaded" doc:"A rollback takes no time."`
	Until   time.Time  `json:"until,omitzero" doc:"When its processes are ended. After that a rollback loads it again."`
}

// EngineChange is a change that was asked for, and what became of it.
type EngineChange struct {
	ID    string    `json:"id"`
	What  string    `json:"what" enum:"load,swap,canary,promote,rollback,unload"`
	State string    `json:"state" enum:"running,done,failed"`
	Error string    `json:"error,omitempty"`
	At    time.Time `json:"at"`
	Ended time.Time `json:"ended,omitzero"`
	Lost  []string  `json:"lost,omitempty" doc:"Models that it took away: no engine of this node serves them any more."`
}

// Engines answers GET /v1/engines, and every change with the engines that it concerns.
type Engines struct {
	Engines []EngineEntry     `json:"engines" nullable:"false"`
	Silent  map[string]string `json:"silent,omitempty" doc:"Nodes that did not do, or say, what was asked, and why."`
}
