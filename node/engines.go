package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/open-autoglm/autoglm/actors"
	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/actors/egress"
	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/source"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	concurrencyDefault = 16   // of an engine behind a URL
	concurrencyTrusted = 64   // of an engine behind a URL, more at once is looked into: it may only wait inside it
	echoConcurrency    = 1024 // the echo engine answers at once: many under way hide the commits
)

// made is one engine of the table: an engine behind a URL, or the processes of an embedded one or of a command.
type made struct {
	pool    *infer.Pool // nil: it has no processes here
	engines []actors.Engine
}

// stop ends its processes, once nothing is asked of them any more.
func (m *made) stop() {
	if m.pool != nil {
		m.pool.Stop()
	}
}

// makeEngine makes an engine under a name. Workers of an embedded one are not started yet.
func (n *Node) makeEngine(c *EngineConfig, name string) (m *made, err error) {
	m = &made{}
	var es []infer.Engine
	limit, endpoints, behind := c.Concurrency, c.Endpoints, false
	switch c.URL {
	case EngineEmbedded:
		if m.pool, err = n.newPool(c, name); err != nil {
			return nil, err
		}
		es = m.pool.Engines()
		limit = orDefault(limit, orDefault(c.Slots, n.cfg.Model.Slots))
		endpoints = orAll(endpoints, infer.EchoEndpoints()) // glm-worker serves the same
	case EngineCommand:
		limit = orDefault(limit, orDefault(c.Slots, concurrencyDefault))
		endpoints = orAll(endpoints, task.Endpoints())
		if m.pool, err = n.newCommandPool(c, name, limit); err != nil {
			return nil, err
		}
		es = m.pool.Engines()
	case EngineEcho:
		es = []infer.Engine{infer.NewEcho(infer.EchoOptions{Name: name, Models: c.Models, Directives: true})}
		limit = orDefault(limit, echoConcurrency)
		endpoints = orAll(endpoints, infer.EchoEndpoints())
	default:
		limit = orDefault(limit, concurrencyDefault)
		endpoints = orAll(endpoints, task.Endpoints())
		h, err := infer.NewHTTP(infer.HTTPOptions{Name: name, URL: c.URL, APIKey: os.Getenv(c.APIKeyEnv), Models: c.Models, Timeout: c.Timeout, Concurrency: limit})
		if err != nil {
			return nil, err
		}
		es, behind = []infer.Engine{h}, true
	}
	for _, e := range es {
		m.engines = append(m.engines, actors.Engine{Engine: infer.WithAliases(e, c.Aliases), Endpoints: endpoints, Concurrency: limit, Knee: behind && limit > concurrencyTrusted, Prefetch: orDefault(c.Prefetch, limit)})
	}
	return m, nil
}

// ids is the model of an embedded engine.
func (m *made) ids() []string {
	if m.pool == nil || len(m.engines) == 0 {
		return nil
	}
	all, err := m.engines[0].Models(context.Background()) // a pool's are known
	if err != nil {
		return nil
	}
	return all[:1]
}

// startEngines makes every engine that is configured, or was loaded before; an embedded one starts its workers
// and does not wait for them: tasks are accepted meanwhile.
func (n *Node) startEngines() (all []actors.Engine, err error) {
	taken := map[string]int{}
	for i := range n.cfg.Engines {
		c := &n.cfg.Engines[i]
		if c.URL == EngineNone {
			continue
		}
		name := c.name()
		if taken[name]++; taken[name] > 1 { // two URLs of one host
			name = fmt.Sprintf("%s-%d", name, taken[name])
		}
		m, err := n.makeEngine(c, name)
		if err != nil {
			return nil, err
		}
		n.table.entries = append(n.table.entries, &entry{name: name, cfg: *c, configured: true, version: 1, newest: 1, live: m})
	}
	if err := n.table.restore(); err != nil {
		return nil, err
	}
	for _, m := range n.table.all() {
		if m.pool != nil {
			m.pool.Start()
		}
		all = append(all, m.engines...)
	}
	return all, nil
}

