package node

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"

	"github.com/open-autoglm/autoglm/actors/result"
	"github.com/open-autoglm/autoglm/actors/sink"
	"github.com/open-autoglm/autoglm/actors/sink/dest"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

func (c *Config) checkSink(w *wrong) {
	for i, d := range c.Sink.AllowedDirs {
		if !filepath.IsAbs(d) || filepath.Clean(d) == "/" {
			w.add(invalidConfig(fmt.Sprintf("sink.allowed_dirs[%d]", i), fmt.Sprintf("%q", d), "use an absolute path below /"))
		}
	}
	if d := c.Sink.SecretsDir; d != "" && (!filepath.IsAbs(d) || filepath.Clean(d) == "/") {
		w.add(invalidConfig("sink.secrets_dir", fmt.Sprintf("%q", d), "use an absolute path below /"))
	}
	for i, h := range c.Sink.Allow {
		if h == "" || strings.ContainsAny(h, "*@? ") || strings.Contains(h, "://") || strings.Contains(h, "/") && !filepath.IsAbs(h) {
			w.add(invalidConfig(fmt.Sprintf("sink.allow[%d]", i), fmt.Sprintf("%q", h), "name a host, host:port or the absolute path of a socket's folder; there are no patterns"))
		}
	}
}

// openSinks lets sinks be driven: the node has begun to own their shards.
func (n *Node) openSinks() {
	p := dest.Policy{Allow: n.cfg.Sink.Allow, SecretsDir: n.cfg.Sink.SecretsDir}
	for _, d := range n.cfg.Sink.AllowedDirs {
		p.AllowedDirs = append(p.AllowedDirs, filepath.Clean(d))
	}
	n.sinks.Attach(sink.Options{
		Router: n.sys.Router, Results: n.svc.sinkResults, Line: resultLine, Check: p.Check, Open: p.Open, Jitter: rand.Float64, Failed: n.meter.SinkFailed.Inc,
	})
}

// sinkResults is where sinks read results: those of their tenant, and all that they see, they see through it.
func (s *service) sinkResults(ctx context.Context, id, after, upTo string, f func(id string, r *task.Record) bool) (string, error) {
	return s.walk(tenant.With(ctx, tenant.Of(id)), resultsQuery{after: after, upTo: upTo}, func(it api.Item) bool { return f(it.ID, it.Record) })
}

// resultLine is a result as GET /v1/results has it.
func resultLine(id string, r *task.Record, prompt bool) ([]byte, error) {
	v := wire.ResultOf(id, r)
	if prompt && r.Spec != nil {
		v.Prompt = result.Asked(r.Spec)
	}
	return json.Marshal(v)
}
