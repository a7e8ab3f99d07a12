package chaos

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func jsonInto(v any, s string) error { return json.Unmarshal([]byte(s), v) }

// fakeNode keeps tasks in memory; a task is done at its third read. Two that share nothing are a split cluster.
type fakeNode struct {
	mu    sync.Mutex
	tasks map[string]*fakeTask
	sick  bool // loses a task now and then
	calls int
}

type fakeTask struct {
	prompt  string
	version uint64
	end     string
}

func (t *fakeTask) state() string {
	if t.end != "" {
		return t.end
	}
	return []string{"pending", "running"}[t.version-1]
}

func (f *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls++; f.calls%7 == 0 {
		http.Error(w, "busy", http.StatusServiceUnavailable)
		return
	}
	id, verb, _ := strings.Cut(strings.Trim(strings.TrimPrefix(r.URL.Path, "/v1/tasks"), "/"), "/")
	t := f.tasks[id]
	status := http.StatusOK
	if id == "" && r.Method == http.MethodGet {
		for id, t := range f.tasks {
			fmt.Fprintf(w, `{"tasks":[{"task_id":%q,"state":%q,"version":%d}]}`, id, t.state(), t.version)
			return
		}
		fmt.Fprint(w, `{"tasks":[]}`)
		return
	}
	switch {
	case id == "":
		var spec struct {
			ID     string `json:"task_id"`
			Prompt string `json:"prompt"`
		}
		_ = json.NewDecoder(r.Body).Decode(&spec)
		if t = f.tasks[spec.ID]; t == nil {
			t, status = &fakeTask{prompt: spec.Prompt, version: 1}, http.StatusCreated
			f.tasks[spec.ID] = t
		} else if t.prompt != spec.Prompt {
			http.Error(w, "{}", http.StatusConflict)
			return
		}
	case t == nil:
		http.Error(w, "{}", http.StatusNotFound)
		return
	case verb == "cancel":
		if t.end == "completed" {
			http.Error(w, "{}", http.StatusConflict)
			return
		}
		if t.end == "" {
			t.version++
		}
		t.end = "cancelled"
	case t.end == "":
		if t.version++; t.version == 3 {
			t.end = "completed"
		}
	}
	state := t.state()
	answer := ""
	if state == "completed" {
		_, answer, _ = strings.Cut(t.prompt, "\n")
	}
	if f.sick && f.calls%50 == 0 {
		delete(f.tasks, id)
	}
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"state":%q,"version":%d,"answer":%q}`, state, t.version, answer)
}

// judged runs the workload on fake nodes and returns what the judge says.
func judged(t *testing.T, nodes ...*fakeNode) []Violation {
	t.Helper()
	var peers []Peer
	for i, n := range nodes {
		n.tasks = map[string]*fakeTask{}
		s := httptest.NewServer(n)
		t.Cleanup(s.Close)
		peers = append(peers, Peer{Name: fmt.Sprintf("node-%d", i+1), URL: s.URL})
	}
	rec := NewRecorder()
	w := StartWorkload(peers, rec, 4, time.Millisecond, 42)
	enough := func() bool { return len(rec.Ops()) >= 1000 || len(w.Wrong()) > 0 }
	require.Eventually(t, enough, time.Minute, 5*time.Millisecond)
	w.Stop()
	w.Stop()
	require.Empty(t, w.Wrong())
	require.NotEmpty(t, w.IDs())
	return CheckHistory(rec.Ops(), 10*time.Second)
}

func TestTheWorkloadShowsWhatIsWrong(t *testing.T) {
	require.Empty(t, judged(t, &fakeNode{}), "a node that does it right")
	require.NotEmpty(t, judged(t, &fakeNode{}, &fakeNode{}), "two nodes that share nothing")
	require.NotEmpty(t, judged(t, &fakeNode{sick: true}), "a node that forgets")
}
