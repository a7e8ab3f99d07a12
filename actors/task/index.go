package task

import (
	"bytes"
	"encoding/binary"
	"iter"
	"maps"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// The ordered indexes of tasks, one set a shard; all, ended and trouble one for each tenant, named by tenant.Index, so that a list
// never meets what is another's. Times are big-endian microseconds.
//
//	ready    queue 0 priority visible id → flags, kin   pending tasks, as they will run
//	running  id               → node, boot …  what a new owner must look at; see UnderWay
//	all      ^created id                      newest first, for lists
//	ended    ended id           → state       final tasks as they ended, for results
//	trouble  state ended id                   failed and cancelled ones: few among many
//
// and the lines of batches, see IndexLine
const (
	IndexReady   = "ready"
	IndexRunning = "running"
	IndexAll     = "all"
	IndexEnded   = "ended"
	IndexTrouble = "trouble"
)

// ReadyKey is a parsed key of IndexReady.
type ReadyKey struct {
	Model    string // the queue: see QueueOf
	Priority int
	Visible  time.Time // not to be claimed before, unless AtOnce
	ID       string
	AtOnce   bool // in the row's value, not in Bytes: Visible is only its place in the order; see Record. Older programs set it in no row
	Kin      Kin  // in the row's value; zero in those of older programs
}

// readyAtOnce is a flag in the first byte of a row's value. Its Kin follows; an older program's row may be empty.
const readyAtOnce = 1

// Bytes returns the key as stored; the order of keys is the order of claims.
func (k ReadyKey) Bytes() []byte {
	b := make([]byte, 0, len(k.Model)+len(k.ID)+10)
	b = append(b, k.Model...)
	b = append(b, 0, byte(k.Priority))
	b = binary.BigEndian.AppendUint64(b, uint64(k.Visible.UnixMicro()))
	return append(b, k.ID...)
}

// ParseReadyKey is the inverse of Bytes.
func ParseReadyKey(b []byte) (k ReadyKey, ok bool) {
	i := bytes.IndexByte(b, 0)
	if i < 0 || len(b) < i+10 {
		return k, false
	}
	return ReadyKey{Model: string(b[:i]), Priority: int(b[i+1]), Visible: time.UnixMicro(int64(binary.BigEndian.Uint64(b[i+2:]))), ID: string(b[i+10:])}, true
}

// parseReady is ParseReadyKey for who has the row's value as well.
func parseReady(key, value []byte) (k ReadyKey, ok bool) {
	k, ok = ParseReadyKey(key)
	if len(value) > 0 {
		k.AtOnce, k.Kin = value[0]&readyAtOnce != 0, parseKin(value[1:])
	}
	return k, ok
}

// value is what the row of the key holds.
func (k ReadyKey) value() []byte {
	b := make([]byte, 1, 1+kinSize)
	if k.AtOnce {
		b[0] = readyAtOnce
	}
	return k.Kin.append(b)
}

// readyPrefix starts all keys of a model and priority.
func readyPrefix(model string, priority int) []byte {
	b := append(make([]byte, 0, len(model)+2), model...)
	return append(b, 0, byte(priority))
}

func timeKey(t time.Time, id string) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(id)), uint64(t.UnixMicro())), id...)
}

// ParseTimeKey splits a key of IndexEnded, or of IndexTrouble after its first byte.
func ParseTimeKey(b []byte) (t time.Time, id string, ok bool) {
	if len(b) < 8 {
		return t, "", false
	}
	return time.UnixMicro(int64(binary.BigEndian.Uint64(b))), string(b[8:]), true
}

// AllKey is the key of IndexAll: newest first.
func AllKey(created time.Time, id string) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(id)), ^uint64(created.UnixMicro())), id...)
}

// NewestIDs returns a page of ids of an index whose keys are of AllKey, behind the key of the last one before (nil: from the start), and
// whether more follow. newest reads the index from a key on.
func NewestIDs(last []byte, limit int, newest func(from []byte, limit int) ([]cluster.IndexRow, error)) (ids []string, more bool, err error) {
	if last != nil {
		last = append(bytes.Clone(last), 0) // the first key after it
	}
	rows, err := newest(last, limit+1)
	if err != nil {
		return nil, false, err
	}
	if more = len(rows) > limit; more {
		rows = rows[:limit]
	}
	for _, row := range rows {
		_, id, ok := ParseTimeKey(row.Key)
		if !ok {
			return nil, false, fault.New(fault.Corrupt, "task.newest", "", "a row does not decode")
		}
		ids = append(ids, id)
	}
	return ids, more, nil
}

