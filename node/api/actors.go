package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/open-autoglm/autoglm/actors/gate"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/node/api/actorv1"
	"github.com/open-autoglm/autoglm/node/api/actorv1/actorv1connect"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	actorPath = "/" + actorv1connect.ActorServiceName + "/"

	// actorReadMax is a request's size at most: its body may be base64, beside the other fields.
	actorReadMax = 2 * cluster.CommandMax

	watchRead = 10 * time.Second // for the state at one change, as the router gives to a read without an end of its own
)

// actorRoutes mounts ActorService, a route for each procedure so that metrics tell them apart.
func (s *Server) actorRoutes(mux *http.ServeMux) {
	_, h := actorv1connect.NewActorServiceHandler(actorService{s}, connect.WithReadMaxBytes(int(min(s.lim.BodyMax, actorReadMax))))
	h = s.timed(h)
	for _, p := range []string{actorv1connect.ActorServiceAskProcedure, actorv1connect.ActorServiceTellProcedure,
		actorv1connect.ActorServiceStateProcedure, actorv1connect.ActorServiceWatchProcedure} {
		mux.Handle("POST "+p, h)
	}
}

// actorService turns what connect decoded into calls of the gate.
type actorService struct{ s *Server }

// keyOf is the key of what the caller's tenant calls id; an id that is missing stays so.
func keyOf(ctx context.Context, kind, id string) persistence.Key {
	if id != "" {
		id = tenant.Own(ctx, id)
	}
	return persistence.Key{Kind: kind, ID: id}
}

// bounded gives a call the time that its client asked for, WaitMax at most. Where the client asked for none the context has no end of
// its own, and the router gives up as soon as it does for any other request.
func (a actorService) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, asked := ctx.Deadline(); !asked {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, a.s.lim.WaitMax)
}

// Ask sends a message and returns the answer.
func (a actorService) Ask(ctx context.Context, req *connect.Request[actorv1.AskRequest]) (*connect.Response[actorv1.AskResponse], error) {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	m := req.Msg
	body, err := bodyOf(m.GetJson(), m.GetBody())
	if err != nil {
		return nil, a.s.actorError(ctx, err)
	}
	res, err := a.s.actors.Ask(ctx, keyOf(ctx, m.Kind, m.Id), cluster.Command{ID: m.RequestId, Type: m.Type, Body: body})
	if err != nil {
		return nil, a.s.actorError(ctx, err)
	}
	out := &actorv1.AskResponse{Type: res.Type, Version: res.Version}
	_, raw := m.Content.(*actorv1.AskRequest_Body)
	switch {
	case res.Type == "":
	case raw:
		out.Content = &actorv1.AskResponse_Body{Body: res.Body}
	default:
		v, err := valueOf(res.Body)
		if err != nil {
			return nil, a.s.actorError(ctx, err)
		}
		out.Content = &actorv1.AskResponse_Json{Json: v}
	}
	return connect.NewResponse(out), nil
}

// Tell posts a message.
func (a actorService) Tell(ctx context.Context, req *connect.Request[actorv1.TellRequest]) (*connect.Response[actorv1.TellResponse], error) {
	m := req.Msg
	body, err := bodyOf(m.GetJson(), m.GetBody())
	if err == nil {
		err = a.s.actors.Tell(keyOf(ctx, m.Kind, m.Id), cluster.Command{Type: m.Type, Body: body})
	}
	if err != nil {
		return nil, a.s.actorError(ctx, err)
	}
	return connect.NewResponse(&actorv1.TellResponse{}), nil
}

