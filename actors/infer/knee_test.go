package infer

import (
	"container/heap"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// model is an engine with continuous batching: it makes so many tokens a second for each of up to slots requests. Those above share what there is, or wait.
type model struct {
	slots int
	slow  float64 // times slower than it was
	queue bool    // requests above slots wait inside it; else all share
}

// kneeRun is a whole engine with a backlog, in a time of its own.
type kneeRun struct {
	m       model
	rng     *rand.Rand
	now     time.Time
	work    float64 // done for each request that runs, in tokens
	run     jobs
	waiting []job
	out     int     // under way
	done    float64 // tokens answered
}

type job struct {
	at, tokens float64
	sent       time.Time
}

type jobs []job

func (j jobs) Len() int           { return len(j) }
func (j jobs) Less(a, b int) bool { return j[a].at < j[b].at }
func (j jobs) Swap(a, b int)      { j[a], j[b] = j[b], j[a] }
func (j *jobs) Push(x any)        { *j = append(*j, x.(job)) }
func (j *jobs) Pop() any {
	last := (*j)[len(*j)-1]
	*j = (*j)[:len(*j)-1]
	return last
}

const perSlot = 50.0 // tokens a second

// send begins a request: 20 to 380 tokens.
func (r *kneeRun) send() {
	r.out++
	j := job{tokens: float64(20 + r.rng.IntN(361)), sent: r.now}
	if r.m.queue && len(r.run) >= r.m.slots {
		r.waiting = append(r.waiting, j)
		return
	}
	j.at = r.work + j.tokens
	heap.Push(&r.run, j)
}

// next goes on to the next answer.
func (r *kneeRun) next() job {
	j := heap.Pop(&r.run).(job)
	speed := perSlot / max(1, r.m.slow) * min(1, float64(r.m.slots)/float64(len(r.run)+1))
	r.now = r.now.Add(time.Duration((j.at - r.work) / speed * float64(time.Second)))
	r.work = j.at
	r.out--
	r.done += j.tokens
	for r.m.queue && len(r.run) < r.m.slots && len(r.waiting) > 0 {
		w := r.waiting[0]
		r.waiting = r.waiting[1:]
		w.at = r.work + w.tokens
		heap.Push(&r.run, w)
	}
	return j
}

// answers feeds the engine until there are n more answers, and returns the tokens a second, and the smallest size meanwhile.
func (r *kneeRun) answers(k *Knee, n int) (rate float64, least int) {
	began, before := r.now, r.done
	least = k.Size()
	for range n {
		for r.out < k.Size() {
			r.send()
		}
		j := r.next()
		*k = k.Good(r.now, r.out+1, r.now.Sub(j.sent), int(j.tokens))
		least = min(least, k.Size())
	}
	return (r.done - before) / r.now.Sub(began).Seconds(), least
}

func newKneeRun(m model, seed uint64) *kneeRun {
	return &kneeRun{m: m, rng: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(0, 0)}
}

// TestKneeIsFound, however much more was configured: within a quarter of it, at no cost.
func TestKneeIsFound(t *testing.T) {
	for _, queue := range []bool{false, true} {
		for _, from := range []int{64, 4096} {
			for seed := range uint64(3) {
				r := newKneeRun(model{slots: 32, queue: queue}, seed)
				k := NewKnee(from)
				all, _ := r.answers(&k, max(60_000, 40*from))
				sizes := 0
				began, done := r.now, r.done
				for range 100 {
					r.answers(&k, 500)
					sizes += k.ref
				}
				rate := (r.done - done) / r.now.Sub(began).Seconds()
				t.Logf("queue %v, from %d: limit %d, throughput %.3f of the best, %.3f while it was found", queue, from, sizes/100, rate/(32*perSlot), all/(32*perSlot))
				assert.InDelta(t, 32, sizes/100, 8, "queue %v, from %d, seed %d", queue, from, seed)
				assert.GreaterOrEqual(t, rate, 0.97*32*perSlot)
			}
		}
	}
}

// TestKneeLeavesAnEngineAlone that answers all that it is asked at once.
func TestKneeLeavesAnEngineAlone(t *testing.T) {
	for _, max := range []int{2 * KneeMin, 32, 64, 512, 2048} {
		for seed := range uint64(3) {
			r := newKneeRun(model{slots: 100_000}, seed)
			k := NewKnee(max)
			r.answers(&k, 10*max+1500)
			require.Equal(t, max, k.Size(), "seed %d", seed)
			rate, least := r.answers(&k, 100_000)
			require.Equal(t, max, least, "seed %d", seed)
			require.GreaterOrEqual(t, rate, 0.99*perSlot*float64(max))
		}
	}
}

// TestKneeFollowsANoisyNeighbour: an engine that can do a quarter for a while, by fewer slots or by slower ones.
func TestKneeFollowsANoisyNeighbour(t *testing.T) {
	for seed := range uint64(3) {
		r := newKneeRun(model{slots: 64, queue: true}, seed)
		k := NewKnee(128)
		r.answers(&k, 60_000)
		require.InDelta(t, 64, k.ref, 16)
		r.m.slots = 16
		r.answers(&k, 60_000)
		require.InDelta(t, 16, k.ref, 5, "seed %d", seed)
		r.m.slots = 64
		r.answers(&k, 100_000)
		require.InDelta(t, 64, k.ref, 16, "seed %d", seed)

		r.m.slow = 4
		rate, _ := r.answers(&k, 60_000)
		require.GreaterOrEqual(t, rate, 0.96*64*perSlot/4, "seed %d", seed)
		r.m.slow = 1
		r.answers(&k, 60_000)
		rate, _ = r.answers(&k, 60_000)
		require.GreaterOrEqual(t, rate, 0.97*64*perSlot, "seed %d", seed)
		require.InDelta(t, 64, k.ref, 16, "seed %d", seed)
	}
}

// TestKneeGoesByAReachedLimit only: of an engine that has little to do it learns nothing, and it keeps its floor.
func TestKneeGoesByAReachedLimit(t *testing.T) {
	k := NewKnee(64)
	before := k
	now := time.Unix(0, 0)
	for range 10_000 {
		now = now.Add(time.Second)
		k = k.Good(now, 20, time.Second, 100)
	}
	require.Equal(t, before.Size(), k.Size())

	r := newKneeRun(model{slots: 1, queue: true}, 1)
	k = NewKnee(64)
	_, least := r.answers(&k, 50_000)
	require.Equal(t, KneeMin, least)
}
