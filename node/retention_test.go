package node

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/audit"
	"github.com/open-autoglm/autoglm/actors/bulk"
	"github.com/open-autoglm/autoglm/actors/file"
	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// shifted is the wall clock, some time ahead.
type shifted struct{ by atomic.Int64 }

func (s *shifted) now() time.Time           { return time.Now().Add(time.Duration(s.by.Load())) }
func (s *shifted) forward(by time.Duration) { s.by.Add(int64(by)) }

// kept is a node whose retention is an hour for everything.
func kept(t *testing.T, change func(*Config)) (*Node, *shifted) {
	c, clock := testConfig(t), &shifted{}
	c.Retention = KeepConfig{Tasks: time.Hour, Batches: time.Hour, Files: time.Hour, Audit: time.Hour}
	if change != nil {
		change(&c)
	}
	return boot(t, c, WithClock(clock.now)), clock
}

func sweep(t *testing.T, n *Node) {
	t.Helper()
	require.NoError(t, n.sweeper.Sweep(t.Context()))
}

func mustEnd(t *testing.T, n *Node, ctx context.Context, spec *task.Spec) {
	t.Helper()
	require.NoError(t, n.svc.Submit(ctx, []*task.Spec{spec})[0].Err)
	_, err := n.svc.ended(ctx, spec.ID)
	require.NoError(t, err)
}

func there(t *testing.T, n *Node, key persistence.Key) bool {
	t.Helper()
	l, err := n.sys.Router.Read(t.Context(), key, 0)
	require.NoError(t, err)
	return l.Last > 0
}

// rowsOf counts the rows of indexes over all shards.
func rowsOf(t *testing.T, n *Node, indexes ...string) (rows int) {
	t.Helper()
	for shard := range n.store.Shards() {
		for _, index := range indexes {
			require.NoError(t, n.store.Journal(shard).Scan(index, nil, nil, func([]byte, []byte) bool { rows++; return true }))
		}
	}
	return rows
}

func counters(t *testing.T, n *Node) map[string]int64 {
	t.Helper()
	all := map[string]int64{}
	for shard := range n.store.Shards() {
		c, err := n.store.Journal(shard).Counters()
		require.NoError(t, err)
		for name, v := range c {
			if all[name] += v; all[name] == 0 {
				delete(all, name)
			}
		}
	}
	return all
}

// taskIndexes are all that a task may have a row in, of the default tenant and of acme.
var taskIndexes = []string{task.IndexReady, task.IndexRunning, task.IndexAll, task.IndexEnded, task.IndexTrouble, task.IndexLine, task.IndexLineEnd, cluster.TimerIndex,
	tenant.Index(task.IndexAll, "acme"), tenant.Index(task.IndexEnded, "acme"), tenant.Index(task.IndexTrouble, "acme")}

// TestRetentionOfTasks: what is old enough goes with all that it left, whoever's it is; what is not stays; and an id may be used again.
func TestRetentionOfTasks(t *testing.T) {
	n, clock := kept(t, nil)
	acme := tenant.With(t.Context(), "acme")
	for i := range 30 {
		prompt := "say"
		if i%3 == 0 {
			prompt = "#echo fail=always kind=invalid\np"
		}
		mustEnd(t, n, t.Context(), &task.Spec{ID: fmt.Sprint("t", i), Prompt: prompt})
		mustEnd(t, n, acme, &task.Spec{ID: fmt.Sprint("t", i), Prompt: prompt})
	}
	mustEnd(t, n, t.Context(), &task.Spec{ID: "long", Prompt: strings.Repeat("x", 700<<10)}) // in pieces on disk
	far := clock.now().Add(100 * time.Hour)
	require.NoError(t, n.svc.Submit(t.Context(), []*task.Spec{{ID: "waits", Prompt: "p", NotBefore: &far}})[0].Err)
	clock.forward(50 * time.Minute)
	mustEnd(t, n, t.Context(), &task.Spec{ID: "young", Prompt: "p"})
	sweep(t, n)
	require.EqualValues(t, 62, counters(t, n)["tasks/completed"]+counters(t, n)["tasks/failed"], "nothing is old enough")

	clock.forward(11 * time.Minute)
	sweep(t, n)
	require.Equal(t, map[string]int64{"tasks/pending": 1, "tasks/completed": 1, "tasks/deleted": 61, "bytes/default": 3}, withoutQueues(counters(t, n)), "submitted = pending + running + ended + deleted")
	for i := range 30 {
		require.False(t, there(t, n, task.Key(fmt.Sprint("t", i))))
		require.False(t, there(t, n, task.Key(tenant.Join("acme", fmt.Sprint("t", i)))))
	}
	require.False(t, there(t, n, task.Key("long")))
	require.Equal(t, 4, rowsOf(t, n, taskIndexes...), "one of what waits in each of all and ready, one of what is young in each of all and ended")
	require.Contains(t, metrics(t, n), `autoglm_deleted_total{what="task"} 61`)
	require.Equal(t, http.StatusNotFound, call(t, n, "GET", "/v1/tasks/t1", nil, nil).StatusCode)
	require.Equal(t, http.StatusNotFound, call(t, n, "GET", "/v1/tasks/t1/events", nil, nil).StatusCode)

	mustEnd(t, n, t.Context(), &task.Spec{ID: "t1", Prompt: "another body"})
	require.Equal(t, http.StatusOK, call(t, n, "GET", "/v1/tasks/t1", nil, nil).StatusCode)
	sweep(t, n)
	require.True(t, there(t, n, task.Key("t1")), "its age is its own")
}

