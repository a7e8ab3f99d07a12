package fair

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// plant is one engine with slots, and tenants whose works wait for it. A work of n tokens holds a slot for n ticks.
type plant struct {
	t       *Turns
	now     time.Time
	slots   int
	waits   map[Lane][]work
	runs    []run
	served  map[string]int // tokens of what ended
	started []string       // ids, in order
	guess   int            // tokens charged for a work, whatever it takes; 0: what it takes
}

type work struct {
	id     string
	tokens int
}

type run struct {
	lane    Lane
	work    work
	charged int
	left    int
}

func newPlant(p Policy, slots int) *plant {
	return &plant{t: New(p), now: t0, slots: slots, waits: map[Lane][]work{}, served: map[string]int{}}
}

func of(tenant string, priority int) Lane {
	return Lane{Tenant: tenant, Queue: "m", Priority: priority}
}

func (p *plant) submit(l Lane, n, tokens int) {
	for i := range n {
		p.waits[l] = append(p.waits[l], work{fmt.Sprintf("%s%d/%d", l.Tenant, l.Priority, i), tokens})
	}
	p.t.Open(l, p.now)
}

// tick ends what is over and fills the slots.
func (p *plant) tick() {
	p.now = p.now.Add(time.Millisecond)
	p.runs = slices.DeleteFunc(p.runs, func(r run) bool { return r.left <= 0 })
	for _, g := range p.t.Plan(p.now, p.slots-len(p.runs), func(l Lane) int { return len(p.waits[l]) }) {
		got := p.waits[g.Lane][:g.N]
		p.waits[g.Lane] = p.waits[g.Lane][g.N:]
		var costs []int
		for _, w := range got {
			cost := w.tokens
			if p.guess > 0 {
				cost = p.guess
			}
			costs = append(costs, cost)
			p.runs = append(p.runs, run{g.Lane, w, cost, w.tokens})
			p.started = append(p.started, w.id)
		}
		p.t.Settle(g.Lane, g.N, g.Each, costs)
		if len(p.waits[g.Lane]) == 0 {
			p.t.Close(g.Lane)
		}
	}
	for i := range p.runs {
		r := &p.runs[i]
		if r.left--; r.left == 0 {
			p.served[r.lane.Tenant] += r.work.tokens
			p.t.Spent(r.lane.Tenant, float64(r.charged), float64(r.work.tokens))
		}
	}
}

func (p *plant) ticks(n int) {
	for range n {
		p.tick()
	}
}

// place is when the last work of a lane started, among all.
func (p *plant) place(id string) int { return slices.Index(p.started, id) }

// TestAFloodDelaysNobody: ten works beside a million are served in the time that half of the engine needs for them.
func TestAFloodDelaysNobody(t *testing.T) {
	p := newPlant(Policy{}, 16)
	p.submit(of("flood", 5), 10_000, 100)
	p.ticks(1)
	for i := range p.runs {
		p.runs[i].left = 1 + i*6 // they do not all end at once
	}
	p.ticks(1000)
	before := len(p.started)
	p.submit(of("small", 5), 10, 100)
	p.ticks(150)
	last := p.place("small5/9")
	require.NotEqual(t, -1, last)
	require.LessOrEqual(t, last-before, 10+Quantum, "the ten go next, but for one turn of the flood")
}

// TestSharesAreOfTokens: who sends long works gets fewer of them, and weights count.
func TestSharesAreOfTokens(t *testing.T) {
	for _, c := range []struct {
		name   string
		weight map[string]float64
		guess  int
	}{
		{"equal", map[string]float64{"long": 1, "short": 1, "mid": 1}, 0},
		{"weights", map[string]float64{"long": 1, "short": 3, "mid": 2}, 0},
		{"nobody knows how long they are", map[string]float64{"long": 1, "short": 1, "mid": 1}, 50},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlant(Policy{Weight: func(n string) float64 { return c.weight[n] }}, 32)
			p.guess = c.guess
			p.submit(of("long", 5), 10_000, 400)
			p.submit(of("short", 5), 100_000, 10)
			p.submit(of("mid", 5), 100_000, 100)
			p.ticks(20_000)
			var shares []float64
			for name, w := range c.weight {
				shares = append(shares, float64(p.served[name])/w)
			}
			require.Greater(t, jain(shares), 0.995, "%v", p.served)
		})
	}
}

// jain is the index of Jain, Chiu and Hawe: 1 is fair, 1/n is all for one.
func jain(xs []float64) float64 {
	var sum, squares float64
	for _, x := range xs {
		sum += x
		squares += x * x
	}
	return sum * sum / (float64(len(xs)) * squares)
}

// TestIdlingSavesNothingUp: a tenant that had nothing for long, or nothing that could be served, gets its share from then on and
// no more.
func TestIdlingSavesNothingUp(t *testing.T) {
	for _, idle := range []string{"nothing waits", "nobody serves it"} {
		t.Run(idle, func(t *testing.T) {
			p := newPlant(Policy{}, 16)
			p.submit(of("busy", 5), 100_000, 50)
			if idle == "nobody serves it" {
				p.t.Open(of("idle", 5), p.now) // its works come later: until then there are none to ask for
			}
			p.ticks(20_000)
			p.submit(of("idle", 5), 100_000, 50)
			before := p.served["busy"]
			p.ticks(5_000)
			busy, idle := p.served["busy"]-before, p.served["idle"]
			require.Greater(t, jain([]float64{float64(busy), float64(idle)}), 0.99, "busy %d, idle %d", busy, idle)
		})
	}
}

