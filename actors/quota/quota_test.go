package quota

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestCheck(t *testing.T) {
	good := Terms{Tenant: "acme", Weight: 2, Hard: Limits{Running: 4}, Classes: []Class{{Priorities: "0-2", Running: 1}, {Priorities: "9"}}, Over: Reject}
	require.NoError(t, good.Check())
	for want, edit := range map[string]func(*Terms){
		"tenant":                               func(s *Terms) { s.Tenant = "A B" },
		"weight: is -1":                        func(s *Terms) { s.Weight = -1 },
		"hard.running: is -1":                  func(s *Terms) { s.Hard.Running = -1 },
		"use queue or reject":                  func(s *Terms) { s.Over = "drop" },
		"classes[0].priorities: is \"2-0\"":    func(s *Terms) { s.Classes = []Class{{Priorities: "2-0"}} },
		"classes[0].priorities: is \"urgent\"": func(s *Terms) { s.Classes = []Class{{Priorities: "urgent"}} },
		"classes[1].priorities: is 9, as": func(s *Terms) {
			s.Classes = []Class{{Priorities: "9"}, {Priorities: "9"}}
		},
	} {
		s := good
		edit(&s)
		err := s.Check()
		require.Equal(t, fault.Invalid, fault.KindOf(err), want)
		require.ErrorContains(t, err, want)
	}
}

// town is nodes and who lends to them, with messages that get lost, nodes that are cut off, and owners that change.
type town struct {
	now    time.Duration
	terms  map[string]Terms
	ledger *Ledger
	epoch  uint64
	seq    uint64
	nodes  []*Shares
	cut    []bool
	dead   []bool // as gossip believes: what they ran waits again
	count  map[string]Count
}

func newTown(nodes int, specs ...Terms) *town {
	w := &town{now: time.Hour, terms: map[string]Terms{}, cut: make([]bool, nodes), dead: make([]bool, nodes), epoch: 1}
	for _, s := range specs {
		w.terms[s.Tenant] = s
	}
	w.ledger = NewLedger(w.now, 0)
	w.count = map[string]Count{}
	for range nodes {
		w.nodes = append(w.nodes, NewShares(func() time.Duration { return w.now }))
	}
	return w
}

func (w *town) moveOwner() {
	w.epoch++
	w.seq = 0
	w.ledger = NewLedger(w.now, lendAfter)
}

func (w *town) alive() map[string]string {
	all := map[string]string{}
	for i, dead := range w.dead {
		if !dead {
			all[fmt.Sprint(i)] = "boot"
		}
	}
	return all
}

// ask lets a node ask once; the answer comes after a while, or never.
func (w *town) ask(i int, takes time.Duration, lost bool) {
	asked := w.now
	q := w.nodes[i].ask(fmt.Sprint(i), "boot")
	if w.cut[i] {
		return
	}
	w.now += takes / 2
	w.seq++
	a := Answer{Seq: w.epoch<<32 | w.seq, For: leaseFor, Book: &Book{Terms: maps.Clone(w.terms)}}
	a.Shares = w.ledger.Grant(w.now, a.Seq, q, w.terms, w.count, w.alive())
	w.now += takes / 2
	if !lost {
		w.nodes[i].heard(asked, a)
	}
}

