package mesh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/eventstream"
	"github.com/asynkron/protoactor-go/remote"

	"github.com/open-autoglm/autoglm/cluster/pki"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	gateID      = "gate"
	inFlight    = 4096      // unless Options say otherwise
	bytesMax    = 256 << 20 // of bodies asked with, and again of bodies served
	noticesMax  = 1024      // notices and refusals that wait to be sent, at once
	noticeAge   = 5 * time.Second
	startTries  = 20 // for a free port, when any will do
	sweepEvery  = 10 * time.Second
	writerQueue = 1024 // letters; protoactor's ring at its start, it grows
)

var errStopped = errors.New("this node is stopping")

// Request asks a node, or the owner of a shard on it, for something.
type Request struct {
	ID    string // of the request: a retry keeps it. Ask makes one when it is empty
	Op    string // names the handler, like "tell" or "group.change"
	Shard int    // the shard it is for; -1: the node itself
	Kind  string // of the entity it is for; may be empty
	Key   string // of the entity
	Type  string // of Body, known to the handler; an unknown one is refused, never fatal
	Body  []byte // at most BodyMax; not to be changed after Ask, even when it has returned
	Trace string // W3C traceparent; empty: that of Ask's context. A Handler finds it in its own
}

// Answer is what a handler returns.
type Answer struct {
	Type string
	Body []byte // at most BodyMax; not to be changed afterwards
}

// Handler serves the requests of one Op. It runs on a goroutine of its own; ctx ends
// with the asker's deadline, or when this node stops. Its error reaches the asker as a fault of the same kind, text
// and remedy. The same request may come twice.
type Handler func(ctx context.Context, from string, r *Request) (Answer, error)

// Options make a Mesh.
type Options struct {
	Listen   string                                   // host:port; port 0: a free one
	TLS      *pki.Identity                            // who this node is
	Resolve  func(node string) (addr string, ok bool) // where a node listens now; called often, must not block
	InFlight int                                      // requests that wait at once, and that are served at once for each peer; 0: 4096
	Version  string                                   // of this program, for messages
	Newer    func(what string)                        // a peer sent what only a newer version knows: an "op", a "letter"; nil: nobody is told
	Log      *slog.Logger                             // nil: none
}

// Mesh asks other nodes and answers them. A process has one: protoactor's remote sets a logger for the whole process.
type Mesh struct {
	opts  Options
	log   *slog.Logger
	self  string
	opsMu sync.RWMutex
	ops   map[string]Handler

	complete bool // under opsMu
	calls    *calls
	links    *links
	guard    *guard

	asked   *budget // requests of this node
	notices *budget
	served  peerBudgets // requests of others

	ctx    context.Context // ends with Stop; handlers' are made of it
	cancel context.CancelCauseFunc
	work   sync.WaitGroup // handlers and the sweeper

	partialMu sync.Mutex
	partial   *partial

	system *actor.ActorSystem
	remote *remote.Remote
	events *eventstream.Subscription
	addr   string

	// posting is held for reading while a letter is given to protoactor, and for writing to end calls whose writer is
	// gone, so that no call slips between: it is failed, or has a new writer.
	posting sync.RWMutex
	state   state // under posting
	once    sync.Once
}

type state uint8

const (
	made state = iota
	running
	stopped
)

// New checks the options.
func New(o Options) (*Mesh, error) {
	if o.TLS == nil || o.Resolve == nil {
		return nil, fault.New(fault.Invalid, "mesh.new", "", "TLS and Resolve are needed")
	}
	if _, _, err := splitAddr(o.Listen); err != nil {
		return nil, err
	}
	if o.InFlight == 0 {
		o.InFlight = inFlight
	}
	if o.InFlight < 0 {
		return nil, fault.New(fault.Invalid, "mesh.new", "", "InFlight is %d", o.InFlight)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Newer == nil {
		o.Newer = func(string) {}
	}
	m := &Mesh{opts: o, log: o.Log, self: o.TLS.Name, ops: map[string]Handler{}, calls: newCalls(), partial: newPartial(),
		asked:   &budget{countMax: o.InFlight, bytesMax: bytesMax},
		notices: &budget{countMax: noticesMax, bytesMax: bytesMax},
		served:  peerBudgets{countMax: o.InFlight, bytesMax: bytesMax},
	}
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	m.links = newLinks(o.TLS, o.Resolve, m.lost, o.Log)
	m.guard = newGuard(m.self, o.Log)
	return m, nil
}

// Handle serves an op, from now on; once for each op. A node that starts has nothing to serve for a while, and yet
// must be asked: its parts come one by one.
func (m *Mesh) Handle(op string, h Handler) {
	m.opsMu.Lock()
	defer m.opsMu.Unlock()
	if _, twice := m.ops[op]; twice {
		panic("mesh: two handlers of " + op)
	}
	m.ops[op] = h
}

// Complete says that everything this node serves is handled now: from here on an op without a handler is one that another
// version knows, and not one that is yet to come.
func (m *Mesh) Complete() {
	m.opsMu.Lock()
	defer m.opsMu.Unlock()
	m.complete = true
}

// missing is why an op has no handler.
func (m *Mesh) missing(op, from, version string) error {
	m.opsMu.RLock()
	defer m.opsMu.RUnlock()
	if !m.complete {
		return fault.New(fault.Unavailable, "mesh.serve", op, "node %s is starting", m.self)
	}
	m.opts.Newer("op")
	e := fault.New(fault.Invalid, "mesh.serve", op, "node %s (version %q) does not know this op", m.self, m.opts.Version)
	if version != m.opts.Version {
		e = e.WithRemedy("upgrade %s: version %q of %s may know it", m.self, version, from)
	}
	return e
}

func (m *Mesh) handler(op string) (Handler, bool) {
	m.opsMu.RLock()
	defer m.opsMu.RUnlock()
	h, ok := m.ops[op]
	return h, ok
}

// Self returns this node's name.
func (m *Mesh) Self() string { return m.self }

// Addr returns the address it listens on, once started.
func (m *Mesh) Addr() string { return m.addr }

// Start listens. It can be called once; an address that cannot be listened on is Unavailable.
func (m *Mesh) Start() error {
	m.posting.Lock()
	defer m.posting.Unlock()
	if m.state != made {
		return fault.New(fault.Invalid, "mesh.start", m.self, "it was started or stopped before")
	}
	host, port, err := splitAddr(m.opts.Listen)
	if err != nil {
		return err
	}
	m.system = actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(demoted{m.log.Handler()}) }))
	// The gate first, or a peer's first letter would find nobody. It waits for posting.
	if _, err := m.system.Root.SpawnNamed(actor.PropsFromFunc(m.receive), gateID); err != nil {
		m.system.Shutdown()
		return fault.New(fault.Unknown, "mesh.start", m.self, "%w", err)
	}
	if err := m.listen(host, port); err != nil {
		m.system.Root.Stop(m.system.NewLocalPID(gateID))
		m.system.Shutdown()
		return err
	}
	// After remote's own: when we hear of a writer's end, the next letter to its node makes a new one.
	m.events = m.system.EventStream.SubscribeWithPredicate(m.writerEnded, func(e any) bool {
		_, ok := e.(*remote.EndpointTerminatedEvent)
		return ok
	})
	m.work.Go(m.sweep)
	m.state = running
	m.log.Info("mesh: listening", "node", m.self, "addr", m.addr)
	return nil
}

