package entity

import (
	"fmt"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// keptMax bounds the messages that wait for one commit; beyond: Overloaded.
const keptMax = 256

// lostCommitRetry is when a resident entity whose commit failed is woken again.
const lostCommitRetry = time.Second

// incarnation is one life of an entity in memory, from waking to sleep or crash.
// Its fields belong to the actor's goroutine.
type incarnation[S, E any] struct {
	kind *Kind[S, E]
	o    *cluster.Owner
	key  persistence.Key
	folded[S]
	bad error // it could not be recovered: every message is answered with this

	committing *Context[S, E] // the message whose commit is under way, or nil
	erasing    bool           // it erases, rather than commits
	next       S              // the state after it; memory never runs ahead: state != next until durable
	nextPast   *remembered    // what it adds to past, or nil
	began      time.Time
	kept       []*cluster.Envelope // arrived meanwhile, in order; at most keptMax
	seen       *uint64             // envelopes this actor received, over its restarts: the shard counts the same
	asleep     bool                // asked to be put to sleep
	looked     bool                // a message was handled since the journal was read
}

// durable is posted by the appender's callback. A message of an older incarnation
// carries another of, and is dropped: its successor replayed the journal.
type durable struct {
	of  any
	out persistence.Outcome
	err error
}

// Receive handles one message at a time.
func (in *incarnation[S, E]) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case *actor.Started:
		in.recover(c)
	case *cluster.Envelope:
		in.asleep = false
		*in.seen++
		if in.committing != nil {
			in.keep(m)
			return
		}
		in.handle(c, m)
		in.rest(c, in.kind.Nap)
	case *durable:
		if m.of != any(in) || in.committing == nil {
			return
		}
		in.committed(c, m)
		in.rest(c, in.kind.Nap)
	case cluster.Idle:
		in.rest(c, true)
	case *actor.Restarting, *actor.Stopping:
		in.abandon(fault.New(fault.Unavailable, "entity", in.key.String(), "it is being stopped"))
		in.kind.note(Note{What: Stopped})
	}
}

func (in *incarnation[S, E]) recover(c actor.Context) {
	in.kind.note(Note{What: Activated})
	in.read()
}

func (in *incarnation[S, E]) read() {
	in.folded, in.bad = in.kind.load(in.o, in.key.ID)
	if in.bad == nil && in.seq > 0 && in.kind.Enter != nil {
		in.kind.Enter(&Context[S, E]{kind: in.kind, o: in.o, id: in.key.ID, state: in.state, seq: in.seq, clock: in.o.Now, recovered: true})
	}
}

func (in *incarnation[S, E]) keep(m *cluster.Envelope) {
	if len(in.kept) >= keptMax {
		m.Answer(nil, fault.New(fault.Overloaded, "entity", in.key.String(), "keptMax of %d messages wait for its commit", keptMax))
		return
	}
	in.kept = append(in.kept, m)
}

// handle runs the behavior of the state on one message. A panic answers the sender
// before the supervisor hears of it: it would lose the message.
func (in *incarnation[S, E]) handle(c actor.Context, m *cluster.Envelope) {
	if in.seq == 0 && in.looked && in.bad == nil {
		// There was nothing. Creating (cluster.Router.Create) wakes no actor, so there may be something by now.
		in.read()
	}
	in.looked = true
	if in.bad != nil {
		m.Answer(nil, in.bad)
		return
	}
	defer func() {
		if r := recover(); r != nil {
			err := fault.New(fault.Unknown, "entity", in.key.String(), "crashed on %T: %v", m.Msg, r)
			m.Answer(nil, err)
			in.kind.note(Note{What: Crashed, Err: err})
			panic(r)
		}
	}()
	if m.ID != "" && in.kind.Dedupe > 0 {
		if r := recall(in.past, m.ID); r != nil {
			v, err := r.answer(in.key.String(), m, in.kind.Types)
			in.confirm(m, r.Seq, v, err)
			return
		}
	}
	hand := in.o.Begin()
	defer func() {
		if in.committing == nil { // else when the commit is durable
			hand.End()
		}
	}()
	x := &Context[S, E]{kind: in.kind, o: in.o, id: in.key.ID, state: in.state, seq: in.seq, env: m, clock: in.o.Now}
	in.kind.Behave(in.state)(x)
	if x.refused != nil {
		in.kind.note(Note{What: Rejected, Err: x.refused})
		in.confirm(m, in.seq, nil, x.refused)
		return
	}
	if x.erase {
		in.beginErase(c, x, hand, false)
		return
	}
	if len(x.events) == 0 {
		var v any
		if x.reply != nil {
			v = x.reply()
		}
		in.confirm(m, in.seq, v, nil)
		return
	}
	next, w, err := in.kind.write(in.key, in.folded, x.events, in.remember(x))
	if err != nil {
		in.kind.note(Note{What: Rejected, Err: err})
		m.Answer(nil, fmt.Errorf("entity.commit: %w", err))
		return
	}
	in.committing, in.next, in.began = x, next, hand.Began
	self, root := c.Self(), c.ActorSystem().Root
	in.o.Append(w, func(out persistence.Outcome, err error) {
		hand.End()
		root.Send(self, &durable{of: in, out: out, err: err})
	})
}