// TestNeverMoreThanTheQuota: whatever is lost, cut off and moved, tasks that run are never more than allowed, and in a quiet
// cluster all of it is used.
func TestNeverMoreThanTheQuota(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(1, 20).Draw(rt, "limit")
		nodes := rapid.IntRange(1, 4).Draw(rt, "nodes")
		w := newTown(nodes, Terms{Tenant: "acme", Hard: Limits{Running: limit}, Classes: []Class{{Priorities: "0", Running: (limit + 1) / 2}}})
		running, urgent := make([]int, nodes), make([]int, nodes)
		sum := func(ns []int) (n int) {
			for _, x := range ns {
				n += x
			}
			return n
		}
		node := func(rt *rapid.T) int { return rapid.IntRange(0, nodes-1).Draw(rt, "node") }
		claim := func(i, n, priority int) {
			if w.dead[i] {
				return
			}
			got := w.nodes[i].Reserve("acme", priority, n)
			running[i] += got
			if priority == 0 {
				urgent[i] += got
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": func(rt *rapid.T) {
				require.LessOrEqual(rt, sum(running), limit, "%v", running)
				require.LessOrEqual(rt, sum(urgent), (limit+1)/2, "%v", urgent)
			},
			"claim": func(rt *rapid.T) {
				claim(node(rt), rapid.IntRange(1, 30).Draw(rt, "n"), 5*rapid.IntRange(0, 1).Draw(rt, "class"))
			},
			"end": func(rt *rapid.T) {
				if i := node(rt); running[i] > urgent[i] {
					running[i]--
					w.nodes[i].Return("acme", 5, 1)
				} else if urgent[i] > 0 {
					running[i]--
					urgent[i]--
					w.nodes[i].Return("acme", 0, 1)
				}
			},
			"ask": func(rt *rapid.T) {
				w.ask(node(rt), time.Duration(rapid.IntRange(0, 1500).Draw(rt, "ms"))*time.Millisecond, rapid.Bool().Draw(rt, "lost"))
			},
			"time": func(rt *rapid.T) { w.now += time.Duration(rapid.IntRange(0, 7000).Draw(rt, "ms")) * time.Millisecond },
			"cut":  func(rt *rapid.T) { i := node(rt); w.cut[i] = !w.cut[i] },
			"move": func(*rapid.T) { w.moveOwner() },
			"dead": func(rt *rapid.T) {
				i := node(rt)
				if w.dead[i] = !w.dead[i]; w.dead[i] { // its tasks go back to their queues, and it can claim none
					running[i], urgent[i] = 0, 0
				}
			},
		})
	})
}

// TestACutNodeKeepsWhatItRuns: who lends anew must know of it before it lends.
func TestACutNodeKeepsWhatItRuns(t *testing.T) {
	w := newTown(2, Terms{Tenant: "acme", Hard: Limits{Running: 4}})
	w.dead[1] = true
	w.ask(0, 0, false)
	w.nodes[0].Room("acme", 5, 1)
	w.ask(0, 0, false)
	require.Equal(t, 4, w.nodes[0].Reserve("acme", 5, 9))
	w.dead[1] = false
	w.cut[0] = true
	w.moveOwner()
	more := func() int {
		for range 3 {
			w.nodes[1].Room("acme", 5, 9)
			w.ask(1, 0, false)
		}
		return w.nodes[1].Room("acme", 5, 9)
	}
	require.Zero(t, more(), "the shares of the owner before may be good")
	w.now += lendAfter
	require.Zero(t, more(), "nobody knows what runs on the node that is cut off")
	require.Zero(t, w.nodes[0].Reserve("acme", 5, 1), "its lease is over")
	w.dead[0] = true
	require.Equal(t, 4, more(), "its tasks wait again")
}

// TestSharesFlow: what one node does not use goes to who does, half to each where both could use it, and back.
func TestSharesFlow(t *testing.T) {
	w := newTown(2, Terms{Tenant: "acme", Hard: Limits{Running: 5, TokensPerMinute: 600}})
	round := func(wants ...bool) (rooms []int, tokens []float64) {
		for range 4 {
			w.now += askEvery
			for i, s := range w.nodes {
				if wants[i] {
					s.Room("acme", 5, 1)
				}
				w.ask(i, 0, false)
			}
		}
		for _, s := range w.nodes {
			a := account{Tenant: "acme"}
			rooms, tokens = append(rooms, s.have[a].share.Running), append(tokens, s.have[a].share.Tokens-s.sum(a).tokens)
		}
		return rooms, tokens
	}
	rooms, tokens := round(true, false)
	require.Equal(t, []int{5, 0}, rooms)
	require.Equal(t, []float64{600, 0}, tokens, "a minute's worth, as nobody has used any")
	require.Equal(t, 5, w.nodes[0].Reserve("acme", 5, 20))
	w.nodes[0].Spend("acme", 5, 600)
	rooms, tokens = round(true, true)
	require.Equal(t, []int{3, 0}, rooms, "all five run on the first")
	require.InDelta(t, 18, tokens[0], 4, "of forty that came meanwhile, half")
	require.InDelta(t, 18, tokens[1], 4)
	w.nodes[0].Return("acme", 5, 3)
	rooms, _ = round(true, true)
	require.Equal(t, []int{3, 2}, rooms, "no remainder is left")
	w.nodes[0].Return("acme", 5, 2)
	w.now += tokensKept
	rooms, tokens = round(false, true)
	require.Equal(t, []int{0, 5}, rooms)
	require.Zero(t, tokens[0])
}