// listen starts protoactor's remote. It can neither report a failure nor tell its port, so both are found out before; when
// any port will do and the one found is lost meanwhile, another is.
func (m *Mesh) listen(host string, port int) error {
	for try := 1; ; try++ {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return fault.New(fault.Unavailable, "mesh.start", m.opts.Listen, "%w", err).WithRemedy("choose an address of this machine and a free port")
		}
		m.addr = l.Addr().String()
		got := l.Addr().(*net.TCPAddr).Port
		l.Close()
		err = m.startRemote(host, got)
		if err == nil {
			return nil
		}
		if port != 0 || try == startTries {
			return fault.New(fault.Unavailable, "mesh.start", m.opts.Listen, "%w", err)
		}
	}
}

func (m *Mesh) startRemote(host string, port int) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	if ip := net.ParseIP(host); ip != nil && ip.To4() == nil {
		host = "[" + host + "]" // remote joins with a colon
	}
	m.remote = remote.NewRemote(m.system, remote.Configure(host, port,
		remote.WithAdvertisedHost(m.self),
		remote.WithServerOptions(append(m.links.serverOptions(), m.guard.options()...)...),
		remote.WithDialOptions(m.links.dialOptions()...),
		remote.WithEndpointWriterBatchSize(batchMax),
		remote.WithEndpointWriterQueueSize(writerQueue),
		func(c *remote.Config) { c.MaxRetryCount = 1 }, // 0 would never dial
	))
	m.remote.Start()
	return nil
}

// Stop ends everything: waiting Asks fail, handlers' contexts end and are waited for, the port is closed. It is safe to call
// twice; after Stop nothing of it runs.
func (m *Mesh) Stop() {
	m.once.Do(func() {
		m.cancel(errStopped)
		m.posting.Lock()
		was := m.state
		m.state = stopped
		m.calls.fail("", fault.New(fault.Unavailable, "mesh.ask", m.self, "%w", errStopped))
		m.posting.Unlock()
		if was != running {
			return
		}
		m.remote.Shutdown(false) // not gracefully: that way may send on a closed channel
		m.links.cut("", errStopped)
		root := m.system.Root
		for _, id := range []string{"EndpointSupervisor", "activator", gateID} {
			if err := root.StopFuture(m.system.NewLocalPID(id)).Wait(); err != nil {
				m.log.Warn("mesh: an actor did not stop", "actor", id, "error", err)
			}
		}
		m.system.EventStream.Unsubscribe(m.events)
		m.work.Wait()
		m.system.Shutdown()
	})
}

// sweep forgets letters whose rest never came.
func (m *Mesh) sweep() {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		select {
		case <-m.ctx.Done():
			return
		case now := <-t.C:
			m.partialMu.Lock()
			m.partial.sweep(now)
			m.partialMu.Unlock()
		}
	}
}

func splitAddr(addr string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err == nil {
		port, err = strconv.Atoi(p)
	}
	if err == nil && (port < 0 || port > 65535) {
		err = errors.New("no such port")
	}
	if err != nil {
		err = fault.New(fault.Invalid, "mesh.listen", addr, "%w", err).WithRemedy("write host:port")
	}
	return host, port, err
}

// demoted passes protoactor's log on as debugging: mesh tells what matters of it in its own words.
type demoted struct{ slog.Handler }

// Enabled tells whether debugging is logged.
func (d demoted) Enabled(ctx context.Context, _ slog.Level) bool {
	return d.Handler.Enabled(ctx, slog.LevelDebug)
}

// Handle logs a record as debugging.
func (d demoted) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	return d.Handler.Handle(ctx, r)
}
