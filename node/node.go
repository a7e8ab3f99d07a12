package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/apikey"
	"github.com/open-autoglm/autoglm/actors/audit"
	"github.com/open-autoglm/autoglm/actors/batch"
	"github.com/open-autoglm/autoglm/actors/bulk"
	"github.com/open-autoglm/autoglm/actors/callback"
	"github.com/open-autoglm/autoglm/actors/file"
	"github.com/open-autoglm/autoglm/actors/gate"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/meter"
	"github.com/open-autoglm/autoglm/actors/quota"
	"github.com/open-autoglm/autoglm/actors/retention"
	"github.com/open-autoglm/autoglm/actors/schedule"
	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/actors/source"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/cluster/seal"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/node/api/openai"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Node is one running process. New checks, Start starts, Stop ends it in order.
type Node struct {
	cfg     Config
	log     *slog.Logger
	version string
	shipped shippedModel
	kinds   []cluster.Kind
	now     func() time.Time // the wall clock; waits and time limits have the process's own

	reg       *prometheus.Registry
	meter     *meter.Meter
	joint     *joint     // nil when the node is alone
	keys      *seal.Keys // nil: nothing is sealed
	store     persistence.Store
	table     *table
	id        string   // its name; from Start on
	tools     int      // engines of tools
	toolStops []func() // let go what they hold
	fetcher   *source.Fetcher
	poster    *callback.Poster
	calls     *callback.Dispatcher
	janitor   *file.Janitor
	files     *file.Library
	batches   *bulk.Batches
	sinks     *sink.Sinks
	schedules *schedule.Schedules
	sweeper   *retention.Sweeper
	sys       *actors.System
	svc       *service
	dir       *dirWatch
	front     *api.Front // the port; nil before Start
	secure    bool       // it speaks TLS
	root      apikey.Root
	addr      atomic.Pointer[string]
	waits     atomic.Pointer[func() string] // what Start is at

	stopOnce sync.Once
	stopErr  error
	done     chan struct{}
	failOnce sync.Once
	fail     error
}

// Option adds to a node what is not configuration.
type Option func(*Node)

type shippedModel struct {
	name string
	data []byte
}

// WithModel gives the model that the embedded engine serves when model.path is
// empty: its id, and the bytes of its GGUF file.
func WithModel(name string, gguf []byte) Option {
	return func(n *Node) { n.shipped = shippedModel{name, gguf} }
}

// WithVersion is what /v1/status and the OpenAPI document show.
func WithVersion(v string) Option { return func(n *Node) { n.version = v } }

// WithKind adds a persistent actor kind of one's own; see package entity. What it opens to the outside is served
// by ActorService. All nodes of a cluster need the same kinds.
func WithKind(k cluster.Kind) Option { return func(n *Node) { n.kinds = append(n.kinds, k) } }

// WithClock gives the node another wall clock than the machine's: of what is journaled, compared with times of other nodes or shown.
func WithClock(now func() time.Time) Option { return func(n *Node) { n.now = now } }

// New checks the configuration; it touches nothing yet.
func New(cfg Config, log *slog.Logger, opts ...Option) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.Default()
	}
	n := &Node{cfg: cfg, log: log, version: "dev", now: time.Now, done: make(chan struct{})}
	n.table = newTable(n)
	for _, o := range opts {
		o(n)
	}
	return n, nil
}