// TroublePrefix starts the keys of IndexTrouble of one state.
func TroublePrefix(s State) []byte { return []byte{byte(s)} }

// index returns the rows that change when a task goes from one record to another.
func index(id string, before, after Record) (rows []persistence.Index) {
	put := func(name string, key, value []byte) {
		rows = append(rows, persistence.Index{Name: name, Key: key, Value: value})
	}
	del := func(name string, key []byte) {
		rows = append(rows, persistence.Index{Name: name, Key: key, Delete: true})
	}
	was, is := before.State, after.State
	if was == is {
		return nil // a callback's progress; timers are the entity's business
	}
	if is == None { // it is erased
		return before.unindexed(id)
	}
	if was == None {
		put(indexOf(IndexAll, id), AllKey(after.CreatedAt, id), nil)
	}
	if was == Pending {
		del(IndexReady, before.readyKey(id).Bytes())
	}
	if is == Pending {
		k := after.readyKey(id)
		k.Kin = after.Kin()
		put(IndexReady, k.Bytes(), k.value())
	}
	if was == Running {
		del(IndexRunning, []byte(id))
	}
	if is == Running {
		put(IndexRunning, []byte(id), after.running().value())
	}
	if is.Final() {
		put(indexOf(IndexEnded, id), timeKey(after.EndedAt, id), []byte{byte(is)})
		if is != Completed {
			put(indexOf(IndexTrouble, id), append(TroublePrefix(is), timeKey(after.EndedAt, id)...), nil)
		}
		if after.Line != nil {
			rows = append(rows, after.lineRows(id)...)
		}
	}
	return rows
}

// indexOf is the index of the tenant that a task belongs to.
func indexOf(name, id string) string { return tenant.Index(name, tenant.Of(id)) }

// UnderWay is a parsed row of IndexRunning: where an attempt is.
type UnderWay struct {
	ID      string
	Node    string // name; "" with Boot in a row of an older program
	Boot    string
	Attempt uint32
	Epoch   uint64
}

// Ref names the attempt.
func (r UnderWay) Ref() Ref { return Ref{ID: r.ID, Attempt: r.Attempt} }

func (r *Record) running() UnderWay {
	return UnderWay{Node: r.node(), Boot: r.Boot, Attempt: r.Attempt, Epoch: r.Epoch}
}

// value is node, 0, boot, 0, attempt, epoch. An attempt whose process is not known leaves it empty.
func (r UnderWay) value() []byte {
	if r.Boot == "" {
		return nil
	}
	b := append(make([]byte, 0, len(r.Node)+len(r.Boot)+16), r.Node...)
	b = append(b, 0)
	b = append(b, r.Boot...)
	b = append(b, 0)
	b = binary.AppendUvarint(b, uint64(r.Attempt))
	return binary.AppendUvarint(b, r.Epoch)
}

// parseRunning is the inverse of value; a row that it does not know has no Boot.
func parseRunning(id, value []byte) UnderWay {
	r := UnderWay{ID: string(id)}
	node, rest, ok := bytes.Cut(value, []byte{0})
	boot, rest, ok2 := bytes.Cut(rest, []byte{0})
	attempt, n := binary.Uvarint(rest)
	if !ok || !ok2 || n <= 0 || attempt > math.MaxUint32 {
		return r
	}
	epoch, m := binary.Uvarint(rest[n:])
	if m <= 0 {
		return r
	}
	r.Node, r.Boot, r.Attempt, r.Epoch = string(node), string(boot), uint32(attempt), epoch
	return r
}

func (r *Record) readyKey(id string) ReadyKey {
	return ReadyKey{Model: r.queue(id), Priority: r.Spec.PriorityOr(), Visible: r.place(), ID: id, AtOnce: r.AtOnce}
}

// Before returns the ranges of keys of IndexReady that are claimed before a pending task: of its queue, what may be claimed at now, better
// priorities first. Rows that a clock ahead of now wrote are left out.
func (r *Record) Before(id string, now time.Time) (ranges [][2][]byte) {
	for p := 0; p <= r.Spec.PriorityOr(); p++ {
		k := ReadyKey{Model: r.queue(id), Priority: p, Visible: now}
		if p == r.Spec.PriorityOr() {
			k = r.readyKey(id)
		}
		ranges = append(ranges, [2][]byte{readyPrefix(k.Model, p), k.Bytes()})
	}
	return ranges
}

// Counter names: "tasks/<state>" of all tasks, "tenant/<name>/<state>" of a tenant's, and "ready/<priority>/<model>" for the queues.
// "bytes/<tenant>" is what a tenant's tasks keep: see Record.Kept. The default tenant has what the others leave, but of bytes, which are each one's own. "tasks/deleted" is how many there were that are deleted.
const (
	countTasks  = "tasks/"
	countTenant = "tenant/"
	countReady  = "ready/"
	countBytes  = "bytes/"
)

