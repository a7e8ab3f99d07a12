package node

import (
	"runtime"
	"time"

	"github.com/open-autoglm/autoglm/actors/batch"
	"github.com/open-autoglm/autoglm/actors/file"
	"github.com/open-autoglm/autoglm/node/api"
)

// Config is everything that can be set about a node: every limit in the system that an
// operator may want to move is listed here, with its default in Default. It is read from
// flags, then the environment, then a YAML file, then the defaults: see Load.
//
// A field's doc tag is what `autoglm serve --print-config` shows above it.
type Config struct {
	DataDir     string         `koanf:"data_dir" doc:"Folder of everything durable; made when it is missing."`
	NodeID      string         `koanf:"node_id" doc:"Name of this node in attempts; when empty, the name in its certificate, or the machine's host name."`
	Shards      int            `koanf:"shards" doc:"Shards of the task space, 1 to 1024; fixed when data_dir is created. 0: what data_dir has, 16 for a new one."`
	DiskReserve Size           `koanf:"disk_reserve" doc:"Free disk space below which new tasks are refused with 507; below half of it nothing is written."`
	MemoryLimit Size           `koanf:"memory_limit" doc:"Soft limit of this process' memory, workers not counted: the collector works harder near it. GOMEMLIMIT wins; 0: none."`
	Drain       time.Duration  `koanf:"drain" doc:"Longest wait at SIGTERM for requests and attempts under way."`
	HTTP        HTTPConfig     `koanf:"http"`
	Access      AccessConfig   `koanf:"access"`
	Cluster     ClusterConfig  `koanf:"cluster"`
	Engines     []EngineConfig `koanf:"engines" doc:"What answers the tasks: \"embedded\", \"echo\", a URL, or a mapping with url, name, models, aliases, endpoints, concurrency, prefetch, api_key_env, timeout; of an embedded one also path, gpu, workers, slots, ctx, limits; of url: command the same and preset or command, env. See docs/engines.md."`
	Model       ModelConfig    `koanf:"model"`
	Batch       BatchConfig    `koanf:"batch"`
	Scheduling  SchedConfig    `koanf:"scheduling"`
	Task        TaskConfig     `koanf:"task"`
	Source      SourceConfig   `koanf:"source"`
	Tools       ToolsConfig    `koanf:"tools"`
	Callback    CallbackConfig `koanf:"callback"`
	Webhook     WebhookConfig  `koanf:"webhook"`
	Files       FilesConfig    `koanf:"files"`
	Bulk        BulkConfig     `koanf:"bulk"`
	Sink        SinkConfig     `koanf:"sink"`
	Retention   KeepConfig     `koanf:"retention"`
	Store       StoreConfig    `koanf:"store"`
	Encryption  EncryptConfig  `koanf:"encryption"`
	Log         LogConfig      `koanf:"log"`
}

// HTTPConfig is the API's listener and its limits.
type HTTPConfig struct {
	Listen         string   `koanf:"listen" doc:"Address of the API. Port 0 takes a free one."`
	TLSCert        string   `koanf:"tls_cert" doc:"File with the certificate that clients see, and those that it is signed by (PEM); read again when it changes. Empty: api.crt of cluster.identity, where the API is reached from other machines."`
	TLSKey         string   `koanf:"tls_key" doc:"File with its key."`
	AllowPlaintext bool     `koanf:"allow_plaintext" doc:"Serve without TLS on an address that other machines reach: for a proxy in front that ends TLS, in a network that you trust."`
	AllowedHosts   []string `koanf:"allowed_hosts" doc:"More names for the Host header on loopback: those of a reverse proxy."`

	api.Limits `koanf:",squash"`
}

// AccessConfig says who may use the API.
type AccessConfig struct {
	Keys         string `koanf:"keys" doc:"Who needs an API key: auto (all, unless this node is alone, listens on loopback and has no allowed_hosts), required (all), or off (nobody; on loopback only)."`
	AdminKey     Secret `koanf:"admin_key" doc:"The operator's first API key, or its id and hash as autoglm key root prints it; empty: admin.hash of cluster.identity."`
	AdminKeyFile string `koanf:"admin_key_file" doc:"File with either, instead."`
}

