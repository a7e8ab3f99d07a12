package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
)

// Engine is an inference engine as its node tells of it.
type Engine struct {
	Name      string
	Models    []string // empty: it has not said yet
	Endpoints []string
	Healthy   bool
	Reason    string // of the newest trouble
	Limit     int    // requests at once
	InFlight  int
	Paused    time.Time // it asked for nothing before then; zero: it did not
}

// Node is a node of the cluster.
type Node struct {
	Name    string
	Boot    string // of its process; "" where a node that is alone does not say
	Silent  bool   // gossip believes it alive, and it did not answer
	Engines []Engine
}

// Scene is what is known when a task is looked at.
type Scene struct {
	Now      time.Time
	Record   *task.Record
	Newest   string  // Reason of the newest fact
	Attempts int     // tries of a step, where the task names none
	Nodes    []Node  // that gossip believes alive; nobody is asked about a task that waits for none
	Ahead    Waiting // before it in its queue
	Quota    Quota   // of its tenant
}

// Quota is what the tenant of a task may have in the cluster, and has.
type Quota struct {
	Running int    // tasks
	May     int    // 0: no limit
	Other   string // limits that are not counted here, as people read them; "" for none
}

// Waiting counts the tasks before one.
type Waiting struct {
	Known bool
	Count int
	More  bool // there are more, or some shards did not answer
	Own   bool // only those of the same tenant were counted
}

// What a task waits for.
const (
	Nothing      = "nothing"       // it has ended, and its callback is through
	ForTime      = "not_before"    // as submitted
	ForRetry     = "backoff"       // after an attempt that failed
	ForModel     = "no_engine"     // none serves its model
	ForEngine    = "engine_down"   // those that do are down
	ForPause     = "engine_paused" // or asked for a pause
	ForSlot      = "engine_busy"   // or have all that they may
	ForTurn      = "queue"         // one has room: it is about to be claimed
	ForQuota     = "quota"         // one has room, and its tenant has as much as it may
	ForAttempt   = "attempt"       // an attempt runs
	ForLease     = "attempt_lost"  // an attempt runs nowhere any more, and is about to be taken back
	ForCallback  = "callback"      // it has ended: the callback is under way, or waits for its next try
	ForSomething = "newer_program" // a state that this program does not know
)

// Why is what a task waits for.
type Why struct {
	Code  string     `json:"code" enum:"nothing,not_before,backoff,no_engine,engine_down,engine_paused,engine_busy,queue,quota,attempt,attempt_lost,callback,newer_program"`
	Text  string     `json:"text" doc:"For people."`
	Until *time.Time `json:"until,omitempty" doc:"When that ends, where a time is known."`
	Ahead *int       `json:"ahead,omitempty" doc:"Tasks of its tenant before it in its queue, as far as they were counted."`
	More  bool       `json:"ahead_more,omitempty" doc:"There may be more than were counted."`
}

// Explain says why the task of a scene is not further. Pure.
func Explain(s Scene) Why {
	r := s.Record
	switch r.State {
	case task.Pending:
		return s.pending()
	case task.Running:
		return s.running()
	case task.Completed, task.Failed, task.Cancelled:
		return s.ended()
	}
	return Why{Code: ForSomething, Text: fmt.Sprintf("Its state %q is of a newer program.", r.State)}
}

func until(code string, t time.Time, format string, args ...any) Why {
	return Why{Code: code, Text: fmt.Sprintf(format, args...), Until: &t}
}

func (s *Scene) pending() Why {
	r := s.Record
	if !r.AtOnce && r.NotBefore.After(s.Now) {
		if r.Tries == 0 || r.Error == nil {
			return until(ForTime, r.NotBefore, "It waits for its time, as submitted (not_before).")
		}
		w := until(ForRetry, r.NotBefore, "Try %s failed with %s: %s. It waits before the next one.", s.tries(), r.Error.Kind, dotless(r.Error.Message))
		if s.Newest != "" {
			w.Text += " " + sentence(s.Newest)
		}
		return w
	}
	w := s.waiting()
	if a := s.Ahead; a.Known && w.Code != ForModel {
		w.Ahead, w.More = &a.Count, a.More
		w.Text += " " + a.text()
	}
	if d := r.Spec.Deadline; d != nil {
		w.Text += fmt.Sprintf(" It fails if it has not ended by its deadline, %s.", moment(*d, s.Now))
	}
	return w
}

