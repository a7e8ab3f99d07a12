package wire

import (
	"time"

	"github.com/open-autoglm/autoglm/actors/schedule"
)

// UpcomingMax is how many planned times a schedule shows.
const UpcomingMax = 5

// Schedule is a schedule as it was created, and what has come of it.
type Schedule struct {
	schedule.Plan

	Status    string         `json:"status" enum:"active,paused,ended" doc:"ended: no time is left."`
	CreatedAt time.Time      `json:"created_at"`
	Upcoming  []time.Time    `json:"upcoming" nullable:"false" doc:"The next planned times, at most 5, by the clocks of its zone; jitter comes on top."`
	Waiting   *time.Time     `json:"waiting,omitempty" doc:"With overlap queue: a planned time that waits until the task before has ended."`
	Pending   int            `json:"pending,omitempty" doc:"Tasks that are being submitted."`
	Recent    []schedule.Run `json:"recent" nullable:"false" doc:"The newest 10 runs, oldest first."`
	Fired     uint64         `json:"fired" doc:"Tasks submitted, by hand or at their time."`
	Skipped   uint64         `json:"skipped" doc:"Times at which the task before had not ended."`
	Missed    uint64         `json:"missed" doc:"Times that passed while no node could submit, and that catch_up left out."`
	Failed    uint64         `json:"failed" doc:"Times whose task was refused: see the error in recent."`
}

// Schedules is all schedules, by name.
type Schedules struct {
	Schedules []Schedule `json:"schedules" nullable:"false"`
}

// ScheduleOf shows a schedule.
func ScheduleOf(s *schedule.State) Schedule {
	w := Schedule{Plan: *s.Plan, Status: s.Phase, CreatedAt: s.CreatedAt, Waiting: moment(s.Waiting), Pending: len(s.Pending), Recent: s.Recent,
		Upcoming: []time.Time{}, Fired: s.Fired, Skipped: s.Skipped, Missed: s.Missed, Failed: s.Failed}
	if w.Recent == nil {
		w.Recent = []schedule.Run{}
	}
	if s.Phase == schedule.Active && s.Next.IsZero() {
		w.Status = "ended"
	}
	if s.Next.IsZero() {
		return w
	}
	zone, err := time.LoadLocation(s.Plan.Zone)
	if err != nil {
		zone = time.UTC
	}
	for _, t := range append([]time.Time{s.Next}, s.Plan.Upcoming(s.Next, UpcomingMax-1)...) {
		w.Upcoming = append(w.Upcoming, t.In(zone))
	}
	return w
}