// ClusterConfig makes this node one of several. Without an identity it is alone.
type ClusterConfig struct {
	Identity  string        `koanf:"identity" doc:"Folder with this node's certificate, its key and the gossip key: nodes/NAME of what autoglm init made. Empty: this node is alone."`
	Listen    string        `koanf:"listen" doc:"Address for the other nodes. Gossip takes this port (TCP and UDP), Raft the next one, actor messages the one after; port 0 takes free ones."`
	Advertise string        `koanf:"advertise" doc:"Host or address under which the other nodes reach this one; empty: that of listen, or the machine's first address when listen has none."`
	Join      []string      `koanf:"join" doc:"Gossip addresses (host:port) of some nodes of the cluster; a name with several addresses stands for all of them."`
	Expect    int           `koanf:"expect" doc:"Nodes that must see and elect each other before they start a new cluster; more than half of all that will ever be started at once; 1 for a first node that others will join. 0: only enter a cluster that exists."`
	Zone      string        `koanf:"zone" doc:"Rack, room or availability zone: the replicas of a shard go to different ones where possible."`
	Replicas  int           `koanf:"replicas" doc:"Copies of each shard, on as many nodes: 1, 3 or 5. With 3, one node may be lost at any time."`
	DeadAfter time.Duration `koanf:"dead_after" doc:"A node that is gone for so long gets its replicas replaced on others."`
}

// EngineConfig is one engine. In YAML, in a flag and in the environment its URL alone will do.
type EngineConfig struct {
	URL         string        `koanf:"url" doc:"embedded, command, echo, http(s)://host[:port][/v1] or unix:///path."`
	Name        string        `koanf:"name" doc:"In attempts and metrics, and of an embedded one before its workers' numbers; from the URL when empty."`
	Models      []string      `koanf:"models" doc:"What it serves; it is asked when empty. Of an embedded one with a path of its own: the one name of its model, instead of the file's."`
	Aliases     []string      `koanf:"aliases" doc:"Other names under which tasks may ask for its first model."`
	Endpoints   []string      `koanf:"endpoints" doc:"What of OpenAI's API it answers, like /v1/embeddings. Empty: chat completions, completions and embeddings; behind a URL responses, too."`
	Concurrency int           `koanf:"concurrency" doc:"Requests at once; 0: model.slots of each worker for embedded, else 16. 429 and 503 lower it for a while."`
	Prefetch    int           `koanf:"prefetch" doc:"Tasks claimed ahead for it; 0: as many as its concurrency."`
	APIKeyEnv   string        `koanf:"api_key_env" doc:"Environment variable with its API key."`
	Timeout     time.Duration `koanf:"timeout" doc:"Of one request, under the attempt's own; 0: 10 minutes."`

	// Of an embedded engine, where what is empty or 0 is as model.* has it, and of a command.
	Path    string `koanf:"path" doc:"GGUF file, so that several embedded engines serve a model each; of a command whatever it calls {{.Path}}, a file or a folder."`
	GPU     string `koanf:"gpu" doc:"CUDA_VISIBLE_DEVICES of its workers, like 0 or 1,2."`
	Workers int    `koanf:"workers" doc:"Worker processes."`
	Slots   int    `koanf:"slots" doc:"Answers that one worker makes at once."`
	Ctx     int    `koanf:"ctx" doc:"Tokens of a prompt with its answer."`

	Limits *LimitsConfig `koanf:"limits" doc:"What each of its processes may use: {cpu: 2, memory: 8GiB, io_weight: 50, nice: 5}, or some of it."`

	// Of a command.
	Preset  string            `koanf:"preset" doc:"A server whose command is known: llama-server, vllm or sglang."`
	Command []string          `koanf:"command" doc:"Program and arguments of any other server with OpenAI's API; templates, with .Path .Model .Host .Port .Socket .Slots .Ctx .GPU."`
	Env     map[string]string `koanf:"env" doc:"More environment variables of it, templates, too."`
}

