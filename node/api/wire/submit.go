package wire

import "github.com/open-autoglm/autoglm/actors/task"

// Submitted answers one submitted task: a single one, an entry of an array, or a line.
type Submitted struct {
	Line    int        `json:"line,omitempty" doc:"Number of the line in a stream, or of the entry in an array, from 1."`
	ID      string     `json:"task_id,omitempty"`
	State   task.State `json:"state,omitempty" enum:"pending,running,completed,failed,cancelled"`
	Version uint64     `json:"version,omitempty"`
	Existed bool       `json:"existed" doc:"The same id and body had been submitted before."`
	Error   *Problem   `json:"error,omitempty" doc:"Why this one was refused; the others are kept."`
}

// Summary ends the answer to many tasks.
type Summary struct {
	Accepted int64    `json:"accepted" doc:"New tasks, now durable."`
	Existed  int64    `json:"existed" doc:"Were there before, with the same body."`
	Rejected int64    `json:"rejected"`
	Error    *Problem `json:"error,omitempty" doc:"Why the stream ended before its input did."`
}

// Count adds one answer.
func (s *Summary) Count(r *Submitted) {
	switch {
	case r.Error != nil:
		s.Rejected++
	case r.Existed:
		s.Existed++
	default:
		s.Accepted++
	}
}

// Many answers an array of tasks.
type Many struct {
	Results []Submitted `json:"results" nullable:"false"`
	Summary Summary     `json:"summary"`
}

// SubmitLine is one line of the answer to a stream: exactly one of its parts is set.
type SubmitLine struct {
	*Submitted
	Summary *Summary `json:"summary,omitempty"`
}
