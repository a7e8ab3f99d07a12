package fair

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
	"time"
)

// Policy says what fair is.
type Policy struct {
	Ageing time.Duration               // a lane that was passed over for so long counts as one priority better, and so on; 0: never
	Ratio  float64                     // how much more a priority gets than the next one; 0: all there is
	Weight func(tenant string) float64 // share of a tenant against the others'; nil: 1 for all. It must be positive
}

// Quantum is the works that one turn is for, at least: a claim is one commit, however many it takes.
const Quantum = 8

// tenantsMax bounds the accounts kept of tenants for whom nothing waits or runs.
const tenantsMax = 1024

// Turns is the state of sharing. It has one owner and no lock.
type Turns struct {
	policy  Policy
	tenants map[string]*account
}

// New returns Turns for which nothing waits.
func New(p Policy) *Turns { return &Turns{policy: p, tenants: map[string]*account{}} }

// Grant is so many works that may be claimed of a lane.
type Grant struct {
	Lane Lane
	N    int
	Each float64 // tokens charged for each, until Settle
}

func (t *Turns) account(name string) *account {
	a := t.tenants[name]
	if a == nil {
		if len(t.tenants) >= tenantsMax {
			for n, old := range t.tenants {
				if old.idle() {
					delete(t.tenants, n)
				}
			}
		}
		a = &account{name: name, fresh: true, lanes: map[Lane]*lane{}}
		t.tenants[name] = a
	}
	a.weight = 1
	if t.policy.Weight != nil {
		a.weight = max(t.policy.Weight(name), 1e-6)
	}
	return a
}

func (a *account) idle() bool { return len(a.lanes) == 0 && a.running == 0 }

// Open says that something waits in a lane.
func (t *Turns) Open(l Lane, now time.Time) {
	a := t.account(l.Tenant)
	if a.lanes[l] != nil {
		return
	}
	if len(a.lanes) == 0 {
		a.fresh = true
	}
	x := &lane{Lane: l, since: now}
	first := math.Inf(1)
	for _, other := range a.lanes {
		first = min(first, other.charged)
	}
	if !math.IsInf(first, 1) {
		x.charged = first
	}
	a.lanes[l] = x
}

// Close says that nothing waits in a lane any more.
func (t *Turns) Close(l Lane) {
	if a := t.tenants[l.Tenant]; a != nil {
		delete(a.lanes, l)
	}
}

// Plan shares free works out among the lanes, and charges for them. can says how many may be asked of a lane now, 0 for none:
// what the engine does not serve, or is asked for already.
func (t *Turns) Plan(now time.Time, free int, can func(Lane) int) []Grant {
	if free <= 0 {
		return nil
	}
	rivals := t.rivals(now, can)
	var grants []*Grant
	by := map[Lane]*Grant{}
	for free > 0 && len(rivals) > 0 {
		r := rivals[0]
		i := r.pick(t.policy, now)
		l, each := r.lanes[i], r.each()
		n := min(free, r.room[i])
		if len(rivals) > 1 {
			n = min(n, turn((rivals.second().charged-r.charged)*r.weight/each))
		}
		if len(r.lanes) > 1 {
			n = min(n, r.turnOf(t.policy, i))
		}
		g := by[l.Lane]
		if g == nil {
			g = &Grant{Lane: l.Lane, Each: each}
			by[l.Lane] = g
			grants = append(grants, g)
		}
		g.N += n
		free -= n
		r.charge(float64(n) * each)
		l.since = now
		l.charged += float64(n) * each * t.policy.level(l.Priority)
		if r.room[i] -= n; r.room[i] == 0 {
			r.lanes, r.room = slices.Delete(r.lanes, i, i+1), slices.Delete(r.room, i, i+1)
		}
		if len(r.lanes) == 0 {
			heap.Pop(&rivals)
		} else {
			heap.Fix(&rivals, 0)
		}
	}
	out := make([]Grant, len(grants))
	for i, g := range grants {
		out[i] = *g
	}
	return out
}

// turn is how many works bring a tenant level with the next one, and a quantum more. behind is in works.
func turn(behind float64) int { return int(min(max(behind, 0), math.MaxInt32)) + Quantum }