// LimitsConfig bounds one process; what is 0 is not bounded.
type LimitsConfig struct {
	CPU      float64 `koanf:"cpu" doc:"Processors."`
	Memory   Size    `koanf:"memory" doc:"Bytes."`
	IOWeight int     `koanf:"io_weight" doc:"1 to 10000, where everybody else has 100."`
	Nice     int     `koanf:"nice" doc:"1 to 19."`
}

// The engines that are no URL.
const (
	EngineEmbedded = "embedded" // glm-worker child processes
	EngineCommand  = "command"  // a server that this node starts as a child
	EngineEcho     = "echo"     // in process, answers with the prompt
	EngineNone     = "none"     // this node of a cluster runs no engine
)

// ModelConfig is the default model and the embedded engine's workers.
type ModelConfig struct {
	Name         string        `koanf:"name" doc:"Model of tasks that name none, and the id of the embedded one; empty: whatever the engine that takes the task serves first."`
	Path         string        `koanf:"path" doc:"GGUF file of the embedded engine; empty: the shipped one."`
	Worker       string        `koanf:"worker" doc:"The glm-worker binary; empty: beside autoglm."`
	Workers      int           `koanf:"workers" doc:"Worker processes of one thread each; they share the model file's memory. One for each processor keeps all of them busy."`
	Slots        int           `koanf:"slots" doc:"Answers that one worker makes at once."`
	Ctx          int           `koanf:"ctx" doc:"Tokens of a prompt with its answer; 0 leaves it to the model."`
	Threads      int           `koanf:"threads" doc:"Threads of one worker; more than 1 are much slower on a busy machine."`
	LoadTimeout  time.Duration `koanf:"load_timeout" doc:"Longest time for a worker to load the model."`
	HangAfter    time.Duration `koanf:"hang_after" doc:"A worker without a good health probe for so long is killed and started again."`
	StopTimeout  time.Duration `koanf:"stop_timeout" doc:"Time for a worker to finish what it accepted, before it is killed."`
	RestartDelay time.Duration `koanf:"restart_delay" doc:"Wait before the first restart of a worker; doubles, with jitter."`
	RestartMax   time.Duration `koanf:"restart_max" doc:"Longest wait before a restart."`
	Allowed      []string      `koanf:"allowed_commands" doc:"Servers that the operator may have this node start over the API: names of presets (llama-server, vllm, sglang), which then have no environment of their own, or any for whatever command, which is to run any program as this node's user. None: only what engines names here."`
}

// BatchConfig says when a batch is ripe.
type BatchConfig struct {
	SizeMax   int           `koanf:"size_max" doc:"Tasks of one batch."`
	TokensMax int           `koanf:"tokens_max" doc:"Estimated prompt tokens of one batch."`
	AgeMax    time.Duration `koanf:"age_max" doc:"Longest that a task waits in a batch for others."`
	Prefix    bool          `koanf:"prefix_affinity" doc:"Tasks whose prompts begin alike go to the same engine close together, so that its prefix cache hits."`
	Lengths   bool          `koanf:"length_buckets" doc:"Tasks with about the same max_tokens go together: for engines that answer a batch as a whole, without continuous batching."`
}

func (c BatchConfig) window() batch.Window {
	return batch.Window{SizeMax: c.SizeMax, TokensMax: c.TokensMax, AgeMax: c.AgeMax}
}

func batchDefaults() BatchConfig {
	w := batch.DefaultWindow()
	return BatchConfig{SizeMax: w.SizeMax, TokensMax: w.TokensMax, AgeMax: w.AgeMax, Prefix: true}
}

