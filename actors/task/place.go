package task

import (
	"fmt"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Part says which question of a map an answer is to. It is journaled with the answer, so that a task knows where it stands without
// its data.
type Part struct {
	Level int `json:"level,omitempty"` // 0: a part of the data; 1 and more: a merge
	Index int `json:"index,omitempty"` // from 0
	Of    int `json:"of"`              // questions of this level
}

// place is what a task asks next.
type place struct {
	question int  // see Spec.questions
	part     Part // of a map; Of is 0 before the data was split
	merges   []string
	done     bool // there is nothing more to ask
}

// outcome is how a question ended: its answer, and for a map what the last merge was made of.
type outcome struct {
	answer *Answer
	merged []string
	part   Part
}

// walk says from the answers so far what is asked next, and how each question before it ended. Pure: the answers are the journal's.
func (s *Spec) walk(answers []Answer) (at place, past []outcome) {
	for q := range s.questions() {
		step := s.step(q)
		if step == nil || step.Map == nil {
			if len(answers) == 0 {
				return place{question: q}, past
			}
			past = append(past, outcome{answer: &answers[0]})
			answers = answers[1:]
			continue
		}
		n := 0
		if len(answers) > 0 {
			n = partsOf(&answers[0])
		}
		if len(answers) < n || n == 0 {
			return place{question: q, part: Part{Index: len(answers), Of: n}}, past
		}
		texts := textsOf(answers[:n])
		answers = answers[n:]
		for level := 1; ; level++ {
			groups := step.Reduce.groups(texts)
			if have := len(answers); have < len(groups) {
				return place{question: q, part: Part{Level: level, Index: have, Of: len(groups)}, merges: groups[have]}, past
			}
			if len(groups) == 1 {
				past = append(past, outcome{answer: &answers[0], merged: groups[0], part: Part{Level: level, Of: 1}})
				answers = answers[1:]
				break
			}
			texts, answers = textsOf(answers[:len(groups)]), answers[len(groups):]
		}
	}
	return place{question: s.questions(), done: true}, past
}

func partsOf(a *Answer) int {
	if a.Part == nil {
		return 1
	}
	return max(1, a.Part.Of)
}

func textsOf(answers []Answer) []string {
	texts := make([]string, len(answers))
	for i := range answers {
		texts[i] = answers[i].Text
	}
	return texts
}

// groups packs texts into merges, in order: as many as go into Size, but two at least, so that each level has at most half as many.
func (r *Reduce) groups(texts []string) [][]string {
	most := r.Size
	if most == 0 {
		most = reduceSize
	}
	var all [][]string
	size := 0
	for i, t := range texts {
		last := len(all) - 1
		alone := i == len(texts)-1 // nobody is left to go with it
		if last < 0 || len(all[last]) >= 2 && size+len(t) > most && !alone {
			all, size, last = append(all, nil), 0, last+1
		}
		all[last] = append(all[last], t)
		size += len(t)
	}
	return all
}

// Ends tells whether an answer is the task's last one.
func (r *Record) Ends(a *Answer) bool {
	at, _ := r.Spec.walk(append(r.Answers[:len(r.Answers):len(r.Answers)], *a))
	return at.done
}

// Results are the answers to the questions that are done, a map's being that of its last merge.
func (r *Record) Results() []Answer {
	if r.Spec == nil {
		return nil
	}
	_, past := r.Spec.walk(r.Answers)
	all := make([]Answer, len(past))
	for i, o := range past {
		all[i] = *o.answer
	}
	return all
}

// Where says in words what a task with steps asks next, "" for one question and when all are done.
func (r *Record) Where() string {
	if r.Spec == nil || len(r.Spec.Steps) == 0 {
		return ""
	}
	at, _ := r.Spec.walk(r.Answers)
	if at.done {
		return ""
	}
	text := fmt.Sprintf("step %d of %d", at.question+1, r.Spec.questions())
	step := r.Spec.step(at.question)
	if step != nil && step.Name != "" {
		text += fmt.Sprintf(" (%s)", step.Name)
	}
	switch {
	case step == nil || step.Map == nil:
	case at.part.Level == 0 && at.part.Of == 0:
		text += ", part 1"
	case at.part.Level == 0:
		text += fmt.Sprintf(", part %d of %d", at.part.Index+1, at.part.Of)
	default:
		text += fmt.Sprintf(", merge %d of %d, level %d", at.part.Index+1, at.part.Of, at.part.Level)
	}
	return text
}

// Pinned is the hash of the data that finished steps saw, "" where nothing is pinned: a task whose templates or map use the data must
// see the same to its end.
func (r *Record) Pinned() string {
	if !r.Spec.pins() {
		return ""
	}
	for i := range r.Answers {
		if h := r.Answers[i].DataSHA256; h != "" {
			return h
		}
	}
	return ""
}

// SameData refuses data that is not what the steps before saw. Nothing of it is asked: half of the answers would be about something else.
func (r *Record) SameData(sha string) error {
	if p := r.Pinned(); p != "" && p != sha {
		return fault.New(fault.Conflict, "task.data", "data_url", "what data_url gives has changed since the first step: its SHA-256 was %.16s…, now it is %.16s…", p, sha).
			WithRemedy("submit the task under a new id to start over with the new data")
	}
	return nil
}

// Pins tells whether all steps must see the same data.
func (r *Record) Pins() bool { return r.Spec.pins() }

func (s *Spec) pins() bool {
	if s.DataURL == "" {
		return false
	}
	for i := range s.Steps {
		if s.Steps[i].Map != nil {
			return true
		}
		if s.Steps[i].plain() {
			continue
		}
		for _, t := range s.Steps[i].templates() {
			if f, err := parseForm(t.text, rootOf(s)...); err == nil && f.data {
				return true
			}
		}
	}
	return false
}