func count(id string, before, after Record) (cs []persistence.Count) {
	was, is := before.State, after.State
	if n := after.Kept - before.Kept; n != 0 {
		cs = append(cs, CountBytes(tenant.Of(id), int64(n)))
	}
	if was == is {
		return cs
	}
	move := func(prefix string) {
		if was != None {
			cs = append(cs, persistence.Count{Name: prefix + was.String(), Delta: -1})
		}
		if is != None {
			cs = append(cs, persistence.Count{Name: prefix + is.String(), Delta: 1})
		}
	}
	move(countTasks)
	if is == None {
		cs = append(cs, persistence.Count{Name: countDeleted, Delta: 1})
	}
	if whose := tenant.Of(id); whose != tenant.Default {
		move(countTenant + whose + "/")
	}
	if was == Pending {
		cs = append(cs, persistence.Count{Name: before.queueName(id), Delta: -1})
	}
	if is == Pending {
		cs = append(cs, persistence.Count{Name: after.queueName(id), Delta: 1})
	}
	return cs
}

// CountBytes moves what a tenant keeps in a shard, in tasks or in files.
func CountBytes(whose string, n int64) persistence.Count {
	return persistence.Count{Name: countBytes + whose, Delta: n}
}

func (r *Record) queueName(id string) string {
	return countReady + strconv.Itoa(r.Spec.PriorityOr()) + "/" + r.queue(id)
}

// Tally is what the counters of shards say about tasks.
type Tally struct {
	ByState map[State]int64
	Deleted int64                      // were, and are not any more
	Tenants map[string]map[State]int64 // of all but the default one
	Bytes   map[string]int64           // that tenants keep, in tasks and files
	Waiting map[QueueName]int64        // pending tasks; only queues that are not empty
}

// Of is ByState of one tenant.
func (t *Tally) Of(name string) map[State]int64 {
	if name != tenant.Default {
		return t.Tenants[name]
	}
	own := maps.Clone(t.ByState)
	for _, other := range t.Tenants {
		for s, n := range other {
			own[s] -= n
		}
	}
	return own
}

// QueueName names one queue.
type QueueName struct {
	Model    string // see QueueOf
	Priority int    // AnyPriority stands for all
}

// AnyPriority is what nodes of before the queues were told apart ask for and tell of: the best that waits.
const AnyPriority = -1

func (n QueueName) priorities() iter.Seq[int] {
	return func(yield func(int) bool) {
		if n.Priority != AnyPriority {
			yield(n.Priority)
			return
		}
		for p := 0; p <= PriorityMax && yield(p); p++ {
		}
	}
}

// Queues is Waiting by model and priority, all endpoints and tenants together.
func (t *Tally) Queues() map[QueueName]int64 {
	all := map[QueueName]int64{}
	for q, n := range t.Waiting {
		model := SplitQueue(q.Model).Model
		all[QueueName{model, q.Priority}] += n
	}
	return all
}

// Add adds the counters of one shard.
func (t *Tally) Add(counters map[string]int64) {
	if t.ByState == nil {
		t.ByState, t.Tenants, t.Waiting, t.Bytes = map[State]int64{}, map[string]map[State]int64{}, map[QueueName]int64{}, map[string]int64{}
	}
	for name, n := range counters {
		if s, ok := strings.CutPrefix(name, countTasks); ok {
			if state, ok := ParseState(s); ok {
				t.ByState[state] += n
			} else if name == countDeleted {
				t.Deleted += n
			}
		} else if of, ok := strings.CutPrefix(name, countTenant); ok {
			whose, s, _ := strings.Cut(of, "/")
			if state, ok := ParseState(s); ok {
				if t.Tenants[whose] == nil {
					t.Tenants[whose] = map[State]int64{}
				}
				t.Tenants[whose][state] += n
			}
		} else if whose, ok := strings.CutPrefix(name, countBytes); ok {
			t.Bytes[whose] += n
		} else if q, ok := strings.CutPrefix(name, countReady); ok {
			p, model, _ := strings.Cut(q, "/")
			if prio, err := strconv.Atoi(p); err == nil && n != 0 {
				t.Waiting[QueueName{model, prio}] += n
			}
		}
	}
}

// EndedKey is a key of IndexEnded.
func EndedKey(ended time.Time, id string) []byte { return timeKey(ended, id) }

// EndedBound is the first key of IndexEnded that is not before t.
func EndedBound(t time.Time) []byte { return timeKey(t, "") }
