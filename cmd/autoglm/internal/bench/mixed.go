package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The steady load of grow.
const (
	mixedClients = 16
	mixedThink   = 20 * time.Millisecond // of a client between two requests
	mixedTry     = 10 * time.Second      // of one request, which failed then
	mixedTries   = 8                     // nodes tried while connections are refused
)

// outcome of one request.
type outcome struct {
	ended   time.Time
	took    time.Duration
	refused int    // nodes that refused the connection first
	failure string // what a node that should serve did instead; "" when it served
}

// mixed is a steady load on all nodes: of six requests of a client, three submit a task, two read one, and one lists.
type mixed struct {
	http    *http.Client
	targets atomic.Pointer[[]string]
	cancel  context.CancelFunc
	wg      sync.WaitGroup

	mu        sync.Mutex
	done      []outcome
	submitted int // tasks acknowledged
}

// startMixed starts the load; stop ends it.
func startMixed(ctx context.Context, targets []string) *mixed {
	ctx, cancel := context.WithCancel(ctx)
	m := &mixed{http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: mixedClients}}, cancel: cancel}
	m.use(targets)
	for i := range mixedClients {
		m.wg.Go(func() { m.client(ctx, i) })
	}
	return m
}

// stop ends the clients and waits for them. It is safe to call twice.
func (m *mixed) stop() {
	m.cancel()
	m.wg.Wait()
	m.http.CloseIdleConnections()
}

// use says which nodes there are.
func (m *mixed) use(targets []string) { m.targets.Store(&targets) }

// outcomes returns what has ended so far.
func (m *mixed) outcomes() []outcome {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.done)
}

// acknowledged is how many tasks were.
func (m *mixed) acknowledged() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.submitted
}

func (m *mixed) client(ctx context.Context, number int) {
	t := newTemplate(fmt.Sprintf("g%d", number), false)
	newest := -1 // number of the newest task acknowledged
	for i := 0; ; i++ {
		method, path, body := http.MethodGet, "/v1/tasks?limit=20", []byte(nil)
		switch {
		case i%6 < 3 || newest < 0:
			method, path, body = http.MethodPost, "/v1/tasks", t.task(nil, i)
		case i%6 < 5:
			path = fmt.Sprintf("/v1/tasks/g%d-%d", number, newest)
		}
		o := m.call(ctx, number+i, method, path, body)
		if ctx.Err() != nil {
			return // it may have been given up
		}
		m.mu.Lock()
		m.done = append(m.done, o)
		if method == http.MethodPost && o.failure == "" {
			newest = i
			m.submitted++
		}
		m.mu.Unlock()
		if waitUntil(ctx, time.Now().Add(mixedThink)) != nil {
			return
		}
	}
}

// call makes one request. A node that refuses the connection has been stopped, and another one is asked, as a load
// balancer would; anything else that is no answer of success is a failure.
func (m *mixed) call(ctx context.Context, turn int, method, path string, body []byte) (o outcome) {
	began := time.Now()
	for try := range mixedTries {
		targets := *m.targets.Load()
		err := m.try(ctx, method, "http://"+targets[(turn+try)%len(targets)]+path, body)
		o.ended, o.took, o.failure = time.Now(), time.Since(began), ""
		if err == nil {
			return o
		}
		o.failure = err.Error()
		if !refused(err) {
			return o
		}
		o.refused++
	}
	return o
}

// refused tells that nobody listens there.
func refused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func (m *mixed) try(ctx context.Context, method, url string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, mixedTry)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("bench.load: %w", err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
		// The task's id makes the request repeatable: net/http sends it once more when a kept connection was closed. The
		// header itself is not sent.
		req.Header["Idempotency-Key"] = nil
	}
	res, err := m.http.Do(req)
	if err != nil {
		return fmt.Errorf("bench.load: %w", err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("bench.load: %s %s: %w", method, url, err)
	}
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusCreated {
		return fmt.Errorf("bench.load: %s %s: %s: %s", method, url, res.Status, cut(b))
	}
	return nil
}

// stretch sums up the requests that ended within a stretch of time.
type stretch struct {
	perSecond float64
	worst     float64 // of whole seconds; perSecond when there is none
	lat       *Latency
	failed    []string
	refused   int
}

// sum sums up the outcomes that ended from one moment to another.
func sum(all []outcome, from, to time.Time) (s stretch) {
	var times []time.Duration
	buckets := make([]int, max(0, int(to.Sub(from)/time.Second)))
	for _, o := range all {
		if o.ended.Before(from) || !o.ended.Before(to) {
			continue
		}
		s.refused += o.refused
		if o.failure != "" {
			s.failed = append(s.failed, o.failure)
			continue
		}
		times = append(times, o.took)
		if i := int(o.ended.Sub(from) / time.Second); i < len(buckets) {
			buckets[i]++
		}
	}
	s.perSecond, s.lat = rate(len(times), to.Sub(from)), latencyOf(times)
	if s.worst = s.perSecond; len(buckets) > 0 {
		s.worst = float64(slices.Min(buckets))
	}
	return s
}

// dip is by how many percent now is below before; negative when it is above.
func dip(before, now float64) float64 {
	if before <= 0 {
		return 0
	}
	return 100 * (before - now) / before
}