// State returns what is shown of an actor.
func (a actorService) State(ctx context.Context, req *connect.Request[actorv1.StateRequest]) (*connect.Response[actorv1.StateResponse], error) {
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	st, err := a.s.actors.State(ctx, keyOf(ctx, req.Msg.Kind, req.Msg.Id))
	if err != nil {
		return nil, a.s.actorError(ctx, err)
	}
	out := &actorv1.StateResponse{Version: st.Version}
	switch {
	case st.View == nil:
	case req.Msg.Raw:
		out.Content = &actorv1.StateResponse_Body{Body: st.View}
	default:
		v, err := valueOf(st.View)
		if err != nil {
			return nil, a.s.actorError(ctx, err)
		}
		out.Content = &actorv1.StateResponse_Json{Json: v}
	}
	return connect.NewResponse(out), nil
}

// Watch sends the state at each change, the newest when several came while the client was reading. Sending waits for the
// client, not longer than http.write_timeout; nothing is queued.
func (a actorService) Watch(ctx context.Context, req *connect.Request[actorv1.WatchRequest], out *connect.ServerStream[actorv1.WatchResponse]) error {
	release, p := a.s.takeStream(ctx)
	if p != nil {
		return a.s.actorError(ctx, p)
	}
	defer release()
	m := req.Msg
	f, err := a.s.actors.Follow(keyOf(ctx, m.Kind, m.Id))
	if err != nil {
		return a.s.actorError(ctx, err)
	}
	defer f.Stop()
	beat := time.NewTicker(a.s.lim.Heartbeat)
	defer beat.Stop()
	sent, began := m.AfterVersion, false
	for {
		st, err := a.next(ctx, f)
		if err != nil {
			return a.s.actorError(ctx, err)
		}
		res := &actorv1.WatchResponse{Version: sent, Unchanged: true}
		if st.Version > sent || sent == 0 {
			if res, err = watched(st, m.Raw); err != nil {
				return a.s.actorError(ctx, err)
			}
		}
		if !began || st.Version > sent { // the first word is said at once: the client sees that somebody is there
			if err := out.Send(res); err != nil {
				return err
			}
		}
		began, sent = true, max(sent, st.Version)
		for waiting := true; waiting; {
			select {
			case <-f.Changed():
				waiting = false
			case <-beat.C:
				if err := out.Send(&actorv1.WatchResponse{Version: sent, Unchanged: true}); err != nil {
					return err
				}
			case <-a.s.closing:
				return a.s.actorError(ctx, fault.New(fault.Unavailable, "api.watch", "", "the node is stopping").
					WithRemedy("go on at another node, with after_version"))
			case <-ctx.Done():
				return a.s.actorError(ctx, ctx.Err())
			}
		}
	}
}

// next reads for a Watch. The Watch may last, each of its reads may not: without an owner it ends like any other read.
func (a actorService) next(ctx context.Context, f *gate.Follower) (gate.State, error) {
	ctx, cancel := context.WithTimeout(ctx, watchRead)
	defer cancel()
	return f.Next(ctx)
}

func watched(st gate.State, raw bool) (*actorv1.WatchResponse, error) {
	res := &actorv1.WatchResponse{Version: st.Version}
	switch {
	case st.View == nil:
	case raw:
		res.Content = &actorv1.WatchResponse_Body{Body: st.View}
	default:
		v, err := valueOf(st.View)
		if err != nil {
			return nil, err
		}
		res.Content = &actorv1.WatchResponse_Json{Json: v}
	}
	return res, nil
}

// bodyOf returns a message's JSON in whichever form it came. The same value always gives the same bytes, in every
// version of the program: a repeat must look like its first.
func bodyOf(v *structpb.Value, body []byte) ([]byte, error) {
	if v == nil {
		return body, nil
	}
	b, err := json.Marshal(v.AsInterface())
	if err != nil {
		return nil, fault.New(fault.Invalid, "api.ask", "json", "has no form in JSON: %w", err)
	}
	return b, nil
}

func valueOf(b []byte) (*structpb.Value, error) {
	var x any
	err := json.Unmarshal(b, &x)
	if err == nil {
		var v *structpb.Value
		if v, err = structpb.NewValue(x); err == nil {
			return v, nil
		}
	}
	return nil, fault.New(fault.Corrupt, "api.ask", "", "the answer is not JSON: %w", err)
}