// SchedConfig says whose task is next.
type SchedConfig struct {
	Priorities string        `koanf:"priorities" doc:"strict: a tenant's better priority goes first; weighted: each level gets ratio times as many tokens as the next one."`
	Ageing     time.Duration `koanf:"ageing" doc:"With strict: waiting tasks of a priority that were passed over for so long count as one level better, and so on, until they get a turn. 0s: never."`
	Ratio      float64       `koanf:"ratio" doc:"With weighted: how much more a level gets."`
	Hedge      float64       `koanf:"hedge" doc:"A task that runs for so many times as long as others like it is run on another engine too, if one has nothing else to do; the first answer counts. 0: off. 4 is a good start. Both runs cost tokens."`
	HedgeAfter time.Duration `koanf:"hedge_after" doc:"With hedge: not before a task has run for so long. 0s: as soon as hedge says."`
	HedgeShare float64       `koanf:"hedge_percent" doc:"With hedge: of a node's runs, so many of a hundred may have a second one."`
	Weights    []string      `koanf:"weights" doc:"Shares of tenants, as NAME=NUMBER; 1 for all others. With acme=3, acme gets three tokens for one of anybody else while both have work waiting."`
}

// TaskConfig is what a task gets that says nothing itself, and what it may ask for.
type TaskConfig struct {
	Timeout     time.Duration `koanf:"timeout" doc:"Of one attempt, for tasks that name none."`
	TimeoutMax  time.Duration `koanf:"timeout_max" doc:"A task may not ask for more."`
	LeaseMargin time.Duration `koanf:"lease_margin" doc:"A claim holds for the timeout and this: fetching, waiting for a slot, answering."`
	Attempts    int           `koanf:"attempts" doc:"Tries of a step, for tasks that name none."`
	BackoffMin  time.Duration `koanf:"backoff_min" doc:"Wait after the first failure; doubles, with jitter."`
	BackoffMax  time.Duration `koanf:"backoff_max" doc:"Longest wait between tries."`
	SlowFactor  int           `koanf:"slow_factor" doc:"An engine that answered 429 or 503 is asked again this many times later."`
	RetryShare  int           `koanf:"retry_percent" doc:"Retries of a model are to be at most so many percent of its attempts over retry_window, and retry_floor more; those over it wait longer, none fails for it. Counted by each node for the shards that it owns. 0: no end."`
	RetryFloor  int           `koanf:"retry_floor" doc:"Retries of a model in retry_window that are always free of that."`
	RetryWindow time.Duration `koanf:"retry_window" doc:"See retry_percent."`
	MovesMax    int           `koanf:"moves_max" doc:"Attempts lost to a new owner of the shard before they count as failures."`
	AsleepAfter time.Duration `koanf:"asleep_after" doc:"An actor without a message for so long leaves memory."`
}

// SourceConfig says what a data_url may reach.
type SourceConfig struct {
	AllowedDirs  []string      `koanf:"allowed_dirs" doc:"Folders that file URLs may read below; none: file URLs are refused."`
	SizeMax      Size          `koanf:"size_max" doc:"Bytes of one data_url."`
	Timeout      time.Duration `koanf:"timeout" doc:"Of one fetch, redirects and all."`
	AllowPrivate bool          `koanf:"allow_private" doc:"Let data_url reach loopback and private addresses."`
	AllowedNets  []string      `koanf:"allowed_nets" doc:"Addresses or networks (10.1.2.3, 10.1.0.0/16) that data_url may reach although they are private."`
	RedirectsMax int           `koanf:"redirects_max" doc:"Redirects followed; each address is checked."`
}

// ToolsConfig says which tools of steps this node runs, and what they may reach.
type ToolsConfig struct {
	HTTPConcurrency int      `koanf:"http_concurrency" doc:"Requests of steps (http) that this node makes at once; 0: it makes none."`
	AllowPrivate    bool     `koanf:"allow_private" doc:"Let them reach loopback and private addresses."`
	AllowedNets     []string `koanf:"allowed_nets" doc:"Addresses or networks that they may reach although they are private."`
	WasmDir         string   `koanf:"wasm_dir" doc:"Folder with the WASM modules that steps may run: NAME.wasm. Looked at each minute. Empty: none."`
	WasmConcurrency int      `koanf:"wasm_concurrency" doc:"Modules that this node runs at once; each takes a processor, and up to the memory that its step asks for. 0: one for each processor."`
}

