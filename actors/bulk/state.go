package bulk

import (
	"maps"
	"slices"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Header is a batch as its client asked for it. It is journaled once and never changes.
type Header struct {
	InputFile     string            `json:"input_file"`
	Endpoint      string            `json:"endpoint"`
	Window        string            `json:"window"` // as the client wrote it
	Within        time.Duration     `json:"within"` // what it means
	Metadata      map[string]string `json:"metadata,omitempty"`
	OutputExpires time.Duration     `json:"output_expires,omitempty"` // of the output and error file, after each is made; 0: never
	MixedModels   bool              `json:"mixed_models,omitempty"`   // its lines may name several models
	CallbackURL   string            `json:"callback_url,omitempty"`   // gets the events of this batch, beside those of the configuration
	Priority      *task.Priority    `json:"priority,omitempty"`       // of lines that name none
	RetryOf       string            `json:"retry_of,omitempty"`       // the batch whose failed lines these are
}

func (h *Header) equal(o *Header) bool {
	a, b := *h, *o
	a.Metadata, b.Metadata, a.Priority, b.Priority = nil, nil, nil, nil
	prio := h.Priority == o.Priority || h.Priority != nil && o.Priority != nil && *h.Priority == *o.Priority
	return prio && maps.Equal(h.Metadata, o.Metadata) && a.plain() == b.plain()
}

// plain is what of a Header can be compared.
func (h *Header) plain() [8]any {
	return [8]any{h.InputFile, h.Endpoint, h.Window, h.Within, h.OutputExpires, h.MixedModels, h.CallbackURL, h.RetryOf}
}

// Problem is what is wrong with a line of the input, as OpenAI's API says it.
type Problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Param   string `json:"param,omitempty"`
	Line    uint64 `json:"line,omitempty"` // 1-based; 0: of the whole
}

// State is what a batch's journaled facts add up to. It never holds lines.
type State struct {
	Phase     Phase     `json:"phase"`
	Header    *Header   `json:"header,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`

	InProgressAt time.Time `json:"in_progress_at,omitzero"`
	StoppedAt    time.Time `json:"stopped_at,omitzero"` // cancelling, expiring or finalizing since
	EndedAt      time.Time `json:"ended_at,omitzero"`   // final since
	CancelledAt  time.Time `json:"cancel_asked_at,omitzero"`

	Paused   bool           `json:"paused,omitempty"`
	Priority *task.Priority `json:"priority,omitempty"` // the one of the header, or the newest
	Total    uint64         `json:"total,omitempty"`    // lines of the input; known once it is accepted
	Model    string         `json:"model,omitempty"`    // of all lines; "" when they name several
	Errors   []Problem      `json:"errors,omitempty"`   // the first problemsMax

	Progress
	Rest  Rest   `json:"rest,omitzero"`
	Hooks []Hook `json:"hooks,omitempty"`
}

// Rest is the lines that were never created.
type Rest struct {
	Lines uint64 `json:"lines,omitempty"`
	Bytes int64  `json:"bytes,omitempty"` // in the error file; fewer lines are there when the input is gone
}

// Fact is one thing that happened to a batch, as journaled. Which fields are set depends on Event.
type Fact struct {
	Event    Event          `json:"event"`
	At       time.Time      `json:"at"`
	Header   *Header        `json:"header,omitempty"`   // Created
	Total    uint64         `json:"total,omitempty"`    // Accepted
	Model    string         `json:"model,omitempty"`    // Accepted
	Errors   []Problem      `json:"errors,omitempty"`   // Rejected; CancelAsked, when the input is gone
	Progress *Progress      `json:"progress,omitempty"` // Progressed
	Priority *task.Priority `json:"priority,omitempty"` // Prioritized
	Rest     Rest           `json:"rest,omitzero"`      // Finished
	URLs     []string       `json:"urls,omitempty"`     // Rejected, Finished: whom to tell
	Hook     int            `json:"hook,omitempty"`     // Hook…: which of them
	Try      int            `json:"try,omitempty"`      // Hook…
	Until    time.Time      `json:"until,omitzero"`     // HookLost: next try

	Failure *task.Failure `json:"failure,omitempty"` // HookLost, HookGaveUp
}