// Start boots the node and returns when it serves. On an error everything that was
// started is stopped again.
func (n *Node) Start(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with Start: what is under way there ends with the node
		select {
		case <-n.done:
			cancel(n.fail)
		case <-ctx.Done():
		}
	}()
	defer func() {
		if err != nil && n.Err() != nil {
			err = n.Err() // not what it led to
		}
		if err != nil {
			stop, cancel := context.WithTimeout(context.Background(), n.cfg.Drain)
			defer cancel()
			_ = n.Stop(stop) // the first error is the one to tell
		}
	}()
	if n.cfg.MemoryLimit > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(n.cfg.MemoryLimit)) // else a bulk submit of a million tasks leaves the heap at twice what it needs
	}
	n.reg = prometheus.NewRegistry()
	n.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n.meter = meter.New(n.reg)

	if n.keys, err = n.cfg.Encryption.keys(); err != nil {
		return err
	}
	badgerKey, err := n.cfg.Store.BadgerKey()
	if err != nil {
		return err
	}
	if err := n.listen(); err != nil {
		return err
	}
	n.waitsFor("the data directory to open")
	s := n.cfg.Store
	store := persistence.Options{
		Dir: n.cfg.DataDir, Shards: n.cfg.Shards, DiskReserve: uint64(n.cfg.DiskReserve), InFlightCount: s.InFlightCount,
		InFlightBytes: int(s.InFlightBytes), MemTableBytes: int(s.MemTable), BlockCache: int(s.BlockCache), OpenTimeout: s.OpenTimeout, EncryptionKey: badgerKey, Logger: n.log,
	}
	if n.cfg.Cluster.Identity == "" {
		if n.store, err = persistence.Open(store); err == nil {
			err = cluster.CheckKeys(n.store, n.keys)
		}
	} else if err = n.startJoint(ctx); err == nil {
		n.store, err = n.joint.openStore(ctx, store)
	}
	if err != nil {
		return err
	}
	if n.keys.Seals() != "" {
		n.log.Info("what tasks, files and batches hold is sealed before it is written: keep a copy of the keyset, without it the data is lost", "key", n.keys.Seals())
	}
	t := time.NewTicker(goneEvery)
	n.dir = watchDir(n.cfg.DataDir, t.C, n.fatal)
	if err := n.Err(); err != nil {
		return err // another node has this one's name, say: nothing more of it should start
	}
	n.waitsFor("the engines and the shards to open")
	id, err := n.identity()
	if err != nil {
		return err
	}
	n.id = id
	engines, err := n.startEngines()
	if err != nil {
		return err
	}
	tools, err := n.startTools()
	if err != nil {
		return err
	}
	if n.fetcher, err = n.newFetcher(); err != nil {
		return err
	}
	if n.poster, err = n.newPoster(); err != nil {
		return err
	}
	n.janitor = file.NewJanitor(n.cfg.Files.StaleAfter, n.log)
	n.janitor.Counts(n.allCount)
	n.batches = bulk.New(n.now, n.log)
	n.sinks = sink.New(n.now, n.log)
	n.schedules = schedule.New(n.now, n.log)
	policy, err := n.cfg.Scheduling.policy()
	if err != nil {
		return err
	}
	hedging, err := n.cfg.Scheduling.hedging()
	if err != nil {
		return err
	}
	opt := actors.Options{
		Node: id, Self: id, Store: n.store, Engines: append(engines, tools...), Policy: n.policy(), Kinds: append(append(n.janitor.Kinds(), n.batches.Kind(), n.sinks.Kind(), n.schedules.Kind(), apikey.Kind(), audit.Kind()), n.kinds...),
		Window:    n.cfg.Batch.window(),
		Rules:     batch.Rules{Prefix: n.cfg.Batch.Prefix, Length: n.cfg.Batch.Lengths},
		Fair:      policy,
		Hedge:     hedging,
		Callbacks: n.dispatcher, IdleAfter: n.cfg.Task.AsleepAfter, Fatal: n.fatal, Keys: n.keys, Meter: n.meter, Now: n.now, Log: n.log,
		Runner: &infer.Runner{Fetch: n.fetcher.Fetch, Meter: n.meter, Now: n.now},
	}
	if n.joint != nil {
		n.joint.actors(&opt)
	}
	if n.sys, err = actors.Start(opt); err != nil {
		return err
	}
	if n.joint != nil {
		err = n.joint.started()
	} else {
		err = n.shardsOpen(ctx)
	}
	if err != nil {
		return err
	}
	n.openFiles()
	n.svc = &service{id: id, version: n.version, started: n.now(), sys: n.sys, store: n.store, defaultModel: n.defaultModel(), timeoutMax: n.cfg.Task.TimeoutMax, attempts: n.cfg.Task.Attempts, engines: n.engineStatus, table: n.table, now: n.now, admit: n.fetcher.Admit, batches: n.batches, marks: n.sinkMarks}
	if n.joint != nil {
		n.joint.shows(n.svc)
	}
	if err := n.openBulk(); err != nil {
		return err
	}
	n.openSinks()
	n.openSchedules()
	n.openRetention()
	n.reg.MustRegister(newCollector(n.svc), NewWorkMetrics(n))
	if err := n.Err(); err != nil {
		return err
	}
	return n.open()
}