// TestWhatRunsCounts: a newcomer gets the next slots until as much of its own is running.
func TestWhatRunsCounts(t *testing.T) {
	p := newPlant(Policy{}, 32)
	p.submit(of("old", 5), 10_000, 1000)
	p.ticks(1)
	for i := range p.runs {
		p.runs[i].left = 1 + i*10 // they do not all end at once
	}
	p.ticks(2)
	before := len(p.started)
	p.submit(of("new", 5), 10_000, 1000)
	p.ticks(170)
	for _, id := range p.started[before+1 : len(p.started)] {
		require.Contains(t, id, "new", "the next slots are the newcomer's: %v", p.started[before:])
	}
}

func TestPriority(t *testing.T) {
	runs := func(pol Policy, ticks int) map[int]int {
		p := newPlant(pol, 8)
		for _, prio := range []int{0, 5, 9} {
			p.submit(of("a", prio), 20_000, 10)
		}
		p.ticks(ticks)
		got := map[int]int{}
		for _, id := range p.started {
			var prio int
			_, err := fmt.Sscanf(id, "a%d/", &prio)
			require.NoError(t, err)
			got[prio]++
		}
		return got
	}
	t.Run("strict", func(t *testing.T) {
		got := runs(Policy{}, 5000)
		require.Zero(t, got[5]+got[9], "%v", got)
	})
	t.Run("aged", func(t *testing.T) {
		got := runs(Policy{Ageing: 100 * time.Millisecond}, 20_000)
		require.Greater(t, got[0], 10*got[5], "%v", got)
		// 20 s of ageing: level 5 has a turn each 500 ms, level 9 each 900 ms
		require.InDelta(t, 40*Quantum, got[5], 4*Quantum, "%v", got)
		require.InDelta(t, 22*Quantum, got[9], 4*Quantum, "%v", got)
	})
	t.Run("weighted", func(t *testing.T) {
		got := runs(Policy{Ratio: 1.5}, 20_000)
		require.InEpsilon(t, math.Pow(1.5, 5), float64(got[0])/float64(got[5]), 0.1, "%v", got)
		require.InEpsilon(t, math.Pow(1.5, 4), float64(got[5])/float64(got[9]), 0.2, "%v", got)
	})
}

// TestPrioritiesAreTheTenantsOwn: a tenant that calls everything urgent gets no more of the engine.
func TestPrioritiesAreTheTenantsOwn(t *testing.T) {
	p := newPlant(Policy{Ageing: time.Minute}, 16)
	p.submit(of("loud", 0), 100_000, 10)
	p.submit(of("quiet", 9), 100_000, 10)
	p.ticks(5000)
	require.Greater(t, jain([]float64{float64(p.served["loud"]), float64(p.served["quiet"])}), 0.999, "%v", p.served)
}

// TestTheAccountsBalance: whatever is claimed, refused, given back and answered, no more is granted than there is room and work
// for, somebody who can be served is, and at the end nothing runs.
func TestTheAccountsBalance(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		pol := Policy{Ageing: time.Duration(rapid.IntRange(0, 3).Draw(rt, "ageing")) * time.Second, Ratio: float64(rapid.IntRange(0, 2).Draw(rt, "ratio"))}
		turns, now := New(pol), t0
		lanes := []Lane{of("a", 0), of("a", 5), of("b", 5), of("c", 9)}
		type out struct {
			lane    Lane
			charged int
		}
		var outs []out
		rt.Repeat(map[string]func(*rapid.T){
			"open":  func(rt *rapid.T) { turns.Open(rapid.SampledFrom(lanes).Draw(rt, "lane"), now) },
			"close": func(rt *rapid.T) { turns.Close(rapid.SampledFrom(lanes).Draw(rt, "lane")) },
			"time": func(rt *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(rt, "ms")) * time.Millisecond)
			},
			"plan": func(rt *rapid.T) {
				free, room := rapid.IntRange(0, 100).Draw(rt, "free"), map[Lane]int{}
				most := 0
				for _, l := range lanes {
					room[l] = rapid.IntRange(0, 40).Draw(rt, "room")
					if a := turns.tenants[l.Tenant]; a != nil && a.lanes[l] != nil {
						most += room[l]
					}
				}
				sum := 0
				for _, g := range turns.Plan(now, free, func(l Lane) int { return room[l] }) {
					require.Positive(rt, g.N)
					require.LessOrEqual(rt, g.N, room[g.Lane])
					sum += g.N
					got := rapid.SliceOfN(rapid.IntRange(1, 5000), 0, g.N).Draw(rt, "got")
					turns.Settle(g.Lane, g.N, g.Each, got)
					for _, tokens := range got {
						outs = append(outs, out{g.Lane, tokens})
					}
				}
				require.Equal(rt, min(free, most), sum, "room was left while somebody waited, or given twice")
			},
			"answer": func(rt *rapid.T) {
				if len(outs) == 0 {
					rt.Skip()
				}
				o := outs[0]
				outs = outs[1:]
				turns.Spent(o.lane.Tenant, float64(o.charged), float64(rapid.IntRange(0, 9000).Draw(rt, "used")))
			},
		})
		for _, o := range outs {
			turns.Spent(o.lane.Tenant, float64(o.charged), float64(o.charged))
		}
		for _, a := range turns.tenants {
			require.InDelta(rt, 0, a.running, 1e-6)
			require.False(rt, math.IsNaN(a.charged) || math.IsInf(a.charged, 0))
		}
	})
}

func TestAccountsAreBounded(t *testing.T) {
	turns := New(Policy{})
	for i := range 3 * tenantsMax {
		l := of(fmt.Sprint(i), 5)
		turns.Open(l, t0)
		turns.Close(l)
	}
	require.LessOrEqual(t, len(turns.tenants), tenantsMax)
}
