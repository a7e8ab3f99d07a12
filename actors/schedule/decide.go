package schedule

import "time"

// lookMax bounds the times that one decision passes: two years of minutes. Those behind it are for the next one.
const lookMax = 1 << 20

// Decision is what becomes of the planned times that are due.
type Decision struct {
	Fire    []time.Time `json:"fire,omitempty"`
	Waiting time.Time   `json:"waiting,omitzero"` // one waits for the end of the task before
	Skipped int         `json:"skipped,omitempty"`
	Missed  int         `json:"missed,omitempty"`
	Next    time.Time   `json:"next,omitzero"`
}

// asks tells whether a decision at now depends on whether the newest task has ended.
func (s *State) asks(now time.Time) bool {
	return s.Plan.Overlap != OverlapAllow && (!s.Waiting.IsZero() || !s.Next.IsZero() && !s.due(s.Next).After(now))
}

// decide says what becomes of the times that are due at now; busy: the newest task has not ended. nil: nothing changes. Pure.
func (s *State) decide(now time.Time, busy bool) *Decision {
	d := &Decision{Next: s.Next, Waiting: s.Waiting}
	if s.Phase == Active {
		s.catchUp(d, now)
	}
	candidates := d.Fire
	d.Fire = nil
	if !d.Waiting.IsZero() && !busy {
		d.Fire, d.Waiting, busy = append(d.Fire, d.Waiting), time.Time{}, true
	}
	for _, t := range candidates {
		switch {
		case s.Plan.Overlap == OverlapAllow || !busy:
			d.Fire, busy = append(d.Fire, t), true
		case s.Plan.Overlap == OverlapQueue && d.Waiting.IsZero():
			d.Waiting = t
		default:
			d.Skipped++
		}
	}
	if d.Next.Equal(s.Next) && d.Waiting.Equal(s.Waiting) && len(d.Fire) == 0 {
		return nil
	}
	return d
}

// catchUp puts the due times into Fire, as far as the catch-up policy wants them, and moves Next past them.
func (s *State) catchUp(d *Decision, now time.Time) {
	table, err := Parse(s.Plan.Cron, s.Plan.Zone)
	if err != nil {
		return // it was validated; a zone that is gone has no times
	}
	most := 0 // late ones
	switch s.Plan.CatchUp {
	case CatchUpOnce:
		most = 1
	case CatchUpAll:
		most = s.Plan.CatchUpMax
	}
	var late, timely []time.Time
	for range lookMax {
		if d.Next.IsZero() || s.due(d.Next).After(now) {
			break
		}
		if now.Sub(s.due(d.Next)) <= lateAfter {
			timely = append(timely, d.Next)
		} else if late = append(late, d.Next); len(late) > most {
			late = late[1:]
			d.Missed++
		}
		d.Next = s.Plan.within(table, d.Next)
	}
	if s.Plan.CatchUp == CatchUpOnce && len(timely) > 0 {
		d.Missed += len(late)
		late = nil
	}
	d.Fire = append(late, timely...)
}
