package task

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// types are the messages and answers of a task as they travel between nodes. A name is for ever.
var types = cluster.NewTypes().
	Add("submit", (*Submit)(nil)).
	Add("claim", (*Claim)(nil)).
	Add("done", (*Done)(nil)).
	Add("lost", (*Lost)(nil)).
	Add("return", (*Return)(nil)).
	Add("cancel", (*Cancel)(nil)).
	Add("called", (*Called)(nil)).
	Add("forget", (*Forget)(nil)).
	Add("forgotten", Forgotten{}).
	Add("retried", (*TriedAgain)(nil)).
	Add("accepted", Accepted{}).
	Add("dropped", Dropped{}).
	Add("record", Record{}).
	Add("work", (*Work)(nil))

// saidMax cuts an error's text on the wire, in bytes; a Failure keeps less.
const saidMax = 4096

// Said is an error as it travels: its Kind, text and remedy.
type Said struct {
	Kind   string `json:"kind"` // fault.Kind.String()
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`

	Status int             `json:"status,omitempty"` // of an EngineError
	Body   json.RawMessage `json:"body,omitempty"`
	Broke  string          `json:"broke,omitempty"` // the answer of a BrokenForm
}

// SaidOf is what is kept of err; nil for nil.
func SaidOf(err error) *Said {
	if err == nil {
		return nil
	}
	s := &Said{Kind: fault.KindOf(err).String(), Text: fault.Plain(err), Remedy: fault.RemedyOf(err)}
	if len(s.Text) > saidMax {
		s.Text = s.Text[:saidMax]
	}
	if e, ok := errors.AsType[*EngineError](err); ok {
		s.Status, s.Body = e.Status, e.Body
	}
	if e, ok := errors.AsType[*BrokenForm](err); ok {
		s.Broke = e.Text
	}
	return s
}

// Err returns an error of the same Kind, text and remedy; nil for nil. A Kind of a newer program is Unknown.
func (s *Said) Err() error {
	if s == nil {
		return nil
	}
	h := &heard{s.Text, &fault.Error{Op: "remote", Kind: kindNamed(s.Kind), Remedy: s.Remedy, Err: errors.New(s.Text)}}
	if s.Status != 0 {
		return &EngineError{Status: s.Status, Body: s.Body, Err: h}
	}
	if s.Broke != "" {
		return &BrokenForm{Text: s.Broke, Err: h}
	}
	return h
}

// heard says what the error on the other node said to people, and has its Kind.
type heard struct {
	text  string
	cause *fault.Error
}

func (h *heard) Error() string { return h.text }
func (h *heard) Unwrap() error { return h.cause }

func kindNamed(name string) fault.Kind {
	for k := fault.Invalid; k.String() != fault.Unknown.String(); k++ {
		if k.String() == name {
			return k
		}
	}
	return fault.Unknown
}

// lostWire is Lost on the wire.
type lostWire struct {
	Attempt    uint32        `json:"attempt"`
	Epoch      uint64        `json:"epoch"`
	Err        *Said         `json:"err,omitempty"`
	RetryAfter time.Duration `json:"retry_after,omitempty"`
	Dropped    bool          `json:"dropped,omitempty"`
}

// MarshalJSON keeps of Err what Said does.
func (m Lost) MarshalJSON() ([]byte, error) {
	return json.Marshal(lostWire{m.Attempt, m.Epoch, SaidOf(m.Err), m.RetryAfter, m.Dropped})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (m *Lost) UnmarshalJSON(b []byte) error {
	var w lostWire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*m = Lost{w.Attempt, w.Epoch, w.Err.Err(), w.RetryAfter, w.Dropped}
	return nil
}

// calledWire is Called on the wire.
type calledWire struct {
	Try    int           `json:"try"`
	Err    *Said         `json:"err,omitempty"`
	Wait   time.Duration `json:"wait,omitempty"`
	GiveUp bool          `json:"give_up,omitempty"`
}

// MarshalJSON keeps of Err what Said does.
func (m Called) MarshalJSON() ([]byte, error) {
	return json.Marshal(calledWire{m.Try, SaidOf(m.Err), m.Wait, m.GiveUp})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (m *Called) UnmarshalJSON(b []byte) error {
	var w calledWire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*m = Called{w.Try, w.Err.Err(), w.Wait, w.GiveUp}
	return nil
}