// TestAQuotaThatComesAndGoes, or changes, while tasks run: they are counted, and freed, once.
func TestAQuotaThatComesAndGoes(t *testing.T) {
	w := newTown(1)
	s := w.nodes[0]
	settle := func() {
		for range 3 {
			w.now += askEvery
			s.Room("acme", 5, 1)
			w.ask(0, 0, false)
		}
	}
	settle()
	require.Equal(t, 60, s.Reserve("acme", 5, 60), "no quota yet")
	w.terms["acme"] = Terms{Tenant: "acme", Hard: Limits{Running: 10}, Classes: []Class{{Priorities: "4-5", Running: 8}}}
	settle()
	s.Return("acme", 5, 55)
	settle()
	require.Equal(t, 3, s.Room("acme", 5, 99), "five of eight run")
	require.Equal(t, 5, s.Room("acme", 9, 99), "and of ten")
	w.terms["acme"] = Terms{Tenant: "acme", Hard: Limits{Running: 10}, Classes: []Class{{Priorities: "4-6", Running: 8}}}
	settle()
	require.Equal(t, 3, s.Room("acme", 6, 99))
	delete(w.terms, "acme")
	settle()
	s.Return("acme", 5, 5)
	w.terms["acme"] = Terms{Tenant: "acme", Hard: Limits{Running: 10}}
	settle()
	require.Equal(t, 10, s.Room("acme", 5, 99))
}

// TestASlowQuestion: what a node claims after its question left counts, though its lease ends before the question is there.
func TestASlowQuestion(t *testing.T) {
	w := newTown(2, Terms{Tenant: "acme", Hard: Limits{Running: 10}})
	for range 2 {
		for i := range 2 {
			w.nodes[0].Room("acme", 5, 1)
			w.ask(i, 0, false)
		}
	}
	w.now += leaseFor - 100*time.Millisecond
	asked := w.now
	q := w.nodes[0].ask("0", "boot")
	require.Equal(t, 10, w.nodes[0].Reserve("acme", 5, 10))
	w.now += time.Second
	w.seq++
	w.ledger.Grant(w.now, w.epoch<<32|w.seq, q, w.terms, w.count, w.alive())
	require.Less(t, asked, w.now)
	for range 2 {
		w.nodes[1].Room("acme", 5, 1)
		w.ask(1, 0, false)
	}
	require.Zero(t, w.nodes[1].Reserve("acme", 5, 10))
}

// TestASilentNodeDoesNotHoldAllUp for ever: one that is seen alive and never asks.
func TestASilentNodeDoesNotHoldAllUp(t *testing.T) {
	w := newTown(2, Terms{Tenant: "acme", Hard: Limits{Running: 10}})
	w.cut[1] = true
	w.moveOwner()
	room := func() int {
		for range 2 {
			w.nodes[0].Room("acme", 5, 1)
			w.ask(0, 0, false)
		}
		return w.nodes[0].Room("acme", 5, 99)
	}
	w.now += lendAfter
	require.Zero(t, room())
	w.now += tellWithin
	require.Equal(t, 10, room())
}

// TestTokensAMinute: over ten minutes of demand without end, on nodes that come and go, the tokens are the quota's, and 10 % more at most.
func TestTokensAMinute(t *testing.T) {
	const limit, cost, nodes = 6000, 50, 3
	w := newTown(nodes, Terms{Tenant: "acme", Hard: Limits{TokensPerMinute: limit}})
	for i := range nodes {
		w.ask(i, 0, false)
	}
	spent := 0
	const minutes = 10
	for tick := range minutes * 60 * 10 {
		w.now += 100 * time.Millisecond
		for i, s := range w.nodes {
			if tick/600%nodes == i && tick%1200 > 300 {
				continue // it has nothing to do for a while
			}
			for s.Reserve("acme", 5, 1) == 1 {
				s.Spend("acme", 5, cost)
				spent += cost
				s.Return("acme", 5, 1)
			}
			if tick%10 == i {
				w.ask(i, 0, tick%70 == 0)
			}
		}
	}
	require.InDelta(t, limit*minutes, spent, limit*minutes/10)
}

