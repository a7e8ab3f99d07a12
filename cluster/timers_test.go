package cluster

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// timerRows is a Journal with only an index.
type timerRows struct {
	persistence.Journal
	rows [][]byte
	fail int // the next Scan fails after this many rows; negative: it does not
	read int // rows read so far
}

func (i *timerRows) put(r persistence.Index) {
	at, there := slices.BinarySearchFunc(i.rows, r.Key, bytes.Compare)
	switch {
	case there && r.Delete:
		i.rows = slices.Delete(i.rows, at, at+1)
	case !there && !r.Delete:
		i.rows = slices.Insert(i.rows, at, r.Key)
	}
}

func (i *timerRows) Scan(_ string, from, to []byte, f func(k, v []byte) bool) error {
	start, _ := slices.BinarySearchFunc(i.rows, from, bytes.Compare)
	for _, k := range i.rows[start:] {
		if i.fail == 0 || to != nil && bytes.Compare(k, to) >= 0 {
			break
		}
		i.fail--
		i.read++
		lent := bytes.Clone(k) // as in a store, the key is the callback's only while it runs
		more := f(lent, nil)
		clear(lent)
		if !more {
			return nil
		}
	}
	if i.fail == 0 {
		i.fail = -1
		return fault.New(fault.Unavailable, "timerrows.scan", "", "read failed")
	}
	return nil
}

// timerModel puts rows, ticks, and checks what every tick fires.
type timerModel struct {
	require.TestingT
	index  timerRows
	timers timers
	owner  *Owner
	now    time.Time
	made   int
	row    map[string]persistence.Index // by entity: each has one row, as each has one timer
	at     map[string]time.Time
	last   map[string]time.Time // when it fired
	waits  map[string]int       // ticks since it was to fire
	stuck  func(id string) bool // does not delete its row when woken
}

func newTimerModel(t require.TestingT) *timerModel {
	m := &timerModel{TestingT: t, now: time.Unix(1e9, 0), row: map[string]persistence.Index{}, at: map[string]time.Time{},
		last: map[string]time.Time{}, waits: map[string]int{}, stuck: func(string) bool { return true }}
	m.index.fail = -1
	m.owner = &Owner{journal: &m.index}
	m.timers.next = m.now
	return m
}

func (m *timerModel) put(at time.Time) string {
	m.made++
	at = at.Truncate(time.Microsecond) // as a row keeps it
	id := fmt.Sprint(m.made)
	r := TimerRow(persistence.Key{Kind: "k", ID: id}, at, false)
	m.row[id], m.at[id] = r, at
	m.index.put(r)
	m.timers.observe([]persistence.Index{r})
	return id
}

func (m *timerModel) delete(id string) {
	r := m.row[id]
	r.Delete = true
	m.index.put(r)
	m.timers.observe([]persistence.Index{r})
	delete(m.row, id)
	delete(m.at, id)
	delete(m.last, id)
	delete(m.waits, id)
}

func (m *timerModel) tick() []string {
	m.now = m.now.Add(shardTick)
	keys, err := m.timers.due(m.owner, m.now)
	require.LessOrEqual(m, len(keys), timerBatch)
	var ids []string
	for _, k := range keys {
		id := k.ID
		ids = append(ids, id)
		_, there := m.row[id]
		require.True(m, there, "a row that is not there")
		require.False(m, m.at[id].After(m.now), "not due yet")
		if last, ok := m.last[id]; ok {
			require.GreaterOrEqual(m, m.now.Sub(last), timerRepeat, "repeated too soon")
		}
		m.last[id] = m.now
		delete(m.waits, id)
	}
	// A tick has room for half a batch of new rows, and for half a batch of repeated ones whose every span may need
	// a scan of its own.
	bound := 2*m.made/(timerBatch/2) + 2
	for id, at := range m.at {
		last, ok := m.last[id]
		if due := !at.After(m.now) && (!ok || m.now.Sub(last) >= timerRepeat); due && err == nil {
			if m.waits[id]++; m.waits[id] > bound {
				require.FailNow(m, "forgotten", id)
			}
		}
	}
	for _, id := range ids {
		if !m.stuck(id) {
			m.delete(id)
		}
	}
	return ids
}

// TestTimersFireEachDueRow: within a bound, never sooner than timerRepeat after the last time, whatever is put, deleted
// or cannot be read meanwhile.
func TestTimersFireEachDueRow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newTimerModel(t)
		healthy := rapid.IntRange(1, 4).Draw(t, "one in n is healthy")
		m.stuck = func(id string) bool { return len(id)+int(id[len(id)-1])%healthy != 0 }
		offset := rapid.Int64Range(-int64(20*time.Second), int64(20*time.Second))
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) { m.put(m.now.Add(time.Duration(offset.Draw(t, "offset")))) },
			"put many": func(t *rapid.T) {
				at, apart := m.now.Add(time.Duration(offset.Draw(t, "offset"))), rapid.Int64Range(0, int64(10*time.Millisecond)).Draw(t, "apart")
				if m.made > 3*timerBatch {
					return // enough for spans and batches to overlap; more only takes time
				}
				for i := range rapid.IntRange(1, timerBatch+100).Draw(t, "n") {
					m.put(at.Add(time.Duration(int64(i) * apart)))
				}
			},
			"delete": func(t *rapid.T) {
				if m.made == 0 {
					return
				}
				if id := fmt.Sprint(rapid.IntRange(1, m.made).Draw(t, "id")); m.row[id].Key != nil {
					m.delete(id)
				}
			},
			"tick": func(t *rapid.T) { m.tick() },
			"ticks": func(t *rapid.T) {
				for range rapid.IntRange(1, 30).Draw(t, "n") {
					m.tick()
				}
			},
			"failing tick": func(t *rapid.T) {
				m.index.fail = rapid.IntRange(0, timerBatch+1).Draw(t, "after")
				m.tick()
				m.index.fail = -1
			},
		})
		for range 60 {
			m.tick()
		}
	})
}

// TestTimersAreKeptWhenTheIndexCannotBeRead: one failed read must not forget every timer.
func TestTimersAreKeptWhenTheIndexCannotBeRead(t *testing.T) {
	m := newTimerModel(t)
	id := m.put(m.now)
	m.index.fail = 0
	require.Empty(t, m.tick())
	require.Equal(t, []string{id}, m.tick())
}

// TestStuckTimersDoNotHoldUpTheRowsBehind: more than a batch of entities that keep their rows, and one behind.
func TestStuckTimersDoNotHoldUpTheRowsBehind(t *testing.T) {
	m := newTimerModel(t)
	for i := range 4 * timerBatch {
		m.put(m.now.Add(time.Duration(i-4*timerBatch) * time.Millisecond))
	}
	var fired []string
	for range 8 {
		fired = append(fired, m.tick()...)
	}
	require.Len(t, fired, 4*timerBatch, "each once")
	m.put(m.now)
	require.Len(t, m.tick(), 1, "a new one does not wait for those that fired")
	m.put(m.now.Add(-time.Second)) // behind the front
	require.Len(t, m.tick(), 1)
}

// TestTimersDoNotReadWhatTheyFired: a tick costs what it fires, not what is stuck.
func TestTimersDoNotReadWhatTheyFired(t *testing.T) {
	m := newTimerModel(t)
	for range timerBatch {
		m.put(m.now)
	}
	for range 3 {
		m.tick()
	}
	m.index.read = 0
	m.put(m.now)
	m.tick()
	require.LessOrEqual(t, m.index.read, 2)
}