func metrics(t *testing.T, n *Node) string {
	t.Helper()
	res, err := http.Get("http://" + n.HTTPAddr() + "/metrics")
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return string(b)
}

func withoutQueues(c map[string]int64) map[string]int64 { return without(c, "ready/") }

// without leaves out the counters of a kind.
func without(c map[string]int64, prefix string) map[string]int64 {
	maps.DeleteFunc(c, func(name string, _ int64) bool { return strings.HasPrefix(name, prefix) })
	return c
}

// TestNothingIsDeletedUnasked: without a setting everything stays, whatever its age.
func TestNothingIsDeletedUnasked(t *testing.T) {
	n, clock := kept(t, func(c *Config) { c.Retention = Default().Retention })
	mustEnd(t, n, t.Context(), &task.Spec{ID: "old", Prompt: "p"})
	clock.forward(10 * 365 * 24 * time.Hour)
	sweep(t, n)
	require.True(t, there(t, n, task.Key("old")))
}

// TestRetentionWaitsForCallbacks: a task whose callback is still being tried stays until that has ended.
func TestRetentionWaitsForCallbacks(t *testing.T) {
	var ok atomic.Bool
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !ok.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer receiver.Close()
	n, clock := kept(t, nil)
	changed, stop := n.sys.Router.Watch(task.Key("cb"))
	defer stop()
	await := func(done func(*task.Record) bool) {
		t.Helper()
		for {
			r, err := n.svc.Get(t.Context(), "cb")
			if err == nil && done(r) {
				return
			}
			select {
			case <-changed:
			case <-time.After(20 * time.Second):
				require.Fail(t, "the task does not get there")
			}
		}
	}
	mustEnd(t, n, t.Context(), &task.Spec{ID: "cb", Prompt: "p", CallbackURL: receiver.URL})
	await(func(r *task.Record) bool { return r.CallbackTries > 0 })
	ok.Store(true)
	n.calls.Stop() // no try succeeds meanwhile
	clock.forward(2 * time.Hour)
	sweep(t, n)
	require.True(t, there(t, n, task.Key("cb")))
	require.Equal(t, http.StatusConflict, call(t, n, "DELETE", "/v1/tasks/cb", nil, nil).StatusCode)
	r, err := n.svc.Get(t.Context(), "cb")
	require.NoError(t, err)
	_, err = n.sys.Router.Ask(t.Context(), task.Key("cb"), &task.Called{Try: r.CallbackTries + 1})
	require.NoError(t, err)
	sweep(t, n)
	require.False(t, there(t, n, task.Key("cb")))
}

// TestRetentionWaitsForSinks: what a sink has not written stays, also while the sink is paused, and of other tenants nothing is held up. What it does
// not want it need not write.
func TestRetentionWaitsForSinks(t *testing.T) {
	out := t.TempDir()
	n, clock := kept(t, func(c *Config) { c.Sink.AllowedDirs = []string{out}; c.Shards = 1 })
	mustEnd(t, n, t.Context(), &task.Spec{ID: "written", Prompt: "p"})
	_, err := n.sinks.Create(t.Context(), sink.Definition{Name: "s", URL: "file://" + out + "/s", Every: task.Duration(50 * time.Millisecond), State: "completed"})
	require.NoError(t, err)
	sinkHas(t, n, "s", 1)
	_, err = n.sinks.Say(t.Context(), "s", sink.Pause{})
	require.NoError(t, err)
	mustEnd(t, n, t.Context(), &task.Spec{ID: "waits", Prompt: "p"})
	mustEnd(t, n, t.Context(), &task.Spec{ID: "unwanted", Prompt: "#echo fail=always kind=invalid\np"})
	mustEnd(t, n, tenant.With(t.Context(), "acme"), &task.Spec{ID: "other", Prompt: "p"})
	clock.forward(2 * time.Hour)
	sweep(t, n)
	require.False(t, there(t, n, task.Key("written")))
	require.False(t, there(t, n, task.Key("/acme/other")))
	require.True(t, there(t, n, task.Key("waits")))
	require.True(t, there(t, n, task.Key("unwanted")), "it is behind")
	require.Equal(t, http.StatusConflict, call(t, n, "DELETE", "/v1/tasks/waits", nil, nil).StatusCode)

	_, err = n.sinks.Say(t.Context(), "s", sink.Resume{})
	require.NoError(t, err)
	sinkHas(t, n, "s", 2)
	changed, stop := n.sys.Router.Watch(sink.Key("s"))
	defer stop()
	for there(t, n, task.Key("unwanted")) { // the sink passes it by, and says so when it has for skipAfter
		sweep(t, n)
		clock.forward(2 * time.Minute)
		select {
		case <-changed:
		case <-time.After(500 * time.Millisecond): // it looks by a clock of its own
		}
		require.NoError(t, t.Context().Err())
	}
	require.False(t, there(t, n, task.Key("waits")))
}

