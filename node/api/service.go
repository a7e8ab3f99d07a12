package api

import (
	"context"
	"time"

	"github.com/open-autoglm/autoglm/actors/explain"
	"github.com/open-autoglm/autoglm/actors/task"
)

// Service is what the HTTP layer needs of the node: everything about tasks, and
// nothing about HTTP. Errors are faults; their Kind chooses the status.
type Service interface {
	// Submit makes the tasks durable and then answers, one result for each spec in
	// order. Specs are validated here. A spec without an id gets one.
	Submit(ctx context.Context, specs []*task.Spec) []Submitted

	// Get returns a task as its journal has it.
	Get(ctx context.Context, id string) (*task.Record, error)

	// Cancel makes a pending or running task cancelled; a final one is a Conflict, and the
	// record is returned as it stands in both cases. reason is kept.
	Cancel(ctx context.Context, id, reason string) (*task.Record, error)

	// Delete takes a final task away with its answer and history: its id is as if it had never been used. A Conflict says what it is still
	// needed for: it is not final, its callback or a sink waits, or it is a line of a batch.
	Delete(ctx context.Context, id string) error

	// Retry has failed tasks tried again, each as another task whose id and state are in the answer; again, it is harmless. A task that
	// did not fail, or is a line of a batch, is a Conflict.
	Retry(ctx context.Context, ids []string) []Submitted

	// Events returns the task's facts after a version (0: all).
	Events(ctx context.Context, id string, after uint64) ([]task.Fact, error)

	// Explain returns all that happened to the task, and why it is not further.
	Explain(ctx context.Context, id string) (Explained, error)

	// Watch returns a channel that gets a value, merged when the reader is slow, after
	// each new fact of the task; stop ends it. Read with Events.
	Watch(ctx context.Context, id string) (changed <-chan struct{}, stop func(), err error)

	// List returns at most limit tasks from cursor on ("" is the start), and the cursor of
	// the next page ("" is the end). Without a state: in the order of creation, newest
	// first. With one: in that state's own order (pending: as they will run; final: as
	// they ended, oldest first).
	List(ctx context.Context, q Query) (page []Item, next string, err error)

	// Results walks final tasks in the order in which they ended, from cursor on, and calls f
	// until it returns false or there are no more; it returns the cursor after the last
	// one given to f, from which a later call goes on. Order holds within a shard; a
	// reader that goes on from the cursor misses none. The cursor "end" is after all
	// that have ended by now.
	Results(ctx context.Context, cursor string, f func(Item) bool) (next string, err error)

	// BatchResults is Results of the lines of a batch alone, with cursors of its own. NotFound: there is no such batch.
	BatchResults(ctx context.Context, batch, cursor string, f func(Item) bool) (next string, err error)

	// Ready tells whether requests can be served now, and why not. It is quick and asks nobody else.
	Ready() (ok bool, reason string)

	// Status says how the node and the tasks of the whole cluster are: for /v1/status and the CLI.
	Status(ctx context.Context) Status

	// Cluster says who is there and who holds which shard, as far as it can be found out in two seconds.
	Cluster(ctx context.Context) Cluster

	// ClusterEvents returns what the coordinator decided and saw lately, oldest first.
	ClusterEvents(ctx context.Context) ([]ClusterEvent, error)

	// Drain makes a node of the cluster give away all it has, or (leave false) take part again. NotFound: no living
	// node has the name; Refused: too few would stay for the copies of a shard, and force is not set.
	Drain(ctx context.Context, node string, leave, force bool) error

	// Backup writes a consistent copy of the node's data into dir, a new folder on the node's machine.
	Backup(ctx context.Context, dir string) error
}

// Explained is what Explain found out.
type Explained struct {
	Record *task.Record
	Steps  []explain.Step
	Why    explain.Why
}

// Submitted answers one spec of Submit.
type Submitted struct {
	ID      string
	Version uint64
	State   task.State
	Existed bool  // the same id and body had been submitted before
	Err     error // a fault; the other fields are zero but for ID
}

// Query filters List.
type Query struct {
	State    task.State        // None: any
	Model    string            // "" any
	Metadata map[string]string // all of these pairs
	Limit    int               // 1 to 1000
	Cursor   string

	Since     time.Time // of final tasks: that ended then or later; not with a cursor
	ErrorKind string    // "" any
	Open      bool      // without those that were tried again
}

// Item is one task of a page.
type Item struct {
	ID     string
	Record *task.Record
}

// Status is a node's condition.
type Status struct {
	Ready      bool             // every shard has an owner
	Reason     string           // why not
	Node       string           // id
	Version    string           // of the program
	StartedAt  time.Time        //
	Shards     int              //
	Owned      int              // shards owned here
	Tasks      map[string]int64 // by state
	Partial    bool             // some shards did not answer: Tasks and Queues lack theirs
	Queues     []Queue          // waiting tasks
	Engines    []EngineStatus   //
	DiskFree   uint64           // bytes
	DiskNeeded uint64           // bytes below which new tasks are refused with 507
	DiskFull   bool             // new tasks are refused now
}

// Queue counts the waiting tasks of one model and priority.
type Queue struct {
	Model    string
	Priority int
	Waiting  int64
}

// EngineStatus is one inference engine as the node sees it.
type EngineStatus struct {
	Name      string
	Models    []string
	Endpoints []string // of OpenAI's API
	Healthy   bool
	Reason    string // of the newest trouble
	Limit     int    // requests at once
	InFlight  int
	Paused    time.Time // it asked for nothing before then
	Restarts  int       // of a supervised child
	Answered  uint64    // since it was added
	Failed    uint64    // of what it was asked
	Mean      float64   // seconds of an answer
	Limits    string    // of it: which are in force, and which are not
	Circuit   string    // closed, open, half-open; "" from a node of an older program
}
