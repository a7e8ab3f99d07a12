package actors_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/persisttest"
)

// patient is an honest engine whose answers take a moment, until something is wrong with it.
type patient struct {
	*liar
	down atomic.Bool  // nobody is there, not for a probe either
	slow atomic.Int64 // times as long
}

const answerTakes = 5 * time.Millisecond

func (p *patient) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p.down.Load() {
		panic(http.ErrAbortHandler) // the connection ends without a word
	}
	if r.URL.Path == "/v1/chat/completions" && p.lie.Load() == nil {
		select {
		case <-time.After(answerTakes * time.Duration(max(p.slow.Load(), 1))):
		case <-r.Context().Done():
			return
		}
	}
	p.liar.ServeHTTP(w, r)
}

// TestTimeToRecover: an engine, alone, with tasks waiting, is wrong for a second. How long it takes from its end until it answers about as fast as
// before (two thirds at least: the machine does other things, too); and every task is completed, once. With AUTOGLM_RECOVER=all for every fault there is; see make recover.
func TestTimeToRecover(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds for each fault")
	}
	const slots, wrongFor, window = 8, time.Second, 40
	faults := map[string]struct{ begin, end func(*patient) }{
		"crash": {func(p *patient) { p.down.Store(true) }, func(p *patient) { p.down.Store(false) }},
		"slow":  {func(p *patient) { p.slow.Store(100) }, func(p *patient) { p.slow.Store(1) }},
	}
	for name, lie := range lies {
		faults[name] = struct{ begin, end func(*patient) }{func(p *patient) { p.lie.Store(&lie) }, func(p *patient) { p.lie.Store(nil) }}
	}
	for name, f := range faults {
		if os.Getenv("AUTOGLM_RECOVER") == "" && !slices.Contains([]string{"crash", "slow", "200, error"}, name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			p := &patient{liar: &liar{told: map[string]int{}}}
			s := httptest.NewServer(p)
			t.Cleanup(s.Close)
			h, err := infer.NewHTTP(infer.HTTPOptions{Name: "e", URL: s.URL, MaxBody: 256 << 10})
			require.NoError(t, err)
			t.Cleanup(h.Close)
			sys := startWith(t, persisttest.NewStore(4), func(o *actors.Options) { o.Policy.Attempts, o.Reconcile = 30, time.Hour }, actors.Engine{Engine: h, Concurrency: slots, Prefetch: slots})
			n := 1500
			if os.Getenv("AUTOGLM_RECOVER") != "" {
				n = 3000
			}
			for i := range n {
				submit(t, sys, &task.Spec{ID: fmt.Sprint("t", i), Prompt: fmt.Sprint("say ", i)})
			}
			told := func() int {
				p.mu.Lock()
				defer p.mu.Unlock()
				return len(p.told)
			}
			// pace is how long the engine takes for so many answers.
			pace := func() time.Duration {
				from, began := told(), time.Now()
				until(t, "answers", func() bool { return told() >= from+window })
				return time.Since(began)
			}
			before := []time.Duration{pace(), pace(), pace()}
			slices.Sort(before)
			f.begin(p)
			<-time.After(wrongFor) // how long the fault lasts
			f.end(p)
			ended := time.Now()
			for took := pace(); took > before[1]*3/2+answerTakes; took = pace() {
			}
			t.Logf("%-12s %d answers took %v before; so again %v after the fault's end", name, window, before[1].Round(time.Millisecond), time.Since(ended).Round(time.Millisecond))
			for i := range n {
				r := await(t, sys, fmt.Sprint("t", i))
				require.Equal(t, task.Completed, r.State, "%+v", r.Error)
				require.Len(t, r.Answers, 1)
			}
			for prompt, times := range p.told {
				require.Equal(t, 1, times, prompt)
			}
		})
	}
}