// CallbackConfig says how callbacks are signed, sent and repeated.
type CallbackConfig struct {
	Secret       Secret        `koanf:"secret" doc:"Signs callbacks (Standard Webhooks), whsec_ and base64; empty: made once and kept in data_dir."`
	SecretFile   string        `koanf:"secret_file" doc:"File with the secret, instead."`
	Attempts     int           `koanf:"attempts" doc:"Tries before giving up, at most 10: after 5s, 5m, 30m, 2h, 5h, 10h, 14h, 20h and 24h, with jitter, as Standard Webhooks has it."`
	Timeout      time.Duration `koanf:"timeout" doc:"Of one try."`
	InFlight     int           `koanf:"in_flight" doc:"Callbacks at once."`
	AllowPrivate bool          `koanf:"allow_private" doc:"Let callback_url reach private addresses and loopback. Loopback is reachable anyway while the API listens on loopback and asks for no key."`
	AllowedNets  []string      `koanf:"allowed_nets" doc:"Addresses or networks that callback_url may reach although they are private."`
}

// FilesConfig bounds the files that clients upload.
type FilesConfig struct {
	BytesMax   Size          `koanf:"bytes_max" doc:"Bytes of one file; 0: as many as fit above disk_reserve."`
	StaleAfter time.Duration `koanf:"stale_after" doc:"A file that stopped coming, because its client or its node died, is taken away after this."`
}

// BulkConfig bounds the batches of OpenAI's Batch API. (Group batch is for what goes to an engine together.)
type BulkConfig struct {
	Window     int `koanf:"window" doc:"Lines of one batch that are tasks and have not ended; the others wait in its file, whatever its length."`
	DriversMax int `koanf:"drivers_max" doc:"Batches that this node works for at once; the others wait."`
}

// WebhookConfig says who hears of all batches.
type WebhookConfig struct {
	URLs []string `koanf:"urls" doc:"Get the events batch.completed, batch.failed, batch.expired and batch.cancelled, signed and repeated like callbacks; at most 8."`
}

// SinkConfig says where sinks may write results to: nowhere, unless it is named here.
type SinkConfig struct {
	AllowedDirs []string `koanf:"allowed_dirs" doc:"Folders that sinks may write below; none: no files and no SQLite. The same on every node, and shared by them, where there are several."`
	SecretsDir  string   `koanf:"secrets_dir" doc:"Folder with files that have passwords of sinks, which password_file names; none: only password_env. On every node, and for nothing else: what is in it can be sent to any host of sink.allow."`
	Allow       []string `koanf:"allow" doc:"Hosts that sinks may write to, as they stand in the URL, with or without a port; and folders of PostgreSQL's sockets. None: no S3 and no PostgreSQL."`
}

// KeepConfig says how long what has ended is kept. The default is for ever, as it was before there were these settings: nothing that somebody may still
// want goes away because a node was upgraded.
type KeepConfig struct {
	Tasks   time.Duration `koanf:"tasks" doc:"A task and its answer are deleted so long after it ended, like 720h; not while its callback is tried or a sink has not written it. Lines of batches go with their batch. 0: never."`
	Batches time.Duration `koanf:"batches" doc:"A batch is deleted so long after it ended, with its lines, its output and its error file; not before its output_expires_after. 0: never."`
	Files   time.Duration `koanf:"files" doc:"An uploaded file is deleted so long after it was made, unless its own expires_after was earlier; not while a batch reads it. 0: never."`
	Audit   time.Duration `koanf:"audit" doc:"An entry of the audit log is deleted after so long. 0: never."`
}

