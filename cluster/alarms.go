package cluster

import (
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/persistence"
)

// Monotonic returns a clock that nobody sets: the time since this call. What waits is measured by one like it, what is written
// down by Now.
func Monotonic() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}

// Alarm wakes the entity with Wake after wait, as long as this owner lives. One alarm for each key, and it rings once. A wall clock
// that is set does not move it. Use a TimerRow for a time of day, and for what must outlive the owner.
func (o *Owner) Alarm(key persistence.Key, wait time.Duration) { o.alarms.set(key, o.mono()+wait) }

// NoAlarm clears what Alarm and Lease set.
func (o *Owner) NoAlarm(key persistence.Key) { o.alarms.clear(key) }

// Lease gives the entity's n-th attempt whole from the first call on, and returns what is left of it; its alarm rings when
// nothing is. It is kept here and not with the entity, whose crash must not make it longer. A new owner knows of no earlier call
// and gives the whole again: how long an attempt ran under the owner before it, only the clocks of two machines could tell.
func (o *Owner) Lease(key persistence.Key, n uint64, whole time.Duration) (left time.Duration) {
	return o.alarms.lease(key, n, o.mono(), whole)
}

// alarms are an owner's volatile timers, one for each key, by its monotonic clock.
type alarms struct {
	mu     sync.Mutex
	at     map[persistence.Key]time.Duration
	leases map[persistence.Key]lease
}

// lease is what one attempt has.
type lease struct {
	n  uint64
	at time.Duration // its end
}

func (a *alarms) set(k persistence.Key, at time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setLocked(k, at)
}

func (a *alarms) setLocked(k persistence.Key, at time.Duration) {
	if a.at == nil {
		a.at = map[persistence.Key]time.Duration{}
	}
	a.at[k] = at
}

func (a *alarms) clear(k persistence.Key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.at, k)
	delete(a.leases, k)
}

func (a *alarms) lease(k persistence.Key, n uint64, now, whole time.Duration) (left time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l, ok := a.leases[k]
	if !ok || l.n != n {
		if a.leases == nil {
			a.leases = map[persistence.Key]lease{}
		}
		l = lease{n: n, at: now + whole}
		a.leases[k] = l
	}
	a.setLocked(k, l.at)
	return l.at - now
}

// due removes and returns the keys whose time has come.
func (a *alarms) due(now time.Duration) (keys []persistence.Key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, at := range a.at {
		if at <= now {
			keys = append(keys, k)
			delete(a.at, k)
		}
	}
	return keys
}