// Apply folds one fact into s. It is pure: recovery folds with the same Apply as the live actor. A fact that the lifecycle
// refuses gives a Conflict fault and the state unchanged.
func (s State) Apply(f Fact) (State, error) {
	next, ok := Next(s.Phase, f.Event)
	if !ok {
		return s, fault.New(fault.Conflict, "bulk.apply", "", "%v cannot happen to a batch that is %v", f.Event, s.Phase)
	}
	was := s
	switch f.Event {
	case Created:
		if f.Header == nil {
			return was, fault.New(fault.Corrupt, "bulk.apply", "", "created without a header")
		}
		s.Header, s.Priority, s.CreatedAt, s.ExpiresAt = f.Header, f.Header.Priority, f.At, f.At.Add(f.Header.Within)
	case Accepted:
		s.Total, s.Model, s.InProgressAt = f.Total, f.Model, f.At
	case Rejected:
		s.Errors = f.Errors
	case Progressed:
		if f.Progress == nil || !f.Progress.follows(s.Progress, s.Total) {
			return was, fault.New(fault.Corrupt, "bulk.apply", "", "a progress that goes back, or beyond the %d lines", s.Total)
		}
		s.Progress = *f.Progress
	case Paused, Resumed:
		s.Paused = f.Event == Paused
	case Prioritized:
		s.Priority = f.Priority
	case CancelAsked:
		s.CancelledAt, s.Errors = f.At, append(slices.Clip(s.Errors), f.Errors...)
	case Drained:
		if s.Ended() != s.Total {
			return was, fault.New(fault.Corrupt, "bulk.apply", "", "%d of %d lines have ended", s.Ended(), s.Total)
		}
	case Finished:
		if s.Ended() != s.Exist() || s.Ended()+f.Rest.Lines != s.Total {
			return was, fault.New(fault.Corrupt, "bulk.apply", "", "%d lines ended and %d never were: not %d", s.Ended(), f.Rest.Lines, s.Total)
		}
		s.Rest = f.Rest
	case HookSent, HookLost, HookGaveUp:
		if f.Hook < 0 || f.Hook >= len(s.Hooks) {
			return was, fault.New(fault.Corrupt, "bulk.apply", "", "there is no webhook %d", f.Hook)
		}
		s.Hooks = slices.Clone(s.Hooks)
		s.Hooks[f.Hook] = s.Hooks[f.Hook].after(f)
	}
	if next != s.Phase && (next == Expiring || next == Cancelling || next == Finalizing) {
		s.StoppedAt = f.At
	}
	if next.Final() && !s.Phase.Final() {
		s.EndedAt, s.Paused = f.At, false
		for _, u := range f.URLs {
			s.Hooks = append(s.Hooks, Hook{URL: u, Next: f.At})
		}
	}
	s.Phase = next
	return s, nil
}

// Counts is how many lines there are, and how they ended. In a final state they add up.
func (s *State) Counts() (total, completed, failed uint64) {
	return s.Total, s.Completed, s.Failed + s.Rest.Lines
}

// Bytes is how long the file of a part is; without a line there is none.
func (s *State) Bytes(part string) int64 {
	if part == PartOutput {
		return s.OutputBytes
	}
	return s.ErrorBytes + s.Rest.Bytes
}

// Hook is one receiver of the event of a final batch.
type Hook struct {
	URL   string        `json:"url"`
	Done  bool          `json:"done,omitempty"` // delivered, or given up
	Tries int           `json:"tries,omitempty"`
	Next  time.Time     `json:"next,omitzero"`
	Error *task.Failure `json:"error,omitempty"` // of the newest failed try
}

func (h Hook) after(f Fact) Hook {
	h.Tries, h.Error, h.Next = f.Try, f.Failure, f.Until
	h.Done = f.Event != HookLost
	return h
}

// wake is when the batch has something to do that nobody but it remembers. While it is not final that is a constant: the
// timer repeats itself, on whichever node owns the batch.
func (s State) wake() (at time.Time) {
	if s.Phase == None {
		return at
	}
	if !s.Phase.Final() {
		return s.CreatedAt
	}
	for _, h := range s.Hooks {
		if !h.Done && (at.IsZero() || h.Next.Before(at)) {
			at = h.Next
		}
	}
	return at
}

// busy tells whether a driver has something to do. A batch that is paused has none once what was created has ended: it must
// not keep others from theirs.
func (s *State) busy() bool {
	idle := s.Phase == InProgress && s.Paused && s.Ended() >= s.Line && s.Ended() < s.Total
	return s.Phase != None && !s.Phase.Final() && !idle
}