func TestAdmit(t *testing.T) {
	w := newTown(1, Terms{Tenant: "acme", Hard: Limits{RequestsPerMinute: 60}}, Terms{Tenant: "queue", Hard: Limits{Queued: 100}},
		Terms{Tenant: "strict", Over: Reject, Hard: Limits{Running: 1}})
	s := w.nodes[0]
	admit := func(whose string, n int) (time.Duration, error) {
		again, err := s.admit(whose, 5, n, 0)
		if err != nil {
			w.ask(0, 0, false)
			again, err = s.admit(whose, 5, n, 0)
		}
		return again, err
	}
	_, err := s.admit("nobody", 5, 1, 0)
	require.Equal(t, fault.Overloaded, fault.KindOf(err), "it has heard of no quotas yet")
	_, err = admit("nobody", 1)
	require.NoError(t, err)
	for i := range 60 {
		_, err = admit("acme", 1)
		require.NoError(t, err, "%d: a minute's worth at once", i)
		s.Settled("acme", 1, 1, 0, 0)
	}
	again, err := admit("acme", 3)
	require.ErrorContains(t, err, "60 submitted tasks a minute")
	require.Equal(t, 3*time.Second, again)
	w.now += again
	_, err = admit("acme", 3)
	require.NoError(t, err)
	s.Settled("acme", 3, 0, 0, 0)
	_, err = admit("acme", 3)
	require.NoError(t, err, "what was there already costs nothing")

	w.count = map[string]Count{"queue": {Tasks: 90}}
	for i := range 10 {
		_, err = admit("queue", 1)
		require.NoError(t, err, "%d: 90 and 10 are 100", i)
	}
	again, err = admit("queue", 1)
	require.ErrorContains(t, err, "100 tasks that wait or run")
	require.Equal(t, leaseFor, again)
	s.Settled("queue", 10, 10, 0, 0)
	w.count = map[string]Count{"queue": {}} // they ended at once
	for i := range 100 {
		_, err = admit("queue", 1)
		require.NoError(t, err, "%d: the queue is empty", i)
	}
	_, err = admit("queue", 1)
	require.Error(t, err, "nobody has counted these yet")

	_, err = admit("strict", 1)
	require.NoError(t, err)
	require.Equal(t, 1, s.Reserve("strict", 5, 1))
	_, err = admit("strict", 1)
	require.ErrorContains(t, err, "its quota says reject")
	s.Return("strict", 5, 1)
	_, err = admit("strict", 1)
	require.NoError(t, err)
}

// TestBytesAreNeverMoreThanTheQuota: whatever is lost, cut off and moved, what is let in beside what is counted is never more than allowed. A count
// may be of before something was let in, but never of before its question.
func TestBytesAreNeverMoreThanTheQuota(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(1, 1000).Draw(rt, "limit")
		nodes := rapid.IntRange(1, 4).Draw(rt, "nodes")
		w := newTown(nodes, Terms{Tenant: "acme", Hard: Limits{Bytes: limit}})
		type write struct {
			size int
			at   time.Duration
		}
		kept, coming := 0, make([][]write, nodes)
		sum := func() (n int) {
			n = kept
			for _, writes := range coming {
				for _, c := range writes {
					n += c.size
				}
			}
			return n
		}
		node := func(rt *rapid.T) int { return rapid.IntRange(0, nodes-1).Draw(rt, "node") }
		rt.Repeat(map[string]func(*rapid.T){
			"": func(rt *rapid.T) { require.LessOrEqual(rt, sum(), limit) },
			"admit": func(rt *rapid.T) {
				i, size := node(rt), rapid.IntRange(1, limit).Draw(rt, "size")
				if _, err := w.nodes[i].admit("acme", 5, rapid.IntRange(0, 1).Draw(rt, "tasks"), size); err == nil {
					coming[i] = append(coming[i], write{size, w.now})
				}
			},
			"settle": func(rt *rapid.T) {
				i := node(rt)
				if len(coming[i]) == 0 {
					return
				}
				size, fresh := coming[i][0].size, 0
				if coming[i] = coming[i][1:]; rapid.Bool().Draw(rt, "kept") {
					kept, fresh = kept+size, size
				}
				w.count["acme"] = Count{Bytes: kept}
				w.nodes[i].Settled("acme", 0, 0, size, fresh)
			},
			"delete": func(rt *rapid.T) {
				kept -= rapid.IntRange(0, kept).Draw(rt, "bytes")
				w.count["acme"] = Count{Bytes: kept}
			},
			"ask": func(rt *rapid.T) {
				w.ask(node(rt), time.Duration(rapid.IntRange(0, 1500).Draw(rt, "ms"))*time.Millisecond, rapid.Bool().Draw(rt, "lost"))
			},
			"time": func(rt *rapid.T) {
				w.now += time.Duration(rapid.IntRange(0, 7000).Draw(rt, "ms")) * time.Millisecond
				for i := range coming { // a write that got no answer for so long is given up
					for len(coming[i]) > 0 && w.now-coming[i][0].at > tellWithin {
						w.nodes[i].Settled("acme", 0, 0, coming[i][0].size, 0)
						coming[i] = coming[i][1:]
					}
				}
			},
			"cut":  func(rt *rapid.T) { i := node(rt); w.cut[i] = !w.cut[i] },
			"move": func(*rapid.T) { w.moveOwner() },
		})
	})
}