// beginErase has the journal erased, or cut first where it is too much to erase at once.
func (in *incarnation[S, E]) beginErase(c actor.Context, x *Context[S, E], hand *cluster.InHand, cut bool) {
	err := in.o.MayErase()
	var w persistence.Write
	if err == nil {
		w, err = in.kind.erasing(in.key, in.folded, cut)
	}
	if err != nil {
		hand.End()
		in.kind.note(Note{What: Rejected, Err: err})
		x.env.Answer(nil, err)
		return
	}
	in.committing, in.erasing, in.began = x, true, hand.Began
	self, root := c.Self(), c.ActorSystem().Root
	in.o.Append(w, func(out persistence.Outcome, err error) {
		hand.End()
		root.Send(self, &durable{of: in, out: out, err: err})
	})
}

// erased goes on after a step of erasing: with the next one, or with an entity that is not there.
func (in *incarnation[S, E]) erased(c actor.Context, x *Context[S, E], m *durable) {
	in.erasing = false
	switch {
	case fault.KindOf(m.err) == fault.TooLarge: // nothing was applied
		in.beginErase(c, x, in.o.Begin(), true)
		return
	case m.err != nil:
		in.lost(c, x, m.err)
		return
	}
	in.folded = folded[S]{seq: m.out.Seq}
	if m.out.Seq > 0 { // it was cut
		in.beginErase(c, x, in.o.Begin(), false)
		return
	}
	in.o.NoAlarm(in.key)
	in.kind.note(Note{What: Erased, Took: in.o.Now().Sub(in.began)})
	x.state, x.seq = in.state, 0
	in.answer(x)
}

// remember returns what makes the memory of the command in hand, with the answer that it will get; nil where there is
// nothing to remember.
func (in *incarnation[S, E]) remember(x *Context[S, E]) func(after S) (*remembered, error) {
	in.nextPast = nil
	if x.env.ID == "" || in.kind.Dedupe <= 0 {
		return nil
	}
	return func(after S) (*remembered, error) {
		x.done = &answered{}
		if x.reply != nil {
			before, seq := x.state, x.seq
			x.state, x.seq = after, in.seq+1
			x.done.v = x.reply()
			x.state, x.seq = before, seq
		}
		var err error
		in.nextPast, err = in.kind.remember(x.env, in.seq+1, x.done.v)
		return in.nextPast, err
	}
}

