package cluster

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

const (
	dispatchThroughput = 300             // messages of one actor before others get a turn, as protoactor's default
	dispatchIdle       = 5 * time.Second // how long a goroutine without work is kept
)

// pool runs mailboxes on goroutines that are used again. protoactor starts one for
// each mailbox that wakes up, and each of them grows its stack anew, through JSON and
// Badger: 10 % of the processor time of a drain. It never queues: with no idle
// goroutine it starts one, so a mailbox that blocks holds up nobody.
type pool struct{ idle chan func() }

// Dispatcher is the pool that all actors of a process share.
var Dispatcher actor.Dispatcher = &pool{idle: make(chan func())}

// Schedule is part of actor.Dispatcher.
func (p *pool) Schedule(fn func()) {
	select {
	case p.idle <- fn:
	default:
		go p.work(fn)
	}
}

// Throughput is part of actor.Dispatcher.
func (p *pool) Throughput() int { return dispatchThroughput }

func (p *pool) work(fn func()) {
	t := time.NewTimer(dispatchIdle)
	defer t.Stop()
	for {
		fn()
		t.Reset(dispatchIdle)
		select {
		case fn = <-p.idle:
		case <-t.C:
			return
		}
	}
}