// A file is let in whole where there is room, also beside another node that would like some; and who is refused is told what helps.
func TestAdmitBytes(t *testing.T) {
	w := newTown(2, Terms{Tenant: "acme", Hard: Limits{Bytes: 1000}})
	for range 2 {
		for i, s := range w.nodes {
			_, _ = s.admit("acme", 5, 0, 900-800*i)
			w.ask(i, 0, false)
		}
	}
	w.now += leaseFor
	_, err := w.nodes[0].admit("acme", 5, 0, 900)
	require.Error(t, err)
	w.ask(0, 0, false)
	_, err = w.nodes[0].admit("acme", 5, 0, 900)
	require.NoError(t, err)
	_, err = w.nodes[0].admit("acme", 5, 1, 101)
	require.ErrorIs(t, err, errLater, "what it was lent is used up; nobody has said that the quota is")
	w.ask(0, 0, false)
	again, err := w.nodes[0].admit("acme", 5, 1, 101)
	require.ErrorIs(t, err, OverBytes)
	require.Equal(t, fault.Overloaded, fault.KindOf(err))
	require.Equal(t, leaseFor, again)
	require.Equal(t, "acme: the tenant's quota of bytes is used up: it may keep 1000 in tasks, results and files, and there is no room for 101 more", fault.Plain(err))
	require.Contains(t, fault.RemedyOf(err), "retention")
	again, err = w.nodes[0].admit("acme", 5, 0, 1001)
	require.Equal(t, fault.TooLarge, fault.KindOf(err), "it helps not to come again")
	require.Zero(t, again)
}

// TestNothingIsLentYet is no reason to say that there is no room: who lends has not begun, nobody counted, or another node has it.
func TestNothingIsLentYet(t *testing.T) {
	for name, hard := range map[string]Limits{"bytes": {Bytes: 2000}, "tasks": {Queued: 20}} {
		t.Run(name, func(t *testing.T) {
			w := newTown(2, Terms{Tenant: "acme", Hard: hard})
			w.count = map[string]Count{"acme": {Tasks: 2, Bytes: 98}}
			admit := func(i int) error {
				_, err := w.nodes[i].admit("acme", 5, 1, 2)
				return err
			}
			later := func(i int, why string) {
				t.Helper()
				again, err := w.nodes[i].admit("acme", 5, 1, 2)
				require.ErrorIs(t, err, errLater, why)
				require.Equal(t, time.Second, again)
			}
			w.moveOwner()
			w.ask(0, 0, false)
			w.ask(1, 0, false)
			later(0, "the owner before may have lent it")
			w.ask(0, 0, false)
			later(0, "as before")
			w.now += lendAfter
			later(0, "the lease is over")
			counted := w.count
			w.count = nil
			w.ask(0, 0, false)
			later(0, "nobody counted")
			w.count = counted
			w.ask(0, 0, false)
			require.NoError(t, admit(0))
			later(1, "it has not asked since")
			w.ask(1, 0, false)
			require.NoError(t, admit(1), "the first node did not get all")
			w.nodes[1].Settled("acme", 1, 0, 2, 0)
			w.nodes[0].Settled("acme", 1, 0, 2, 0)

			w.count = map[string]Count{"acme": {Tasks: 20, Bytes: 1999}}
			_, _ = w.nodes[1].admit("acme", 5, 15, 1800)
			w.ask(1, 0, false)
			_, err := w.nodes[1].admit("acme", 5, 1, 2)
			require.ErrorContains(t, err, "no room for")
			require.NotErrorIs(t, err, errLater)
		})
	}
}