// tries is how many of a step's tries are used.
func (s *Scene) tries() string {
	most := s.Attempts
	if p := s.Record.Spec.Retry; p != nil && p.Attempts > 0 {
		most = p.Attempts
	}
	if most == 0 {
		return fmt.Sprint(s.Record.Tries)
	}
	return fmt.Sprintf("%d of %d", s.Record.Tries, most)
}

func (a Waiting) text() string {
	whose, most := "", ""
	if a.Own {
		whose = " of yours"
	}
	if a.More {
		most = "at least "
	}
	switch {
	case a.Count == 0 && !a.More:
		return fmt.Sprintf("No task%s is before it in its queue.", whose)
	case a.Count == 1 && !a.More:
		return fmt.Sprintf("1 task%s is before it in its queue.", whose)
	}
	return fmt.Sprintf("%s%d tasks%s are before it in its queue.", title(most), a.Count, whose)
}

// at is an engine with its node.
type at struct {
	node string
	Engine
}

func (e at) name() string { return e.node + "/" + e.Name }

// waiting is why a task that may run is not claimed.
func (s *Scene) waiting() Why {
	lane := s.Record.Lane() // which engines serve is the same for all tenants
	queue := task.QueueOf(lane)
	var serve, others []at
	var silent []string
	for _, n := range s.Nodes {
		if n.Silent {
			silent = append(silent, n.Name)
		}
		for _, e := range n.Engines {
			offers := task.Offers(e.Models, e.Endpoints)
			if len(e.Models) == 0 { // it may serve any
				offers = task.Offers([]string{"*"}, e.Endpoints)
			}
			if task.Serves(offers, queue) {
				serve = append(serve, at{n.Name, e})
			} else if lane.Endpoint == task.EndpointTool || !slices.Contains(e.Endpoints, task.EndpointTool) { // who wants a model hears of no tools
				others = append(others, at{n.Name, e})
			}
		}
	}
	what := what(lane)
	more := ""
	if len(silent) > 0 {
		more = fmt.Sprintf(" Node %s did not answer: its engines are not known.", list(silent))
	}
	if len(serve) == 0 {
		return Why{Code: ForModel, Text: fmt.Sprintf("It waits for an engine that serves %s: of the %s that answered, none does%s.%s",
			what, count(len(s.Nodes)-len(silent), "node"), offered(others), more)}
	}
	w := choose(serve, s.Now)
	w.Text = fmt.Sprintf("It waits for an engine that serves %s. %s%s", what, w.Text, more)
	if w.Code == ForTurn {
		s.Quota.judge(&w)
	}
	return w
}

// judge says that a quota holds the task up, or may.
func (q Quota) judge(w *Why) {
	switch {
	case q.May > 0 && q.Running >= q.May:
		w.Code = ForQuota
		w.Text = fmt.Sprintf("Its tenant has as many tasks running as its quota allows: %d of %d.", q.Running, q.May)
	case q.Other != "":
		w.Text += fmt.Sprintf(" Its tenant's quota may hold it up for a while: %s.", q.Other)
	}
}

// what names the model and endpoint that are wanted.
func what(l task.Lot) string {
	if l.Endpoint == task.EndpointChat || l.Endpoint == task.EndpointTool {
		return l.Name()
	}
	return l.Name() + " at " + l.Endpoint
}

// choose says why none of the engines that could take a task does: of each the trouble that ends first.
func choose(serve []at, now time.Time) Why {
	var room, busy, paused, down []at
	for _, e := range serve {
		switch {
		case !e.Healthy:
			down = append(down, e)
		case e.Paused.After(now):
			paused = append(paused, e)
		case e.InFlight >= e.Limit:
			busy = append(busy, e)
		default:
			room = append(room, e)
		}
	}
	say := func(es []at, f func(at) string) string {
		var parts []string
		for _, e := range es {
			parts = append(parts, e.name()+" "+f(e))
		}
		return list(parts)
	}
	load := func(e at) string {
		text := fmt.Sprintf("has %d of %d", e.InFlight, e.Limit)
		if e.Reason != "" {
			text += " (" + dotless(e.Reason) + ")"
		}
		return text
	}
	wait := func(e at) string { return "until " + moment(e.Paused, now) }
	why := func(e at) string { return "(" + dotless(e.Reason) + ")" }
	rest := ""
	if len(down) > 0 && len(down) < len(serve) {
		rest += fmt.Sprintf(" Down: %s.", say(down, why))
	}
	switch {
	case len(room) > 0:
		return Why{Code: ForTurn, Text: fmt.Sprintf("One has room, so it should be claimed soon: %s.%s", say(room, load), rest)}
	case len(busy) > 0:
		if len(paused) > 0 {
			rest = fmt.Sprintf(" Asked for a pause: %s.", say(paused, wait)) + rest
		}
		return Why{Code: ForSlot, Text: fmt.Sprintf("All have as much as they may: %s.%s", say(busy, load), rest)}
	case len(paused) > 0:
		first := slices.MinFunc(paused, func(a, b at) int { return a.Paused.Compare(b.Paused) }).Paused
		return until(ForPause, first, "Those that do are overloaded and asked for a pause: %s.%s", say(paused, wait), rest)
	}
	return Why{Code: ForEngine, Text: fmt.Sprintf("Every engine that does is down: %s.", say(down, why))}
}

