package api

import (
	"context"

	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

type clusterOutput struct {
	Body wire.Cluster
}

func (s *Server) cluster(ctx context.Context, _ *struct{}) (*clusterOutput, error) {
	c := s.svc.Cluster(ctx)
	out := wire.Cluster{Cluster: c.Cluster, Node: c.Node, Copies: c.Copies, Coordinator: leadOf(c.Coordinator), Members: []wire.Node{}, Shards: []wire.Shard{},
		Redundancy: wire.Redundancy(c.Redundancy)}
	for _, m := range c.Members {
		n := wire.Node{Name: m.Name, Node: m.Node, State: stateOf(&m), HTTP: m.HTTP, Zone: m.Zone, Version: m.Version, StartedAt: m.Started,
			Owned: m.Owned, Replicas: m.Replicas, Engines: enginesOf(m.Engines),
			Disk: wire.Disk{FreeBytes: m.Space.Free, ReserveBytes: m.Space.Reserve, Full: m.Space.Refusing}}
		if m.Err != nil {
			n.Error = fault.Shown(m.Err)
		}
		out.Members = append(out.Members, n)
	}
	for _, x := range c.Shards {
		v := wire.Shard{Shard: x.Shard, Lead: leadOf(x.Lead), Version: x.Version, Replicas: []wire.Replica{}}
		for _, r := range x.Replicas {
			v.Replicas = append(v.Replicas, wire.Replica(r))
		}
		out.Shards = append(out.Shards, v)
	}
	return &clusterOutput{Body: out}, nil
}

func leadOf(l *Lead) *wire.Lead {
	if l == nil {
		return nil
	}
	v := wire.Lead(*l)
	return &v
}

func stateOf(m *Member) string {
	switch {
	case !m.Alive:
		return "gone"
	case m.Leaving:
		return "leaving"
	case m.Stopping:
		return "stopping"
	}
	return "alive"
}

type eventsInput struct {
	Limit int `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"The newest so many."`
}

type eventsOutput struct {
	Body wire.ClusterEvents
}

func (s *Server) clusterEvents(ctx context.Context, in *eventsInput) (*eventsOutput, error) {
	es, err := s.svc.ClusterEvents(ctx)
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	if len(es) > in.Limit {
		es = es[len(es)-in.Limit:]
	}
	out := wire.ClusterEvents{Events: []wire.ClusterEvent{}}
	for _, e := range es {
		v := wire.ClusterEvent{At: e.At, Epoch: e.Epoch, What: e.What, Node: e.Node, Text: e.Text, Outcome: e.Outcome}
		if e.Shard >= 0 {
			v.Shard = &e.Shard
		}
		out.Events = append(out.Events, v)
	}
	return &eventsOutput{Body: out}, nil
}

type drainInput struct {
	Body wire.Drain
}

type drainOutput struct {
	Body wire.Drain
}

func (s *Server) drain(ctx context.Context, in *drainInput) (*drainOutput, error) {
	act := "cluster.drain"
	if in.Body.Undo {
		act = "cluster.undrain"
	}
	err := s.audited(ctx, act, in.Body.Node, tenant.Default, "", func() error { return s.svc.Drain(ctx, in.Body.Node, !in.Body.Undo, in.Body.Force) })
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return &drainOutput{Body: in.Body}, nil
}