func store(t *testing.T, n *Node, text string) file.Info {
	t.Helper()
	in, err := n.files.Put(t.Context(), file.PutOptions{Filename: "in.jsonl", Purpose: file.PurposeBatch}, strings.NewReader(text))
	require.NoError(t, err)
	return in
}

func batchOf(t *testing.T, n *Node, id string, in file.Info, expires time.Duration) bulk.State {
	t.Helper()
	h := &bulk.Header{InputFile: in.ID, Endpoint: "/v1/chat/completions", Window: "24h", OutputExpires: expires}
	require.NoError(t, h.Validate())
	changed, stop := n.batches.Watch(id)
	defer stop()
	s, err := n.batches.Create(t.Context(), id, h)
	for require.NoError(t, err); !s.Phase.Final(); s, err = n.batches.Get(t.Context(), id) {
		require.NoError(t, err)
		select {
		case <-changed:
		case <-time.After(30 * time.Second):
			require.Fail(t, "the batch does not end")
		}
	}
	require.Equal(t, bulk.Completed, s.Phase, "%+v", s.Errors)
	return s
}

func requests(count int) string {
	var b strings.Builder
	for i := range count {
		fmt.Fprintf(&b, `{"custom_id":"c%d","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[{"role":"user","content":"say %d"}]}}`+"\n", i, i)
	}
	return b.String()
}

// TestRetentionOfBatches: a batch keeps its lines and its output until its own time has come, and then all of them go; its id, made of an idempotency key
// say, may be used again.
func TestRetentionOfBatches(t *testing.T) {
	n, clock := kept(t, func(c *Config) { c.Retention.Batches = 3 * time.Hour; c.Retention.Files = 0 })
	in := store(t, n, requests(40))
	id, promised := bulk.IDOf("again"), bulk.IDOf("promised")
	batchOf(t, n, id, in, 0)
	batchOf(t, n, promised, in, 10*time.Hour)
	read := func(id string) string {
		t.Helper()
		r, _, err := n.files.Open(t.Context(), bulk.FileID(id, bulk.PartOutput), 0)
		require.NoError(t, err)
		defer r.Close()
		b, err := io.ReadAll(r)
		require.NoError(t, err)
		return string(b)
	}
	before := read(id)
	require.Equal(t, 40, strings.Count(before, "\n"))
	line := bulk.LineID(id, 0)
	require.Equal(t, http.StatusConflict, call(t, n, "DELETE", "/v1/tasks/"+line, nil, nil).StatusCode, "the output is made of it")

	clock.forward(2 * time.Hour) // older than retention.tasks
	sweep(t, n)
	require.Equal(t, before, read(id))
	clock.forward(2 * time.Hour)
	sweep(t, n)
	for i := range uint64(40) {
		require.False(t, there(t, n, task.Key(bulk.LineID(id, i))))
	}
	require.False(t, there(t, n, bulk.Key(id)))
	require.False(t, there(t, n, file.Key(bulk.FileID(id, bulk.PartOutput))))
	require.Equal(t, 40, strings.Count(read(promised), "\n"), "its client was promised that it stays for ten hours")
	require.Equal(t, map[string]int64{"tasks/completed": 40, "tasks/deleted": 40}, withoutBytes(counters(t, n)))

	batchOf(t, n, id, in, 0)
	require.Equal(t, 40, strings.Count(read(id), "\n"))
	clock.forward(12 * time.Hour)
	sweep(t, n)
	require.Equal(t, map[string]int64{"tasks/deleted": 120}, withoutBytes(counters(t, n)))
	require.Zero(t, rowsOf(t, n, append(taskIndexes, bulk.IndexAll, bulk.IndexInput)...))
}