// offered lists what the other engines serve.
func offered(es []at) string {
	var all []string
	for _, e := range es {
		for _, m := range e.Models {
			what := m
			if !slices.Contains(e.Endpoints, task.EndpointChat) {
				what += " at " + strings.Join(e.Endpoints, " and ")
			}
			all = append(all, what)
		}
	}
	slices.Sort(all)
	if all = slices.Compact(all); len(all) == 0 {
		return ", and there is no other engine"
	}
	return "; they serve " + list(all)
}

func (s *Scene) running() Why {
	r := s.Record
	var a task.Attempt
	if n := len(r.Attempts); n > 0 {
		a = r.Attempts[n-1]
	}
	where := fmt.Sprintf("Attempt %d (try %s) runs on node %s, engine %s, since %s", r.Attempt, s.tries(), a.Node, a.Engine, moment(a.ClaimedAt, s.Now))
	i := slices.IndexFunc(s.Nodes, func(n Node) bool { return n.Name == a.Node && (r.Boot == "" || n.Boot == r.Boot) })
	switch {
	case i < 0:
		return Why{Code: ForLease, Text: fmt.Sprintf("Attempt %d ran on node %s, which is gone or was started again since. It is about to be taken back, at no cost of a try.", r.Attempt, a.Node)}
	case !r.Lease.After(s.Now):
		return until(ForLease, r.Lease, "%s. Its lease is over: it is about to be taken back.", where)
	}
	w := until(ForAttempt, r.Lease, "%s, under a lease.", where)
	if s.Nodes[i].Silent {
		w.Text += fmt.Sprintf(" Node %s did not answer just now.", a.Node)
	}
	for _, e := range s.Nodes[i].Engines {
		if e.Name == a.Engine && !e.Healthy {
			w.Text += fmt.Sprintf(" That engine is down: %s.", dotless(e.Reason))
		}
	}
	return w
}

func (s *Scene) ended() Why {
	r := s.Record
	text := fmt.Sprintf("It is %v, after %s.", r.State, count(int(r.Attempt), "attempt"))
	if r.State == task.Failed && r.Error != nil {
		text = fmt.Sprintf("It failed after %s, with %s: %s.", count(int(r.Attempt), "attempt"), r.Error.Kind, dotless(r.Error.Message))
		if r.Error.Remedy != "" {
			text += " " + sentence(r.Error.Remedy)
		}
	}
	if r.RetriedAs != "" {
		text += fmt.Sprintf(" It was tried again as %s.", r.RetriedAs)
	}
	switch r.Callback {
	case task.CallbackWaiting:
		if r.CallbackTries == 0 {
			return Why{Code: ForCallback, Text: text + " Its callback is being sent."}
		}
		failed := ""
		if f := r.CallbackReason; f != nil {
			failed = fmt.Sprintf(", the newest with %s: %s", f.Kind, dotless(f.Message))
			if r.CallbackTries == 1 {
				failed = fmt.Sprintf(", with %s: %s", f.Kind, dotless(f.Message))
			}
		}
		return until(ForCallback, r.CallbackNext, "%s Its callback failed %s%s. It waits for the next try.", text, times(r.CallbackTries), failed)
	case task.CallbackDelivered:
		text += fmt.Sprintf(" Its callback was delivered at try %d.", r.CallbackTries)
	case task.CallbackDropped:
		text += fmt.Sprintf(" Its callback was given up after %s", count(r.CallbackTries, "try"))
		if f := r.CallbackReason; f != nil {
			text += fmt.Sprintf(": %s: %s", f.Kind, dotless(f.Message))
		}
		text += "."
	}
	return Why{Code: Nothing, Text: text}
}
