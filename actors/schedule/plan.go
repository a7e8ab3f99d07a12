package schedule

import (
	"bytes"
	"encoding/json"
	"hash/fnv"
	"regexp"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// What happens to a time at which the task before has not ended.
const (
	OverlapSkip  = "skip"  // nothing is submitted
	OverlapAllow = "allow" // both run
	OverlapQueue = "queue" // one time waits for its end; those behind it are skipped
)

// What happens to times that are late: nobody was there to submit their tasks.
const (
	CatchUpOnce = "once" // the newest of them, unless one that is not late is due as well
	CatchUpSkip = "skip"
	CatchUpAll  = "all" // the newest catch_up_max of them
)

// Limits of a schedule.
const (
	CatchUpMax    = 1000
	catchUpUsual  = 100 // of CatchUpAll, where nothing is said
	JitterMax     = time.Hour
	metadataOwned = 2           // pairs that a schedule adds to its tasks' metadata
	lateAfter     = time.Minute // behind its time, jitter among it; a failover is quicker
)

// Metadata that a schedule adds to its tasks.
const (
	MetaSchedule = "schedule"     // its name
	MetaPlanned  = "scheduled_at" // the planned time
)

// Plan is what a client says of a schedule.
type Plan struct {
	Name       string        `json:"name" doc:"Its id: 1 to 63 of a-z, 0-9, - and _, a letter or a digit first."`
	Cron       string        `json:"cron" doc:"Minute, hour, day of month, month, day of week, like \"30 2 * * 1-5\"; or @hourly, @daily, @weekly, @monthly, @yearly."`
	Zone       string        `json:"zone,omitempty" doc:"IANA name of the zone whose clocks it goes by; UTC when empty."`
	Task       *task.Spec    `json:"task" doc:"What is submitted each time, as in POST /v1/tasks, without task_id, deadline and not_before."`
	Overlap    string        `json:"overlap,omitempty" enum:"skip,allow,queue" doc:"Where the task before has not ended: skip (the default), allow both, or queue one."`
	CatchUp    string        `json:"catch_up,omitempty" enum:"once,skip,all" doc:"Of times that passed while no node could submit: once (the default) for all of them, skip, or all."`
	CatchUpMax int           `json:"catch_up_max,omitempty" doc:"With catch_up all: at most so many of the newest; 100 when empty."`
	Start      *time.Time    `json:"start,omitempty" doc:"No time before this one."`
	End        *time.Time    `json:"end,omitempty" doc:"No time after this one."`
	Jitter     task.Duration `json:"jitter,omitempty" doc:"Each task is submitted up to so much later, always the same for the same time: many schedules of one hour do not come at once."`
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// Validate checks what needs nothing but the plan itself, and fills in what is empty.
func (p *Plan) Validate() error {
	bad := func(field, format string, args ...any) *fault.Error {
		return fault.New(fault.Invalid, "schedule.create", field, format, args...)
	}
	if p.Zone == "" {
		p.Zone = ZoneDefault
	}
	if p.Overlap == "" {
		p.Overlap = OverlapSkip
	}
	if p.CatchUp == "" {
		p.CatchUp = CatchUpOnce
	}
	if p.CatchUp == CatchUpAll && p.CatchUpMax == 0 {
		p.CatchUpMax = catchUpUsual
	}
	switch {
	case !nameForm.MatchString(p.Name):
		return bad("name", "is %.80q: use 1 to 63 of a-z, 0-9, - and _, a letter or a digit first", p.Name)
	case p.Overlap != OverlapSkip && p.Overlap != OverlapAllow && p.Overlap != OverlapQueue:
		return bad("overlap", "is %.40q: use skip, allow or queue", p.Overlap)
	case p.CatchUp != CatchUpOnce && p.CatchUp != CatchUpSkip && p.CatchUp != CatchUpAll:
		return bad("catch_up", "is %.40q: use once, skip or all", p.CatchUp)
	case p.CatchUp == CatchUpAll && p.Overlap != OverlapAllow:
		return bad("catch_up", "is all, and overlap %s would skip all but one of them", p.Overlap).WithRemedy("use overlap allow, or catch_up once")
	case p.CatchUp != CatchUpAll && p.CatchUpMax != 0:
		return bad("catch_up_max", "goes with catch_up all only")
	case p.CatchUpMax < 0 || p.CatchUpMax > CatchUpMax:
		return bad("catch_up_max", "is %d: use 1 to %d", p.CatchUpMax, CatchUpMax)
	case p.Jitter < 0 || time.Duration(p.Jitter) > JitterMax:
		return bad("jitter", "is %v: use 0s to %v", time.Duration(p.Jitter), JitterMax)
	case p.Start != nil && p.End != nil && !p.End.After(*p.Start):
		return bad("end", "is not after start: there is no time between them")
	case p.Task == nil:
		return bad("task", "is missing")
	case p.Task.ID != "":
		return bad("task.task_id", "is given: each task gets one of the schedule's").WithRemedy("leave it out")
	case p.Task.Deadline != nil || p.Task.NotBefore != nil:
		return bad("task.deadline", "and not_before are for one task").WithRemedy("leave them out")
	case len(p.Task.Metadata) > task.MetadataMax-metadataOwned:
		return bad("task.metadata", "has %d pairs, the limit is %d: the schedule adds %s and %s", len(p.Task.Metadata), task.MetadataMax-metadataOwned, MetaSchedule, MetaPlanned)
	}
	table, err := Parse(p.Cron, p.Zone)
	if err != nil {
		return err
	}
	if err := p.Task.Validate(); err != nil {
		return err
	}
	if table.Next(time.Unix(0, 0)).IsZero() {
		return bad("cron", "is %.80q, a time that there never is", p.Cron)
	}
	return nil
}

// same tells whether two valid plans are one: creating a schedule again is harmless.
func (p *Plan) same(o *Plan) bool {
	a, errA := json.Marshal(p)
	b, errB := json.Marshal(o)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// next is the first planned time after t; zero: there is none any more.
func (p *Plan) next(t time.Time) time.Time {
	table, err := Parse(p.Cron, p.Zone)
	if err != nil {
		return time.Time{} // it was validated; a zone that is gone has no times
	}
	return p.within(table, t)
}

func (p *Plan) within(table *Timetable, t time.Time) time.Time {
	if p.Start != nil && t.Before(*p.Start) {
		t = p.Start.Add(-time.Nanosecond)
	}
	at := table.Next(t)
	if p.End != nil && at.After(*p.End) {
		return time.Time{}
	}
	return at
}

// Upcoming returns the next n planned times after t.
func (p *Plan) Upcoming(t time.Time, n int) (times []time.Time) {
	for len(times) < n {
		if t = p.next(t); t.IsZero() {
			break
		}
		times = append(times, t)
	}
	return times
}

// delay is how much later than planned a task is submitted: by chance, and always the same for the same time.
func (p *Plan) delay(life string, planned time.Time) time.Duration {
	if p.Jitter <= 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(p.Name + "\x00" + life + "\x00" + planned.UTC().Format(time.RFC3339)))
	x := h.Sum64()
	x ^= x >> 33 // the low bits of FNV differ little for texts that do
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return time.Duration(x % uint64(p.Jitter))
}