// StoreConfig is for a node with an unusual load; see persistence.Options.
type StoreConfig struct {
	InFlightCount int           `koanf:"in_flight_count" doc:"Appends of one shard that wait for Raft; more get 429."`
	InFlightBytes Size          `koanf:"in_flight_bytes" doc:"Bytes of all appends that wait for Raft."`
	MemTable      Size          `koanf:"memtable" doc:"Badger's memtable, at least 16MiB."`
	BlockCache    Size          `koanf:"block_cache" doc:"Badger's block cache."`
	OpenTimeout   time.Duration `koanf:"open_timeout" doc:"Longest wait at start for the shards to be led."`
	KeyFile       string        `koanf:"encryption_key_file" doc:"File of 16, 24 or 32 random bytes: Badger encrypts its files with AES. Only for a data_dir that began with it, and not for Raft's log: see encryption."`
}

// EncryptConfig seals what tasks, files and batches hold before it reaches any disk. All nodes of a cluster have the same keys.
type EncryptConfig struct {
	KeyFile string `koanf:"key_file" doc:"File that autoglm encryption-key new made: what tasks, files and batches hold is sealed with it before it reaches a disk. Who loses it loses the data."`
	Key     Secret `koanf:"key" doc:"What is in such a file, itself or in base64, instead."`
	Standby bool   `koanf:"standby" doc:"Open what is sealed, and seal nothing: the first of two steps to switch sealing on in a running cluster."`
}

// LogConfig is the log on standard error.
type LogConfig struct {
	Level  string `koanf:"level" doc:"debug, info, warn or error."`
	Format string `koanf:"format" doc:"text or json."`
}

// Default returns the settings of a node that is alone on its machine.
func Default() Config {
	return Config{
		DataDir:     "autoglm-data",
		DiskReserve: 512 << 20,
		MemoryLimit: 384 << 20,
		Drain:       30 * time.Second,
		HTTP:        HTTPConfig{Listen: "127.0.0.1:8080", Limits: api.DefaultLimits()},
		Access:      AccessConfig{Keys: KeysAuto},
		Cluster:     ClusterConfig{Listen: "0.0.0.0:7946", Replicas: 3, DeadAfter: 30 * time.Second},
		Engines:     []EngineConfig{{URL: EngineEmbedded}},
		Model: ModelConfig{
			Workers: runtime.NumCPU(), Slots: 16, Threads: 1, // the node needs little, and its workers step back for it
			LoadTimeout: 10 * time.Minute, HangAfter: 30 * time.Second, StopTimeout: time.Minute,
			RestartDelay: 200 * time.Millisecond, RestartMax: 30 * time.Second,
		},
		Batch:      batchDefaults(),
		Scheduling: SchedConfig{Priorities: PrioritiesStrict, Ageing: time.Minute, Ratio: 2, HedgeAfter: 5 * time.Second, HedgeShare: 10},
		Task: TaskConfig{
			Timeout: time.Minute, TimeoutMax: time.Hour, LeaseMargin: 30 * time.Second, Attempts: 4,
			BackoffMin: time.Second, BackoffMax: time.Minute, SlowFactor: 4, RetryFloor: 20, RetryWindow: time.Minute, MovesMax: 100, AsleepAfter: time.Minute,
		},
		Source: SourceConfig{SizeMax: 1 << 20, Timeout: 30 * time.Second, RedirectsMax: 5},
		Tools:  ToolsConfig{HTTPConcurrency: 32},
		Callback: CallbackConfig{
			Attempts: 10, Timeout: 15 * time.Second, InFlight: 64,
		},
		Files: FilesConfig{StaleAfter: file.DefaultStaleAfter},
		Bulk:  BulkConfig{Window: 8192, DriversMax: 64},
		Store: StoreConfig{InFlightCount: 1024, InFlightBytes: 64 << 20, MemTable: 16 << 20, BlockCache: 16 << 20, OpenTimeout: 30 * time.Second},
		Log:   LogConfig{Level: "info", Format: "text"},
	}
}