// shardsOpen waits for the shards of a node that is alone.
func (n *Node) shardsOpen(ctx context.Context) error {
	within := n.cfg.Store.OpenTimeout
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-n.sys.Shards.Ready():
		return nil
	case <-ctx.Done():
		return fault.New(fault.Timeout, "node.start", "", "the shards did not open: %w", errors.Join(context.Cause(ctx), n.sys.Shards.Err()))
	case <-t.C:
		return fault.New(fault.Timeout, "node.start", "", "the shards did not open in %v: %w", within, n.sys.Shards.Err())
	}
}

// identity is the node's name in attempts: configured, or that of its certificate or machine.
func (n *Node) identity() (string, error) {
	switch {
	case n.joint != nil:
		return n.joint.id.Name, nil
	case n.cfg.NodeID != "":
		return n.cfg.NodeID, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fault.New(fault.Unavailable, "node.start", "node_id", "this machine has no host name: %w", err).WithRemedy("set node_id")
	}
	return host, nil
}

// listen opens the port first: until there is something behind it, it says what is waited for.
func (n *Node) listen() error {
	n.waitsFor("the node to begin")
	secure, err := n.cfg.serverTLS(n.log)
	if err != nil {
		return err
	}
	if n.root, err = n.cfg.root(); err != nil {
		return err
	}
	l, err := net.Listen("tcp", n.cfg.HTTP.Listen)
	if err != nil {
		return fault.New(fault.Unavailable, "node.listen", n.cfg.HTTP.Listen, "%w", err).WithRemedy("another program may have the port: choose one with --http, or stop it")
	}
	addr := l.Addr().String()
	n.addr.Store(&addr)
	n.front = api.NewFront(n.cfg.HTTP.Limits, n.log, secure, func() string { return "waiting for " + (*n.waits.Load())() })
	n.secure = secure != nil
	go func() {
		if err := n.front.Serve(l); err != nil {
			n.fatal(err)
		}
	}()
	return nil
}

// waitsFor says to who asks what Start is at.
func (n *Node) waitsFor(what string) { n.waitsOn(func() string { return what }) }

func (n *Node) waitsOn(what func() string) { n.waits.Store(&what) }

// open serves the API, last, when there is something behind it.
func (n *Node) open() error {
	outside, err := gate.New(n.sys.Router, append([]cluster.Kind{n.sys.Tasks.Register()}, n.kinds...)...)
	if err != nil {
		return err
	}
	a, err := api.New(n.svc, api.WithFront(n.front), api.WithLimits(n.cfg.HTTP.Limits), api.WithLogger(n.log), api.WithHosts(n.cfg.HTTP.AllowedHosts...), api.WithActors(outside), api.WithAccess(n.access()),
		api.WithOpenAI(openai.Deps{Completions: n.svc, Started: n.svc.started, Files: tenantFiles{n.files}, Batches: tenantBatches{n.batches}}),
		api.WithSinks(n.sinks), api.WithEngines(n.svc), api.WithSchedules(n.schedules), api.WithQuotas(quotas{quota.New(n.sys.Router), n.svc.tallyAll, n.sys.Quota.Spent}), api.WithVersion(n.version), api.WithMetrics(n.reg, promhttp.HandlerFor(n.reg, promhttp.HandlerOpts{Registry: n.reg})))
	if err != nil {
		return err
	}
	n.svc.http = n.HTTPAddr()
	n.front.Open(a.Handler())
	if n.joint != nil {
		n.joint.serving(n.HTTPAddr())
	}
	scheme := "http://"
	if n.secure {
		scheme = "https://"
	}
	n.log.Info("serving", "http", scheme+n.HTTPAddr(), "keys", n.cfg.keysNeeded(), "data_dir", n.cfg.DataDir, "shards", n.store.Shards(), "engines", len(n.Engines()))
	return nil
}

