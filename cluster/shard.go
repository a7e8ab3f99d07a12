package cluster

import (
	"log/slog"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	activeMax = 50_000 // entities awake in one shard; beyond: Overloaded
	sleepMax  = 1024   // messages kept for one entity while it goes to sleep
	shardTick = 250 * time.Millisecond
	idleAfter = 30 * time.Second // without a message
	idleEvery = 40               // ticks between two looks for idle entities
)

// shard is the actor of one owned shard: the parent of its awake entities. It
// wakes an entity on its first message, forwards, and lets it sleep without
// losing a message.
type shard struct {
	o      *Owner
	kinds  map[string]Kind
	log    *slog.Logger
	timers *timers
	idle   time.Duration
	awake  map[persistence.Key]*entity
	byPID  map[string]persistence.Key
	ticks  int
}

// entity is a child of the shard.
type entity struct {
	pid      *actor.PID
	sent     uint64 // messages forwarded to it
	used     time.Time
	sleeping bool        // being stopped; what arrives waits in kept
	kept     []*Envelope // at most sleepMax
}

type tick struct{}

// Receive handles one message at a time.
func (s *shard) Receive(c actor.Context) {
	switch m := c.Message().(type) {
	case *actor.Started:
		s.o.active.Store(0) // a restart stopped the entities of the life before
	case *Envelope:
		s.forward(c, m)
	case *Passivate:
		// Only when it has seen all that was sent to it: a message in its mailbox
		// could start a commit that a stop would cut off from its sender.
		if e := s.awake[m.Key]; e != nil && !e.sleeping && m.Seen == e.sent && sameActor(c.Sender(), e.pid) {
			e.sleeping = true
			c.Stop(e.pid)
		}
	case *actor.Terminated:
		s.slept(c, m.Who.GetId())
	case tick:
		s.tick(c)
	}
}

func sameActor(a, b *actor.PID) bool { return a != nil && a.Id == b.Id }

func (s *shard) forward(c actor.Context, m *Envelope) {
	e := s.awake[m.Key]
	if e == nil {
		kind, ok := s.kinds[m.Key.Kind]
		if !ok {
			m.Answer(nil, fault.New(fault.NotFound, "cluster.shard", m.Key.String(), "no entity kind %q is registered", m.Key.Kind))
			return
		}
		if len(s.awake) >= activeMax {
			m.Answer(nil, fault.New(fault.Overloaded, "cluster.shard", m.Key.String(), "activeMax of %d entities are awake", activeMax))
			return
		}
		e = &entity{pid: c.Spawn(kind.Props(s.o, m.Key.ID))}
		s.awake[m.Key], s.byPID[e.pid.Id] = e, m.Key
		s.o.active.Add(1)
	}
	if e.sleeping {
		if len(e.kept) >= sleepMax {
			m.Answer(nil, fault.New(fault.Overloaded, "cluster.shard", m.Key.String(), "sleepMax of %d messages wait for it", sleepMax))
			return
		}
		e.kept = append(e.kept, m)
		return
	}
	e.used = s.o.now()
	e.sent++
	c.Send(e.pid, m)
}

// slept forgets an entity that stopped, also one that its supervisor stopped. What
// arrived meanwhile wakes it again.
func (s *shard) slept(c actor.Context, pid string) {
	key, ok := s.byPID[pid]
	if !ok {
		return
	}
	e := s.awake[key]
	delete(s.byPID, pid)
	delete(s.awake, key)
	s.o.active.Add(-1)
	for _, m := range e.kept {
		s.forward(c, m)
	}
}

func (s *shard) tick(c actor.Context) {
	now := s.o.now()
	for _, k := range s.o.alarms.due(s.o.mono()) {
		s.forward(c, &Envelope{Key: k, Msg: Wake{}})
	}
	keys, err := s.timers.due(s.o, now)
	if err != nil {
		s.log.Error("timer index cannot be read", "shard", s.o.shard, "err", err)
	}
	for _, k := range keys {
		s.forward(c, &Envelope{Key: k, Msg: Wake{}})
	}
	if s.ticks++; s.ticks%idleEvery == 0 {
		for _, e := range s.awake {
			if !e.sleeping && now.Sub(e.used) >= s.idle {
				c.Send(e.pid, Idle{})
			}
		}
	}
}
