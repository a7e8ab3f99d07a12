package schedule

import (
	"time"

	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// KindName is the kind of a schedule; its id is its name, of its tenant.
const KindName = "schedule"

// IndexAll has the schedules of a tenant that are not deleted, by their ids.
const IndexAll = "schedules"

const snapshotEvery = 32 // rows: only the newest state counts

// Key is the journal of a schedule.
func Key(id string) persistence.Key { return persistence.Key{Kind: KindName, ID: id} }

// What one may say to a schedule. Each is answered with its State.
type (
	Create struct { // the same plan again is harmless
		Plan *Plan  `json:"plan"`
		Life string `json:"life"` // unique
	}
	Pause  struct{}
	Resume struct{}
	Delete struct{}
	Fire   struct { // now, whatever the plan says
		Request string `json:"request"` // a repeat of it changes nothing
	}
)

// Report is what a driver decided or did on the state that it saw. Another state by now refuses it with a conflict.
type Report struct {
	Epoch     uint64    `json:"epoch"`   // of the owner that the driver was started by
	Version   uint64    `json:"version"` // of the state that it saw
	Decision  *Decision `json:"decision,omitempty"`
	Submitted []Run     `json:"submitted,omitempty"`
}

// Driver does the work of schedules on a node. Its method does not block.
type Driver interface {
	Ensure(id string, epoch uint64) // this schedule has something to do here
}

// NewKind describes the kind. driver hears of a schedule when it has work, at least once every few seconds.
func NewKind(driver Driver) *entity.Kind[State, Fact] {
	b := behavior{driver}
	return &entity.Kind[State, Fact]{
		Name:          KindName,
		Apply:         State.Apply,
		Behave:        func(State) entity.Behavior[State, Fact] { return b.serve },
		Enter:         b.drive,
		Index:         index,
		Timer:         State.wake,
		Nap:           true,
		SnapshotEvery: snapshotEvery,
		Truncate:      true,
		Types: cluster.NewTypes().Add("create", Create{}).Add("pause", Pause{}).Add("resume", Resume{}).Add("delete", Delete{}).Add("fire", Fire{}).
			Add("report", Report{}).Add("state", State{}),
	}
}

func index(id string, before, after State) []persistence.Index {
	was, is := before.exists(), after.exists()
	if was == is {
		return nil
	}
	return []persistence.Index{{Name: tenant.Index(IndexAll, tenant.Of(id)), Key: []byte(id), Delete: was}}
}

type behavior struct{ driver Driver }

type turn = entity.Context[State, Fact]

func (b behavior) serve(c *turn) {
	s := c.State()
	switch m := c.Message().(type) {
	case Create:
		create(c, m)
	case entity.Wake:
		b.drive(c)
	default:
		if !s.exists() {
			c.Refuse(noSuch(tenant.Bare(c.ID())))
			return
		}
		ask(c, m)
	}
}

func create(c *turn, m Create) {
	s := c.State()
	switch {
	case m.Plan == nil || m.Life == "":
		c.Refuse(fault.New(fault.Invalid, "schedule.create", c.ID(), "there is no plan"))
	case !s.exists():
		commit(c, Fact{Event: created, Plan: m.Plan, Life: m.Life, Next: m.Plan.next(c.Now())})
	case s.Plan.same(m.Plan):
		c.Reply(s)
	default:
		c.Refuse(fault.New(fault.Conflict, "schedule.create", c.ID(), "there is a schedule of this name, with another plan").
			WithRemedy("delete it first, or choose another name"))
	}
}

func ask(c *turn, msg any) {
	s := c.State()
	switch m := msg.(type) {
	case Pause:
		once(c, s.Phase == Paused, Fact{Event: paused})
	case Resume: // the times that passed meanwhile were not wanted
		once(c, s.Phase == Active, Fact{Event: resumed, Next: s.Plan.next(c.Now())})
	case Delete:
		commit(c, Fact{Event: deleted})
	case Fire:
		if len(s.Pending) >= pendingMax {
			c.Refuse(fault.New(fault.Overloaded, "schedule.run", s.Plan.Name, "%d runs wait to be submitted", len(s.Pending)).WithRemedy("try again later"))
			return
		}
		r := Run{Planned: c.Now().UTC().Truncate(time.Second), Task: s.Plan.Name + "-" + s.Life + "-run-" + m.Request, ByHand: true}
		once(c, s.knows(r.Task), Fact{Event: ran, Run: &r})
	case Report:
		report(c, m)
	}
}

// pendingMax bounds the runs by hand that wait to become tasks.
const pendingMax = 100

// knows tells whether a task is among the newest.
func (s *State) knows(id string) bool {
	for _, r := range append(s.Pending[:len(s.Pending):len(s.Pending)], s.Recent...) {
		if r.Task == id {
			return true
		}
	}
	return false
}

// once commits f unless what it asks for is so already.
func once(c *turn, already bool, f Fact) {
	if already {
		c.Reply(c.State())
		return
	}
	commit(c, f)
}

func commit(c *turn, f Fact) {
	f.At = c.Now()
	c.Commit(f)
	c.ReplyWith(func(s State) any { return s })
}

func report(c *turn, m Report) {
	switch {
	case m.Epoch != c.Epoch() || m.Version != c.Version():
		c.Refuse(fault.New(fault.Conflict, "schedule.report", c.ID(), "it is about another state than that of now"))
	case m.Decision != nil:
		commit(c, Fact{Event: decided, Decision: m.Decision})
	default:
		commit(c, Fact{Event: submitted, Submitted: m.Submitted})
	}
}

// drive sees to it that a driver works when there is something to do: after each commit but its own, after waking up, and when the timer rings.
func (b behavior) drive(c *turn) {
	if _, driven := c.Message().(Report); driven && !c.Recovered() {
		return
	}
	if at := c.State().wake(); !at.IsZero() && !at.After(c.Now()) {
		b.driver.Ensure(c.ID(), c.Epoch())
	}
}

func noSuch(name string) *fault.Error {
	return fault.New(fault.NotFound, "schedule", name, "no such schedule")
}