// committed takes the next state over, or stops this incarnation when the append
// failed: then only the journal knows what is true.
func (in *incarnation[S, E]) committed(c actor.Context, m *durable) {
	x := in.committing
	in.committing = nil
	defer func() {
		if r := recover(); r != nil { // Enter crashed: the commit stands, its sender may ask again
			x.env.Answer(nil, fault.New(fault.Unavailable, "entity", in.key.String(), "crashed after its commit: %v", r))
			in.kind.note(Note{What: Crashed})
			panic(r)
		}
	}()
	if in.erasing {
		if in.erased(c, x, m); in.bad == nil {
			in.handleKept(c)
		}
		return
	}
	if m.err != nil {
		in.lost(c, x, m.err)
		return
	}
	in.state, in.seq = in.next, in.seq+1 // not m.out.Seq: for a repeated write that is the journal's end
	if in.nextPast != nil {
		in.past, in.nextPast = keep(in.past, *in.nextPast, in.kind.Dedupe), nil
	}
	in.kind.note(Note{What: Committed, Took: in.o.Now().Sub(in.began), State: in.state})
	x.state, x.seq, x.events = in.state, in.seq, nil
	if in.kind.Enter != nil {
		in.kind.Enter(x)
	}
	in.answer(x)
	in.handleKept(c)
}

// lost ends this incarnation, whose commit failed.
func (in *incarnation[S, E]) lost(c actor.Context, x *Context[S, E], err error) {
	if fault.KindOf(err) == fault.Conflict {
		// Another incarnation wrote first. The sender may try again on the replayed state.
		err = &fault.Error{Op: "entity.commit", Key: in.key.String(), Kind: fault.Unavailable, Err: err}
	}
	in.kind.note(Note{What: Rejected, Err: err})
	x.env.Answer(nil, err)
	in.abandon(err)
	if in.kind.Resident != nil && in.kind.Resident(in.state) {
		// What woke it, an alarm perhaps, is spent; what it should have done is not done.
		in.o.Alarm(in.key, lostCommitRetry)
	}
	// Not err: a message that comes before the stop was not tried at all. Its sender
	// may ask the next incarnation.
	in.bad = fault.New(fault.Unavailable, "entity", in.key.String(), "a commit failed: it is being replayed")
	in.sleep(c)
}

// handleKept goes on with what arrived during a commit, until the next one begins.
func (in *incarnation[S, E]) handleKept(c actor.Context) {
	for len(in.kept) > 0 && in.committing == nil {
		first := in.kept[0]
		in.kept[0] = nil
		in.kept = in.kept[1:]
		in.handle(c, first)
	}
	if len(in.kept) == 0 {
		in.kept = nil
	}
}

// confirm answers what committed nothing, once it is sure that no newer owner knew better: a
// commit is fenced, such an answer is not.
func (in *incarnation[S, E]) confirm(m *cluster.Envelope, version uint64, v any, err error) {
	if m.Reply == nil {
		return
	}
	m.Version = version
	key := in.key
	in.o.Confirm(func(lost error) {
		if lost != nil {
			m.Answer(nil, &fault.Error{Op: "entity.confirm", Key: key.String(), Kind: fault.Unavailable, Err: lost})
			return
		}
		m.Answer(v, err)
	})
}

// answer tells the sender of a commit that it stands.
func (in *incarnation[S, E]) answer(x *Context[S, E]) {
	x.env.Version = in.seq
	switch {
	case x.done != nil:
		x.env.Answer(x.done.v, nil)
	case x.reply != nil:
		x.env.Answer(x.reply(), nil)
	default:
		x.env.Answer(nil, nil)
	}
}

// rest asks for sleep when nothing is left to do and it is time; an entity that could
// not be recovered, or lost a commit, always goes: its next life may have more luck.
func (in *incarnation[S, E]) rest(c actor.Context, now bool) {
	if in.committing != nil {
		return
	}
	if in.bad == nil && (!now || in.kind.Resident != nil && in.kind.Resident(in.state)) {
		return
	}
	in.sleep(c)
}

func (in *incarnation[S, E]) sleep(c actor.Context) {
	if in.asleep {
		return
	}
	in.asleep = true
	c.Request(c.Parent(), &cluster.Passivate{Key: in.key, Seen: *in.seen})
}

// abandon answers everybody who waits: this incarnation ends. A commit under way may
// still become durable; its sender asks the next incarnation.
func (in *incarnation[S, E]) abandon(err error) {
	if in.committing != nil {
		in.committing.env.Answer(nil, err)
		in.committing = nil
	}
	for _, m := range in.kept {
		m.Answer(nil, err)
	}
	in.kept = nil
}
