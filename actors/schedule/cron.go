package schedule

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // the same zones on every machine, also where none are installed

	"github.com/robfig/cron/v3"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// ZoneDefault is the zone of a schedule that names none.
const ZoneDefault = "UTC"

// foldMax bounds the planned times that one look passes because they are not after the one before: minutes of a day that a zone left out.
const foldMax = 3 * 24 * 60

// Timetable is the times that a cron expression means in a zone. It is a value without a clock.
//
// Where clocks are put forward, and back, an expression with fixed hours means each of its times of day once: one that is left out
// comes when the clocks have been put forward, one that there is twice comes the first time. An expression for every hour (its field
// of hours begins with *) goes by hours that pass: it comes in both hours of the same name, and not in the one that there is not.
type Timetable struct {
	spec  cron.Schedule
	zone  *time.Location
	hours bool // fixed ones
}

var parser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// Parse reads five fields (minute, hour, day of month, month, day of week) or @hourly, @daily, @weekly, @monthly, @yearly, and the name of
// an IANA zone.
func Parse(expr, zone string) (*Timetable, error) {
	bad := func(field, format string, args ...any) *fault.Error {
		return fault.New(fault.Invalid, "schedule.parse", field, format, args...)
	}
	if zone == "" {
		zone = ZoneDefault
	}
	loc, err := time.LoadLocation(zone)
	if err != nil || zone == "Local" {
		return nil, bad("zone", "is %.80q: use a name like Europe/Berlin or UTC", zone)
	}
	expr = strings.TrimSpace(expr)
	switch {
	case strings.HasPrefix(expr, "TZ=") || strings.HasPrefix(expr, "CRON_TZ="):
		return nil, bad("cron", "names a zone").WithRemedy("give it as zone")
	case strings.HasPrefix(expr, "@every"):
		return nil, bad("cron", "is %.80q: an interval has no times of its own", expr).WithRemedy("use fields, like */10 * * * *")
	}
	spec, err := parser.Parse(sundays(expr))
	if err != nil {
		return nil, bad("cron", "is %.80q: %s", expr, plainly(expr, err)).WithRemedy("use five fields, minute hour day month weekday, like 30 2 * * 1-5, or @hourly, @daily, @weekly, @monthly, @yearly")
	}
	t := &Timetable{spec: spec, zone: loc}
	if fields := strings.Fields(expr); len(fields) == 5 {
		t.hours = !strings.HasPrefix(fields[1], "*") && !strings.HasPrefix(fields[1], "?")
	} else {
		t.hours = expr != "@hourly"
	}
	return t, nil
}

// fieldsOf are the fields of an expression, with what each may be.
var fieldsOf = []struct{ name, may string }{{"minute", "0 to 59"}, {"hour", "0 to 23"}, {"day of month", "1 to 31"}, {"month", "1 to 12, or JAN to DEC"}, {"day of week", "0 to 7 (0 and 7 are Sunday), or SUN to SAT"}}

// sundays writes 7, which is Sunday in other crons, as the parser's 0: a span up to it becomes one up to 6, and 0.
func sundays(expr string) string {
	fields := strings.Fields(expr)
	if len(fields) != len(fieldsOf) {
		return expr
	}
	days := strings.Split(fields[4], ",")
	for i, d := range days {
		span, step, stepped := strings.Cut(d, "/")
		from, to, two := strings.Cut(span, "-")
		switch {
		case d == "7":
			days[i] = "0"
		case two && from == "7" && to == "7" && !stepped:
			days[i] = "0"
		case two && to == "7" && len(from) == 1 && from[0] >= '0' && from[0] <= '6':
			days[i] = from + "-6"
			every := 1
			if stepped {
				days[i] += "/" + step
				every, _ = strconv.Atoi(step) // the parser says what is wrong with it
			}
			if every > 0 && int('7'-from[0])%every == 0 {
				days[i] += ",0"
			}
		}
	}
	fields[4] = strings.Join(days, ",")
	return strings.Join(fields, " ")
}

// plainly says what is wrong with an expression in a user's words: which field, and what it may be.
func plainly(expr string, err error) string {
	fields := strings.Fields(expr)
	switch {
	case strings.HasPrefix(expr, "@"):
		return "there is no such name"
	case len(fields) != len(fieldsOf):
		return fmt.Sprintf("has %d fields instead of five", len(fields))
	}
	for i, f := range fields { // the first that is wrong where all others are right
		alone := []string{"*", "*", "*", "*", "*"}
		alone[i] = f
		if _, err := parser.Parse(sundays(strings.Join(alone, " "))); err != nil {
			return fmt.Sprintf("the %s is %q: it may be %s, with - , / and *", fieldsOf[i].name, f, fieldsOf[i].may)
		}
	}
	return err.Error()
}

// Next is the first time after t; zero: there is none, within five years.
func (x *Timetable) Next(t time.Time) time.Time {
	if !x.hours {
		return utc(x.spec.Next(t.In(x.zone)))
	}
	clock := naive(t.In(x.zone))
	for range foldMax {
		if clock = x.spec.Next(clock); clock.IsZero() {
			return time.Time{}
		}
		if at := x.at(clock); at.After(t) {
			return utc(at)
		}
	}
	return time.Time{}
}

func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}

// naive is what the clock on the wall shows, as a time in UTC, which has no jumps.
func naive(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
}

// at is when the clock on the wall shows that for the first time; where it never does, when it has been put forward past it.
func (x *Timetable) at(clock time.Time) time.Time {
	t := time.Date(clock.Year(), clock.Month(), clock.Day(), clock.Hour(), clock.Minute(), clock.Second(), 0, x.zone)
	start, end := t.ZoneBounds()
	switch shown := naive(t); {
	case shown.After(clock): // t is behind the jump
		return start
	case shown.Before(clock): // before it
		return end
	}
	if start.IsZero() {
		return t
	}
	_, before := start.Add(-time.Second).Zone()
	if first := clock.Add(-time.Duration(before) * time.Second); first.Before(start) {
		return first
	}
	return t
}
