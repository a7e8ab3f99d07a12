package infer

import (
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
)

// EngineState is what the node shows of one engine.
type EngineState struct {
	Name      string
	Models    []string
	Endpoints []string // of OpenAI's API: "/v1/chat/completions", …
	Healthy   bool
	Reason    string // of the newest trouble
	Limit     int
	InFlight  int
	Paused    time.Time // the engine asked for nothing before then; zero: it never did

	Pace     Pace    // of the tokens that it answered
	Draining bool    // it takes no more work: what it has ends, and then it goes
	Circuit  Circuit // whether it is trusted

	Answered uint64        // since it was added
	Failed   uint64        // of what it was asked: errors of its own
	Took     time.Duration // all Answered together

	Unrecorded int // answers on their way to their tasks
}

// Status carries an EngineState from its inference actor to readers.
type Status struct {
	mu sync.Mutex
	s  EngineState
}

// NewStatus is of an engine that has not answered yet. Without endpoints it serves chat. models are those that are known already: while it comes
// up, none stands for any.
func NewStatus(name string, endpoints, models []string) *Status {
	if len(endpoints) == 0 {
		endpoints = []string{task.EndpointChat}
	}
	return &Status{s: EngineState{Name: name, Models: models, Endpoints: endpoints, Reason: "not asked yet"}}
}

// Get returns a copy.
func (s *Status) Get() EngineState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.s
}

func (s *Status) set(f func(*EngineState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.s)
}