func (n *Node) policy() task.Policy {
	t := n.cfg.Task
	return task.Policy{Timeout: t.Timeout, TimeoutMax: t.TimeoutMax, LeaseMargin: t.LeaseMargin, Attempts: t.Attempts, BackoffMin: t.BackoffMin,
		BackoffMax: t.BackoffMax, SlowFactor: t.SlowFactor, MovesMax: t.MovesMax, Jitter: rand.Float64,
		Fair: n.allFair, Bytes: n.allCount, Budget: task.NewBudget(task.Limits{Percent: t.RetryShare, Floor: t.RetryFloor, Window: t.RetryWindow}, n.meter.Held.Inc)}
}

// allFair tells whether every living node knows the queues of tenants; they came with what erases.
func (n *Node) allFair() bool {
	return n.allAlive(func(p cluster.Peer) bool { return p.Erases })
}

// allCount tells whether every living node counts what tenants keep, and takes off what it erases.
func (n *Node) allCount() bool {
	return n.allAlive(func(p cluster.Peer) bool { return p.Bytes })
}

func (n *Node) allAlive(can func(cluster.Peer) bool) bool {
	return n.joint == nil || !slices.ContainsFunc(n.joint.who().Alive(), func(p cluster.Peer) bool { return !can(p) })
}

// fatal ends the node from inside: Done closes, and whoever runs it stops it.
func (n *Node) fatal(err error) {
	n.failOnce.Do(func() {
		n.log.Error("the node cannot go on", "err", err)
		n.fail = err
		close(n.done)
	})
}

// Done is closed when the node cannot go on by itself; Err then tells why.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err returns why Done is closed, and nil before.
func (n *Node) Err() error {
	select {
	case <-n.done:
		return n.fail
	default:
		return nil
	}
}

// HTTPAddr returns the address the API listens on, "" before Start listens.
func (n *Node) HTTPAddr() string {
	if a := n.addr.Load(); a != nil {
		return *a
	}
	return ""
}

// Engines returns the engines, to drive one without the node's machinery.
func (n *Node) Engines() (all []infer.Engine) {
	for _, m := range n.table.all() {
		for _, e := range m.engines {
			all = append(all, e.Engine)
		}
	}
	return all
}

// WaitEngines returns once all workers of embedded engines answer, or a fault that tells why some do not.
func (n *Node) WaitEngines(ctx context.Context) error {
	for _, m := range n.table.all() {
		if m.pool == nil {
			continue
		}
		if err := m.pool.WaitReady(ctx, infer.WorkersMax); err != nil {
			return err
		}
	}
	return nil
}

// Stop ends the node in order and loses nothing: no new requests, what runs may end
// until ctx does, then engines, actors and the store. It is safe to call twice.
func (n *Node) Stop(ctx context.Context) error {
	n.stopOnce.Do(func() { n.stopErr = n.stop(ctx) })
	return n.stopErr
}

func (n *Node) stop(ctx context.Context) error {
	var errs []error
	if n.dir != nil {
		n.dir.stop()
	}
	n.table.stopping()
	if n.joint != nil {
		n.joint.stopping()
	}
	if n.front != nil {
		errs = append(errs, n.front.Shutdown(ctx))
	}
	if n.sys != nil {
		n.sys.Drain(ctx)
		if n.joint != nil {
			n.joint.handOver(ctx, n.store)
		}
		n.sys.StopEngines()
	}
	n.table.stop()
	if n.sweeper != nil {
		n.sweeper.Stop()
	}
	if n.calls != nil {
		n.calls.Stop()
	}
	if n.batches != nil {
		n.batches.Stop()
	}
	if n.sinks != nil {
		n.sinks.Stop()
	}
	if n.schedules != nil {
		n.schedules.Stop()
	}
	if n.janitor != nil {
		n.janitor.Stop()
	}
	if n.sys != nil {
		n.sys.Stop()
	}
	if n.poster != nil {
		n.poster.Close()
	}
	if n.fetcher != nil {
		n.fetcher.Close()
	}
	n.stopTools()
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	if n.joint != nil {
		n.joint.stop()
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("node.stop: %w", err)
	}
	return nil
}

// dataPath is a file of the node's own in the data directory.
func (n *Node) dataPath(name string) string { return filepath.Join(n.cfg.DataDir, name) }