// TestRetentionOfBatchesWaitsForSinks: a batch stays while a sink lacks one of its lines.
func TestRetentionOfBatchesWaitsForSinks(t *testing.T) {
	out := t.TempDir()
	n, clock := kept(t, func(c *Config) { c.Sink.AllowedDirs = []string{out}; c.Retention.Files = 0 })
	_, err := n.sinks.Create(t.Context(), sink.Definition{Name: "s", URL: "file://" + out + "/s", Every: task.Duration(50 * time.Millisecond)})
	require.NoError(t, err)
	_, err = n.sinks.Say(t.Context(), "s", sink.Pause{})
	require.NoError(t, err)
	id := bulk.NewID()
	batchOf(t, n, id, store(t, n, requests(20)), 0)
	clock.forward(2 * time.Hour)
	sweep(t, n)
	require.True(t, there(t, n, bulk.Key(id)))
	require.EqualValues(t, 20, counters(t, n)["tasks/completed"])
	_, err = n.sinks.Say(t.Context(), "s", sink.Resume{})
	require.NoError(t, err)
	sinkHas(t, n, "s", 20)
	sweep(t, n)
	require.False(t, there(t, n, bulk.Key(id)))
	require.Equal(t, map[string]int64{"tasks/deleted": 20}, withoutBytes(counters(t, n)))
}

// withoutBytes leaves out what is kept: files stay where only batches go.
func withoutBytes(c map[string]int64) map[string]int64 { return without(c, "bytes/") }

// TestRetentionOfFilesAndAudit: old files go, but for those that a batch reads, and so do old entries of the audit log.
func TestRetentionOfFilesAndAudit(t *testing.T) {
	n, clock := kept(t, nil)
	in := store(t, n, requests(1))
	log := audit.New(n.sys.Router)
	require.NoError(t, log.Do(t.Context(), audit.Entry{Tenant: "default", About: "acme", By: "k", Act: "key.create"}, func() error { return nil }))
	clock.forward(30 * time.Minute)
	young := store(t, n, requests(1))
	require.NoError(t, log.Do(t.Context(), audit.Entry{Tenant: "default", By: "k", Act: "key.revoke"}, func() error { return nil }))
	clock.forward(40 * time.Minute)
	sweep(t, n)
	_, err := n.files.Get(t.Context(), in.ID)
	require.Equal(t, fault.NotFound, fault.KindOf(err))
	_, err = n.files.Get(t.Context(), young.ID)
	require.NoError(t, err)
	es, _, err := log.List(t.Context(), "", "", 10)
	require.NoError(t, err)
	require.Len(t, es, 1)
	require.Equal(t, "key.revoke", es[0].Act)
	require.Equal(t, 2, rowsOf(t, n, audit.IndexAll, audit.IndexTenant+"default", audit.IndexTenant+"acme"))
}

// TestDeleteATask is by a client.
func TestDeleteATask(t *testing.T) {
	n := boot(t, testConfig(t))
	far := time.Now().Add(time.Hour)
	require.NoError(t, n.svc.Submit(t.Context(), []*task.Spec{{ID: "waits", Prompt: "p", NotBefore: &far}})[0].Err)
	require.Equal(t, http.StatusConflict, call(t, n, "DELETE", "/v1/tasks/waits", nil, nil).StatusCode)
	mustEnd(t, n, t.Context(), &task.Spec{ID: "a", Prompt: "p"})
	require.Equal(t, http.StatusNoContent, call(t, n, "DELETE", "/v1/tasks/a", nil, nil).StatusCode)
	require.Equal(t, http.StatusNotFound, call(t, n, "DELETE", "/v1/tasks/a", nil, nil).StatusCode)
	require.Equal(t, http.StatusNotFound, call(t, n, "GET", "/v1/tasks/a", nil, nil).StatusCode)
	require.Equal(t, http.StatusCreated, call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "a", "prompt": "other"}, nil).StatusCode)
}

func TestErasable(t *testing.T) {
	replicas := []persistence.Replica{{ID: 1, Node: "n1"}, {ID: 2, Node: "n2"}}
	peer := func(node string, erases bool) cluster.Peer {
		return cluster.Peer{Name: node, Node: node, Erases: erases}
	}
	for name, c := range map[string]struct {
		alive []cluster.Peer
		ok    bool
	}{
		"all can":                      {alive: []cluster.Peer{peer("n1", true), peer("n2", true), peer("n3", true)}, ok: true},
		"a replica's node cannot":      {alive: []cluster.Peer{peer("n1", true), peer("n2", false)}},
		"one that may get one cannot":  {alive: []cluster.Peer{peer("n1", true), peer("n2", true), peer("n3", false)}},
		"a replica's node is not here": {alive: []cluster.Peer{peer("n1", true), peer("n3", true)}},
	} {
		err := erasable(replicas, c.alive)
		require.Equal(t, c.ok, err == nil, "%s: %v", name, err)
		if err != nil {
			require.NotEmpty(t, fault.RemedyOf(err), name)
		}
	}
}