// turnOf is how long a lane goes on before another of the same tenant is looked at: to the end when priority is strict and nothing
// ages.
func (r *rival) turnOf(p Policy, i int) int {
	if p.Ratio > 0 {
		return Quantum
	}
	if p.Ageing > 0 && r.lanes[i].Priority > r.best() {
		return Quantum // it aged: one turn, and the better one goes on
	}
	return math.MaxInt32
}

func (r *rival) best() int {
	best := math.MaxInt32
	for _, l := range r.lanes {
		best = min(best, l.Priority)
	}
	return best
}

// level is what a token counts for in a lane, with a Ratio.
func (p Policy) level(priority int) float64 {
	if p.Ratio <= 0 {
		return 0
	}
	return math.Pow(p.Ratio, float64(priority))
}

// rival is a tenant that wants this room.
type rival struct {
	*account
	lanes []*lane // that can be served
	room  []int   // works that may be asked of each
}

// rivals is a heap: the tenant that was charged the least is first.
type rivals []*rival

func (r rivals) Len() int { return len(r) }
func (r rivals) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(r[i].charged, r[j].charged), cmp.Compare(r[i].name, r[j].name)) < 0
}
func (r rivals) Swap(i, j int) { r[i], r[j] = r[j], r[i] }

// Push is for package heap.
func (r *rivals) Push(x any) { *r = append(*r, x.(*rival)) }

// Pop is for package heap.
func (r *rivals) Pop() any {
	old := *r
	x := old[len(old)-1]
	*r = old[:len(old)-1]
	return x
}

// second returns the tenant that is next after the first.
func (r rivals) second() *rival {
	if len(r) > 2 && r.Less(2, 1) {
		return r[2]
	}
	return r[1]
}

// rivals returns the tenants that can be served, level with each other.
func (t *Turns) rivals(now time.Time, can func(Lane) int) rivals {
	var rs rivals
	floor := math.Inf(1)
	for _, a := range t.tenants {
		r := &rival{account: a}
		for _, l := range a.lanes {
			if n := can(l.Lane); n > 0 {
				r.lanes, r.room = append(r.lanes, l), append(r.room, n)
			}
		}
		if len(r.lanes) == 0 {
			continue
		}
		if now.Sub(a.eligible) > freshAfter {
			a.fresh = true // nobody could serve it: that is not saved up
		}
		a.eligible = now
		if !a.fresh {
			floor = min(floor, a.charged-a.running)
		}
		rs = append(rs, r)
	}
	for _, r := range rs {
		r.level(floor)
	}
	heap.Init(&rs)
	return rs
}

// pick returns which of the tenant's lanes is next.
func (r *rival) pick(p Policy, now time.Time) int {
	best := 0
	for i := range r.lanes {
		if p.before(r.lanes[i], r.lanes[best], now) {
			best = i
		}
	}
	return best
}

func (p Policy) before(a, b *lane, now time.Time) bool {
	var c int
	if p.Ratio > 0 {
		c = cmp.Compare(a.charged, b.charged)
	} else {
		c = cmp.Compare(p.aged(a, now), p.aged(b, now))
	}
	return cmp.Or(c, a.since.Compare(b.since), cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Queue, b.Queue)) < 0
}

// aged is the priority that a lane counts as.
func (p Policy) aged(l *lane, now time.Time) int {
	if p.Ageing <= 0 {
		return l.Priority
	}
	return max(l.Priority-int(now.Sub(l.since)/p.Ageing), 0)
}

// Settle replaces what was charged for asked works of a lane by what the claim brought: the tokens of each.
func (t *Turns) Settle(l Lane, asked int, each float64, got []int) {
	a := t.account(l.Tenant)
	sum := 0.0
	for _, tokens := range got {
		sum += float64(tokens)
		a.learn(float64(tokens))
	}
	a.release(float64(asked)*each, 0)
	a.charge(sum)
	if x := a.lanes[l]; x != nil {
		x.charged += (sum - float64(asked)*each) * t.policy.level(l.Priority)
	}
}

// Charge takes tokens for a work that nobody asked for in the tenant's name.
func (t *Turns) Charge(tenant string, tokens float64) { t.account(tenant).charge(tokens) }

// Spent says that works of a tenant have ended for which so many tokens were charged; they took used, 0 when they were given back.
func (t *Turns) Spent(tenant string, charged, used float64) {
	t.account(tenant).release(charged, used)
}
