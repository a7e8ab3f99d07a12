package bulk

import "slices"

// Progress is how far a batch's lines are. Line <= Reach <= total, and Completed + Failed + Missing <= Reach.
//
// A line below Line is a task for sure. One from Line to Reach may be: somebody who drove this batch was allowed to create it, and
// may have died before he said so. One from Reach on is none, and nobody may make it one before a greater Reach is journaled. So
// whatever crashes, and however many drivers believe in themselves for a moment, it is known which lines there can be. Reach goes
// back only when the one driver that was allowed to go so far says that it will not.
type Progress struct {
	Line    uint64 `json:"line"`
	Offset  int64  `json:"offset"` // where it begins in the input, in bytes
	Reach   uint64 `json:"reach"`
	Missing uint64 `json:"missing,omitempty"` // below Line and yet no task: the input was gone before they were created
	Ends    []Mark `json:"ends,omitempty"`    // by shard: the newest end that is counted
	Tally
}

// Mark is a place in a shard's index of ended lines.
type Mark struct {
	Micro  int64  `json:"t,omitempty"` // Unix microseconds
	Number uint64 `json:"n,omitempty"`
}

// Tally is what ended lines add up to.
type Tally struct {
	Completed    uint64 `json:"completed,omitempty"`
	Failed       uint64 `json:"failed,omitempty"`
	OutputBytes  int64  `json:"output_bytes,omitempty"` // rendered
	ErrorBytes   int64  `json:"error_bytes,omitempty"`
	PromptTokens int64  `json:"prompt_tokens,omitempty"`
	OutputTokens int64  `json:"output_tokens,omitempty"`
}

// Ended is how many lines have ended.
func (t *Tally) Ended() uint64 { return t.Completed + t.Failed }

// Exist is how many lines are tasks, or may become some.
func (p *Progress) Exist() uint64 { return p.Reach - p.Missing }

// follows tells whether p can come after a.
func (p *Progress) follows(a Progress, total uint64) bool {
	return p.Line >= a.Line && p.Offset >= a.Offset && p.Missing >= a.Missing &&
		p.Completed >= a.Completed && p.Failed >= a.Failed &&
		p.Line <= p.Reach && p.Reach <= total && p.Ended()+p.Missing <= p.Reach
}

// same tells whether nothing has happened between p and a.
func (p *Progress) same(a *Progress) bool {
	return p.Line == a.Line && p.Reach == a.Reach && p.Missing == a.Missing && p.Tally == a.Tally && slices.Equal(p.Ends, a.Ends)
}

// ahead is how many lines beyond the last one created may be allowed at once: what a crash leaves in doubt.
const ahead = 4096

// reach is how far lines may be created when line are, ended have ended, and at most window may be open.
func reach(line, ended, total uint64, window int) uint64 {
	return max(line, min(total, ended+uint64(window), line+ahead))
}
