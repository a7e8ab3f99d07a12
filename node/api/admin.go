package api

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/node/access"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

type statusOutput struct {
	Body wire.Status
}

func (s *Server) status(ctx context.Context, _ *struct{}) (*statusOutput, error) {
	return &statusOutput{Body: statusOf(s.svc.Status(ctx))}, nil
}

// statusOf copies field by field: empty lists are [] in JSON, not null.
func statusOf(st Status) wire.Status {
	out := wire.Status{
		Ready: st.Ready, Reason: st.Reason, Node: st.Node, Version: st.Version, StartedAt: st.StartedAt,
		Shards: st.Shards, ShardsOwned: st.Owned, Tasks: st.Tasks, Partial: st.Partial,
		Queues: []wire.Queue{}, Engines: []wire.Engine{},
		Disk: wire.Disk{FreeBytes: st.DiskFree, ReserveBytes: st.DiskNeeded, Full: st.DiskFull},
	}
	if out.Tasks == nil {
		out.Tasks = map[string]int64{}
	}
	for _, q := range st.Queues {
		out.Queues = append(out.Queues, wire.Queue(q))
	}
	out.Engines = append(out.Engines, enginesOf(st.Engines)...)
	return out
}

func enginesOf(es []EngineStatus) []wire.Engine {
	all := make([]wire.Engine, len(es))
	for i, e := range es {
		all[i] = EngineOf(e)
	}
	return all
}

// EngineOf is an engine's state on the wire: empty lists are [] in JSON, not null.
func EngineOf(e EngineStatus) wire.Engine {
	out := wire.Engine(e)
	if e.Models == nil {
		out.Models = []string{}
	}
	if e.Endpoints == nil { // a node of an older program
		out.Endpoints = []string{}
	}
	return out
}

type backupInput struct {
	Body wire.Backup
}

type backupOutput struct {
	Body wire.Backup
}

func (s *Server) backup(ctx context.Context, in *backupInput) (*backupOutput, error) {
	if !filepath.IsAbs(in.Body.Dir) {
		return nil, s.problem(ctx, invalid("dir", "is %q: give an absolute path on the node's machine", in.Body.Dir))
	}
	dir := filepath.Clean(in.Body.Dir)
	if err := s.audited(ctx, "backup", dir, tenant.Default, "", func() error { return s.svc.Backup(ctx, dir) }); err != nil {
		return nil, s.problem(ctx, err)
	}
	out := &backupOutput{Body: wire.Backup{Dir: in.Body.Dir}}
	if r := s.svc.Cluster(ctx).Redundancy; r.Unowned > 0 {
		out.Body.Warning = fmt.Sprintf("%d shards have no owner: what other nodes acknowledged last may be missing in this copy", r.Unowned)
	}
	return out, nil
}

// localOnly lets a route be used from this machine alone by who shows no key.
func (s *Server) localOnly(c huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(c)
	if access.From(r.Context()).Open && !fromLoopback(r) {
		err := fault.New(fault.Refused, "api.admin", "", "without a key, admin routes answer only on the node's own machine")
		s.refuse(w, r, err.WithRemedy("run the command there"))
		return
	}
	next(c)
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	writeJSON(w, wire.Health{Status: "ok"})
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	ok, reason := s.svc.Ready()
	select {
	case <-s.front.leaving:
		ok, reason = false, "stopping"
	default:
	}
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
		writeJSON(w, wire.Health{Status: "not ready", Reason: reason})
		return
	}
	writeJSON(w, wire.Health{Status: "ok"})
}
