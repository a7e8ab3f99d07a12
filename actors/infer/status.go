package infer

import "sync"

// EngineState is what the node shows of one engine.
type EngineState struct {
	Name     string
	Models   []string
	Healthy  bool
	Reason   string // of the newest trouble
	Limit    int
	InFlight int

	Unrecorded int // answers on their way to their tasks
}

// Status carries an EngineState from its inference actor to readers.
type Status struct {
	mu sync.Mutex
	s  EngineState
}

// NewStatus names an engine that has not answered yet.
func NewStatus(name string) *Status {
	return &Status{s: EngineState{Name: name, Reason: "not asked yet"}}
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
