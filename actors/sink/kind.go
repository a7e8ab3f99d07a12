package sink

import (
	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// KindName is the kind of a sink; its id is its name, of its tenant.
const KindName = "sink"

// IndexAll has all sinks that are not deleted, of all tenants, by their ids.
const IndexAll = "sinks"

const snapshotEvery = 32 // rows: only the newest state counts

// Key is the journal of a sink.
func Key(name string) persistence.Key { return persistence.Key{Kind: KindName, ID: name} }

// What one may say to a sink. Each is answered with its State.
type (
	Create struct { // the same definition again is harmless
		Def    *Definition `json:"def"`
		Life   string      `json:"life"`   // unique
		Cursor string      `json:"cursor"` // where it starts
	}
	Get    struct{}
	Pause  struct{}
	Resume struct{}
	Delete struct{}
)

// Report is what a driver did. What is true already changes nothing; what does not fit any more is refused with a conflict.
type Report struct {
	Epoch uint64 `json:"epoch"` // of the owner that the driver was started by
	Life  string `json:"life"`  // of the sink that it works for
	Facts []Fact `json:"facts"`
}

// Driver does the work of sinks on a node. Its method does not block.
type Driver interface {
	Ensure(name string, epoch uint64) // this sink has something to do here, or has changed
}

// NewKind describes the kind. driver hears from it when a sink has work, at least once every few seconds.
func NewKind(driver Driver) *entity.Kind[State, Fact] {
	b := behavior{driver}
	return &entity.Kind[State, Fact]{
		Name:          KindName,
		Apply:         State.Apply,
		Behave:        func(State) entity.Behavior[State, Fact] { return b.serve },
		Enter:         b.drive,
		Index:         index,
		Timer:         State.wake,
		SnapshotEvery: snapshotEvery,
		Truncate:      true,
		Types: cluster.NewTypes().Add("create", Create{}).Add("get", Get{}).Add("pause", Pause{}).Add("resume", Resume{}).
			Add("delete", Delete{}).Add("report", Report{}).Add("state", State{}),
	}
}

func index(id string, before, after State) []persistence.Index {
	was, is := before.exists(), after.exists()
	if was == is {
		return nil
	}
	return []persistence.Index{{Name: IndexAll, Key: []byte(id), Delete: was}}
}

func (s *State) exists() bool { return s.Phase == Running || s.Phase == Paused }

type behavior struct{ driver Driver }

func (b behavior) serve(c *entity.Context[State, Fact]) {
	s := c.State()
	switch m := c.Message().(type) {
	case Create:
		create(c, m)
	case entity.Wake: // for a deleted one: a timer row that outlived what it was for
		b.drive(c)
	default:
		if !s.exists() {
			c.Refuse(noSuch(c.ID()))
			return
		}
		ask(c, m)
	}
}

func create(c *entity.Context[State, Fact], m Create) {
	s := c.State()
	switch {
	case m.Def == nil || m.Life == "":
		c.Refuse(fault.New(fault.Invalid, "sink.create", c.ID(), "there is no definition"))
	case !s.exists():
		commit(c, Fact{Event: Created, Def: m.Def, Life: m.Life, Cursor: m.Cursor})
	case s.Def.same(m.Def):
		c.Reply(s)
	default:
		c.Refuse(fault.New(fault.Conflict, "sink.create", c.ID(), "there is a sink of this name, with another definition").
			WithRemedy("delete it first, or choose another name"))
	}
}

func ask(c *entity.Context[State, Fact], msg any) {
	s := c.State()
	switch m := msg.(type) {
	case Get:
		c.Reply(s)
	case Pause:
		once(c, s.Phase == Paused, Fact{Event: PauseAsked})
	case Resume:
		once(c, s.Phase == Running, Fact{Event: ResumeAsked})
	case Delete:
		commit(c, Fact{Event: DeleteAsked})
	case Report:
		report(c, m)
	}
}

// once commits f unless what it asks for is so already.
func once(c *entity.Context[State, Fact], already bool, f Fact) {
	if already {
		c.Reply(c.State())
		return
	}
	commit(c, f)
}

func commit(c *entity.Context[State, Fact], fs ...Fact) {
	for _, f := range fs {
		f.At = c.Now()
		c.Commit(f)
	}
	c.ReplyWith(func(s State) any { return s })
}

func noSuch(name string) *fault.Error {
	return fault.New(fault.NotFound, "sink", name, "no such sink: %.80q", name).WithRemedy("autoglm sink list has those of all tenants; --tenant (over HTTP ?tenant=) names whose it is")
}

// report commits what a driver did, if the driver is the one of this owner and of this sink.
func report(c *entity.Context[State, Fact], m Report) {
	s := c.State()
	if m.Epoch != c.Epoch() || m.Life != s.Life {
		c.Refuse(fault.New(fault.Conflict, "sink.report", c.ID(), "it is of a driver that was replaced"))
		return
	}
	news, err := s.news(m.Facts)
	switch {
	case err != nil:
		c.Refuse(fault.New(fault.Conflict, "sink.report", c.ID(), "it does not follow: %w", err))
	case len(news) == 0:
		c.Reply(s)
	default:
		commit(c, news...)
	}
}

// news returns those of a driver's facts that are not true yet: a report may come twice.
func (s State) news(fs []Fact) (news []Fact, err error) {
	for _, f := range fs {
		if s.knows(&f) {
			continue
		}
		if _, ok := Next(s.Phase, f.Event); !ok && s.Phase == Paused {
			break // what comes next is not wanted now
		}
		if s, err = s.Apply(f); err != nil {
			return nil, err
		}
		news = append(news, f)
	}
	return news, nil
}

func (s *State) knows(f *Fact) bool {
	switch f.Event {
	case Planned:
		return f.Plan != nil && (f.Plan.Seq <= s.Seq || s.Next != nil && s.Next.Seq == f.Plan.Seq && s.Next.UpTo == f.Plan.UpTo)
	case Delivered:
		return f.Seq <= s.Seq
	case SkippedOver:
		return f.Cursor == s.Cursor
	}
	return false
}

// drive sees to it that a driver works: after each commit, after waking up, and again while the sink runs.
func (b behavior) drive(c *entity.Context[State, Fact]) {
	if _, driven := c.Message().(Report); driven && !c.Recovered() { // a driver knows what it said
		return
	}
	if s := c.State(); s.Phase != None {
		b.driver.Ensure(c.ID(), c.Epoch()) // also when there is nothing to do any more: the driver is to hear of it
	}
}
