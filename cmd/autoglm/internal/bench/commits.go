package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
)

// Times of a client that commits on one shard.
const (
	commitPause = 20 * time.Millisecond  // between two commits
	commitTry   = 500 * time.Millisecond // of one try
	commitAgain = 5 * time.Millisecond   // before the next try
)

// commits are clients, one for each shard, that submit one task after another, each until it is acknowledged.
type commits struct {
	http    *http.Client
	shards  []*shardClient
	targets atomic.Pointer[[]string] // host:port; tries go to them in turn
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// startCommits starts the clients; stop ends them.
func startCommits(ctx context.Context, shards int, targets []string) *commits {
	ctx, cancel := context.WithCancel(ctx)
	c := &commits{http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: shards}}, cancel: cancel}
	c.use(targets)
	for i := range shards {
		s := &shardClient{shard: i, of: shards}
		c.shards = append(c.shards, s)
		c.wg.Go(func() { s.run(ctx, c) })
	}
	return c
}

// stop ends the clients and waits for them. It is safe to call twice.
func (c *commits) stop() {
	c.cancel()
	c.wg.Wait()
	c.http.CloseIdleConnections()
}

// use says where the next tries go.
func (c *commits) use(targets []string) { c.targets.Store(&targets) }

// arm makes a shard's client give up what it does and begin with a new task. The channel gets the time when the first
// task that was sent after this call is acknowledged.
func (c *commits) arm(shard int) <-chan time.Time { return c.shards[shard].arm() }

// shardClient submits tasks whose ids belong to one shard.
type shardClient struct {
	shard, of int
	next      int // number of the next id to try

	mu     sync.Mutex
	giveUp context.CancelFunc // ends what is under way
	first  chan time.Time     // nil: not armed
}

func (s *shardClient) arm() <-chan time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first = make(chan time.Time, 1)
	if s.giveUp != nil {
		s.giveUp()
	}
	return s.first
}

func (s *shardClient) run(ctx context.Context, c *commits) {
	for ctx.Err() == nil {
		one, cancel := context.WithCancel(ctx)
		s.mu.Lock()
		s.giveUp = cancel
		first := s.first // armed before the task was sent
		s.mu.Unlock()
		if s.commit(one, c) && first != nil {
			first <- time.Now() // it has room
			s.mu.Lock()
			if s.first == first {
				s.first = nil
			}
			s.mu.Unlock()
		}
		_ = waitUntil(one, time.Now().Add(commitPause))
		cancel()
	}
}

// commit submits a new task until it is acknowledged, or ctx ends.
func (s *shardClient) commit(ctx context.Context, c *commits) bool {
	var id string
	id, s.next = idIn(s.shard, s.of, s.next)
	body := waitingTask(id)
	for try := s.shard; ctx.Err() == nil; try++ {
		targets := *c.targets.Load()
		one, cancel := context.WithTimeout(ctx, commitTry)
		err := c.post(one, targets[try%len(targets)], body)
		cancel()
		if err == nil {
			return true
		}
		_ = waitUntil(ctx, time.Now().Add(commitAgain))
	}
	return false
}

// idIn returns a task id of a shard, and the number to go on with.
func idIn(shard, shards, from int) (id string, next int) {
	for i := from; ; i++ {
		if id := "commit-" + strconv.Itoa(i); cluster.ShardOf(task.Key(id), shards) == shard {
			return id, i + 1
		}
	}
}

// waitingTask is a task that never starts.
func waitingTask(id string) []byte {
	return fmt.Appendf(nil, `{"task_id":%q,"prompt":"x","not_before":%q}`, id, waits)
}

// slowTask is a task that takes an engine that echoes so long.
func slowTask(id string, d time.Duration) []byte {
	b, err := json.Marshal(map[string]string{"task_id": id, "prompt": infer.EchoMark + "latency=" + d.String() + "\nx"})
	if err != nil {
		panic(err) // strings always marshal
	}
	return b
}

// post submits one task; nil once it is on disk, be it from an earlier try.
func (c *commits) post(ctx context.Context, addr string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/v1/tasks", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("bench.commit: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("bench.commit: %w", err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("bench.commit: %w", err)
	}
	if res.StatusCode != http.StatusCreated && res.StatusCode != http.StatusOK {
		return fmt.Errorf("bench.commit: %s: %s", res.Status, cut(b))
	}
	return nil
}