func orDefault(v, def int) int {
	if v == 0 {
		return def
	}
	return v
}

func orAll(some, all []string) []string {
	if len(some) == 0 {
		return all
	}
	return some
}

// newPool makes the workers of an embedded engine: what it does not say is as the settings of model have it.
func (n *Node) newPool(c *EngineConfig, name string) (*infer.Pool, error) {
	m := n.cfg.Model
	path, id := m.Path, m.Name
	if c.Path != "" {
		path, id = c.Path, ""
		if len(c.Models) > 0 {
			id = c.Models[0]
		}
	}
	if path == "" {
		if n.shipped.data == nil {
			return nil, fault.New(fault.Invalid, "config", "model.path", "is empty, and this program ships no model").WithRemedy("name a GGUF file")
		}
		var err error
		if path, err = n.unpackModel(); err != nil {
			return nil, err
		}
		if id == "" {
			id = n.shipped.name
		}
	}
	o := n.poolOptions(c, name)
	o.Binary, o.Model, o.ModelID, o.Threads = m.Worker, path, id, m.Threads
	o.Workers, o.Slots, o.Ctx = orDefault(c.Workers, m.Workers), orDefault(c.Slots, m.Slots), orDefault(c.Ctx, m.Ctx)
	return infer.NewPool(o)
}

// poolOptions are what all of a node's children have in common.
func (n *Node) poolOptions(c *EngineConfig, name string) infer.PoolOptions {
	m := n.cfg.Model
	return infer.PoolOptions{Name: name, GPU: c.GPU, Limits: c.Limits.limits(), Timeout: c.Timeout, LoadTimeout: m.LoadTimeout, HangAfter: m.HangAfter, StopTimeout: m.StopTimeout,
		Backoff: backoff.Exponential{Min: m.RestartDelay, Max: m.RestartMax, Jitter: 0.5}, Log: n.log}
}

// unpackModel puts the shipped model where a worker can map it, once for each version.
func (n *Node) unpackModel() (string, error) {
	sum := sha256.Sum256(n.shipped.data)
	path := n.dataPath(filepath.Join("models", fmt.Sprintf("%s-%s.gguf", n.shipped.name, hex.EncodeToString(sum[:4]))))
	if b, err := os.ReadFile(path); err == nil && bytes.Equal(b, n.shipped.data) {
		return path, nil
	}
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = errors.Join(os.WriteFile(path+".tmp", n.shipped.data, 0o644), os.Rename(path+".tmp", path))
	}
	if err != nil {
		return "", fault.New(fault.Unavailable, "node.model", path, "the shipped model cannot be unpacked: %w", err)
	}
	return path, nil
}

// defaultModel is the queue of tasks that name no model. Unless one is configured it is
// everybody's: such a task must not be stranded when the engine, or its model, changes.
func (n *Node) defaultModel() string {
	if n.cfg.Model.Name != "" {
		return n.cfg.Model.Name
	}
	return task.AnyModel
}

func (n *Node) engineStatus() []api.EngineStatus {
	children := map[string]infer.ChildStatus{}
	for _, m := range n.table.all() {
		if m.pool == nil {
			continue
		}
		for _, c := range m.pool.Children() {
			children[c.Name()] = c.Status()
		}
	}
	var all []api.EngineStatus
	for _, e := range n.sys.Engines() {
		all = append(all, engineStatus(e, children[e.Name]))
	}
	return all
}

func (n *Node) newFetcher() (*source.Fetcher, error) {
	s := n.cfg.Source
	nets, err := prefixes("source.allowed_nets", s.AllowedNets)
	if err != nil {
		return nil, err
	}
	redirects := s.RedirectsMax
	if redirects == 0 {
		redirects = -1 // none; 0 is the package's default
	}
	return source.New(source.Options{AllowedDirs: s.AllowedDirs, SizeMax: int64(s.SizeMax), Timeout: s.Timeout, RedirectsMax: redirects,
		Egress: egress.Policy{AllowPrivate: s.AllowPrivate, Allow: nets}})
}
