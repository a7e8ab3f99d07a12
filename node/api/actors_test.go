package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/open-autoglm/autoglm/actors/bank"
	"github.com/open-autoglm/autoglm/actors/entity"
	"github.com/open-autoglm/autoglm/actors/gate"
	"github.com/open-autoglm/autoglm/cluster"
	"github.com/open-autoglm/autoglm/cluster/clustertest"
	"github.com/open-autoglm/autoglm/node/api"
	"github.com/open-autoglm/autoglm/node/api/actorv1"
	"github.com/open-autoglm/autoglm/node/api/actorv1/actorv1connect"
	"github.com/open-autoglm/autoglm/node/api/apitest"
	"github.com/open-autoglm/autoglm/persistence"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// closed is a kind that says nothing about the outside.
var closed = &entity.Kind[int, int]{Name: "closed",
	Apply: func(s, e int) (int, error) { return s + e, nil },
	Behave: func(int) entity.Behavior[int, int] {
		return func(*entity.Context[int, int]) { panic("a stranger is here") }
	},
	Types: cluster.NewTypes().Add("Open", bank.Open{}),
}

// wall is a kind that shows a megabyte.
var wall = &entity.Kind[int, int]{Name: "wall",
	Apply: func(s, e int) (int, error) { return s + e, nil },
	Behave: func(int) entity.Behavior[int, int] {
		return func(c *entity.Context[int, int]) { c.Commit(1) }
	},
	Types: cluster.NewTypes().Add("Paint", bank.Open{}), Open: []string{"Paint"},
	View: func(n int) any { return strings.Repeat(string(rune('a'+n%26)), 1<<20) },
}

func bankKinds() []cluster.Kind {
	return append(bank.Kinds(), closed.Register(), wall.Register())
}

// actorServer serves ActorService of one node of a cluster.
type actorServer struct {
	url string
	srv *api.Server
}

func serveActors(t *testing.T, router *cluster.Router, opts ...api.Option) actorServer {
	t.Helper()
	g, err := gate.New(router, bankKinds()...)
	require.NoError(t, err)
	s, err := api.New(apitest.New(), append([]api.Option{api.WithLogger(slog.New(slog.DiscardHandler)), api.WithActors(g)}, opts...)...)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
		require.NoError(t, <-ended)
	})
	return actorServer{"http://" + l.Addr().String(), s}
}

var protocols = map[string][]connect.ClientOption{
	"connect":      nil,
	"connect json": {connect.WithProtoJSON()},
	"grpc":         {connect.WithGRPC()},
	"grpc-web":     {connect.WithGRPCWeb()},
	"connect gzip": {connect.WithSendGzip()},
}

// clientOf speaks a protocol; gRPC over HTTP/2 without TLS.
func clientOf(t *testing.T, url, protocol string) actorv1connect.ActorServiceClient {
	tr := http.DefaultTransport.(*http.Transport).Clone()
	if protocol == "grpc" {
		tr.Protocols = new(http.Protocols)
		tr.Protocols.SetUnencryptedHTTP2(true)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return actorv1connect.NewActorServiceClient(&http.Client{Transport: tr}, url, protocols[protocol]...)
}

func valueIn(t *testing.T, v any) *structpb.Value {
	b, err := json.Marshal(v)
	require.NoError(t, err)
	out := &structpb.Value{}
	require.NoError(t, out.UnmarshalJSON(b))
	return out
}

func ask(t *testing.T, c actorv1connect.ActorServiceClient, kind, id, request, typ string, msg any) (*actorv1.AskResponse, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	res, err := c.Ask(ctx, connect.NewRequest(&actorv1.AskRequest{Kind: kind, Id: id, Type: typ, RequestId: request,
		Content: &actorv1.AskRequest_Json{Json: valueIn(t, msg)}}))
	if err != nil {
		return nil, err
	}
	return res.Msg, nil
}

func faultIn(t *testing.T, err error) (connect.Code, *actorv1.Fault) {
	t.Helper()
	var ce *connect.Error
	require.ErrorAs(t, err, &ce)
	for _, d := range ce.Details() {
		v, err := d.Value()
		require.NoError(t, err)
		if f, ok := v.(*actorv1.Fault); ok {
			return ce.Code(), f
		}
	}
	require.Fail(t, "no Fault in the details", "%v", err)
	return 0, nil
}

// TestProtocols: every protocol says the same, through the node that has the actor and through the one that has not.
func TestProtocols(t *testing.T) {
	nodes := clustertest.New(t, 2, 2, bankKinds)
	urls := []string{serveActors(t, nodes.Router(0)).url, serveActors(t, nodes.Router(1)).url}
	for name := range protocols {
		for i, url := range urls {
			t.Run(fmt.Sprint(name, " node ", i), func(t *testing.T) {
				c := clientOf(t, url, name)
				id := fmt.Sprint(name, i)
				res, err := ask(t, c, "account", id, "", "Open", bank.Open{})
				require.NoError(t, err)
				require.EqualValues(t, 1, res.Version)
				for range 2 {
					res, err = ask(t, c, "account", id, "once", "Deposit", bank.Deposit{Cents: 70})
					require.NoError(t, err)
					require.Equal(t, "Balance", res.Type)
					require.EqualValues(t, 2, res.Version)
					require.EqualValues(t, 70, res.GetJson().GetStructValue().Fields["cents"].GetNumberValue())
				}
				raw, err := c.Ask(t.Context(), connect.NewRequest(&actorv1.AskRequest{Kind: "account", Id: id, Type: "Withdraw", Content: &actorv1.AskRequest_Body{Body: []byte(`{"cents":20}`)}}))
				require.NoError(t, err)
				require.JSONEq(t, `{"open":true,"cents":50,"free":50}`, string(raw.Msg.GetBody()))

				st, err := c.State(t.Context(), connect.NewRequest(&actorv1.StateRequest{Kind: "account", Id: id, Raw: true}))
				require.NoError(t, err)
				require.EqualValues(t, 3, st.Msg.Version)
				require.JSONEq(t, `{"open":true,"cents":50,"free":50}`, string(st.Msg.GetBody()))

				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				w, err := c.Watch(ctx, connect.NewRequest(&actorv1.WatchRequest{Kind: "account", Id: id}))
				require.NoError(t, err)
				require.True(t, w.Receive(), "%v", w.Err())
				require.EqualValues(t, 3, w.Msg().Version)
				_, err = c.Tell(t.Context(), connect.NewRequest(&actorv1.TellRequest{Kind: "account", Id: id, Type: "Deposit", Content: &actorv1.TellRequest_Json{Json: valueIn(t, bank.Deposit{Cents: 1})}}))
				require.NoError(t, err)
				require.True(t, w.Receive(), "%v", w.Err())
				require.EqualValues(t, 4, w.Msg().Version)
				require.EqualValues(t, 51, w.Msg().GetJson().GetStructValue().Fields["cents"].GetNumberValue())
				cancel()
				require.False(t, w.Receive())
				_ = w.Close()

				_, err = ask(t, c, "account", id, "", "Withdraw", bank.Withdraw{Cents: 1000})
				code, f := faultIn(t, err)
				require.Equal(t, connect.CodeFailedPrecondition, code)
				require.Equal(t, "conflict", f.Kind)
			})
		}
	}
}

// TestPlainHTTP is what a person with curl sees.
func TestPlainHTTP(t *testing.T) {
	nodes := clustertest.New(t, 1, 1, bankKinds)
	s := serveActors(t, nodes.Router(0))
	post := func(method, body string) (int, string) {
		res, err := http.Post(s.url+"/autoglm.actor.v1.ActorService/"+method, "application/json", strings.NewReader(body))
		require.NoError(t, err)
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(b)
	}
	for _, c := range []struct {
		method, body string
		status       int
		want         string
	}{
		{"Ask", `{"kind":"account","id":"a","type":"Open"}`, 200, `{"type":"Balance","json":{"open":true,"cents":0,"free":0},"version":"1"}`},
		{"Ask", `{"kind":"account","id":"a","type":"Deposit","json":{"cents":5},"requestId":"x"}`, 200, `{"type":"Balance","json":{"open":true,"cents":5,"free":5},"version":"2"}`},
		{"State", `{"kind":"account","id":"a"}`, 200, `{"version":"2","json":{"open":true,"cents":5,"free":5}}`},
		{"State", `{"kind":"account","id":"nobody"}`, 200, `{}`},
		{"Tell", `{"kind":"account","id":"a","type":"Open"}`, 200, `{}`},
		{"Ask", `{"kind":"account","id":"b","type":"Get"}`, 404, ""},
		{"Nothing", `{}`, 404, ""},
	} {
		status, body := post(c.method, c.body)
		require.Equal(t, c.status, status, "%s: %s", c.body, body)
		if c.want != "" {
			require.JSONEq(t, c.want, body)
		}
	}
}

func TestActorRefusals(t *testing.T) {
	nodes := clustertest.New(t, 1, 1, bankKinds)
	s := serveActors(t, nodes.Router(0), api.WithLimits(func() api.Limits { l := api.DefaultLimits(); l.BodyMax = 1 << 20; return l }()))
	for name := range protocols {
		c := clientOf(t, s.url, name)
		for _, q := range []struct {
			what          string
			kind, id, typ string
			msg           any
			code          connect.Code
			fault         fault.Kind
		}{
			{"an unknown kind", "nothing", "a", "Open", nil, connect.CodeNotFound, fault.NotFound},
			{"a closed kind", "closed", "a", "Open", nil, connect.CodePermissionDenied, fault.Refused},
			{"a message between actors", "account", "a", "Reserve", bank.Reserve{}, connect.CodePermissionDenied, fault.Refused},
			{"an unknown message", "account", "a", "Nonsense", nil, connect.CodePermissionDenied, fault.Refused},
			{"no message", "account", "a", "", nil, connect.CodeInvalidArgument, fault.Invalid},
			{"no id", "account", "", "Open", nil, connect.CodeInvalidArgument, fault.Invalid},
			{"a long id", "account", strings.Repeat("x", 600), "Open", nil, connect.CodeInvalidArgument, fault.Invalid},
			{"a misspelt field", "account", "a", "Deposit", map[string]any{"cent": 1}, connect.CodeInvalidArgument, fault.Invalid},
			{"a wrong type", "account", "a", "Deposit", map[string]any{"cents": "1"}, connect.CodeInvalidArgument, fault.Invalid},
			{"no such account", "account", "a", "Get", nil, connect.CodeNotFound, fault.NotFound},
		} {
			_, err := ask(t, c, q.kind, q.id, "", q.typ, q.msg)
			if q.msg == nil {
				_, err = c.Ask(t.Context(), connect.NewRequest(&actorv1.AskRequest{Kind: q.kind, Id: q.id, Type: q.typ}))
			}
			require.Error(t, err, q.what)
			code, f := faultIn(t, err)
			require.Equal(t, q.code, code, "%s: %s: %v", name, q.what, err)
			require.Equal(t, q.fault.String(), f.Kind, q.what)
			require.Nil(t, f.RetryAfter)
			_, err = c.Tell(t.Context(), connect.NewRequest(&actorv1.TellRequest{Kind: q.kind, Id: q.id, Type: q.typ, Content: &actorv1.TellRequest_Json{Json: valueIn(t, q.msg)}}))
			require.Equal(t, q.typ == "Get", err == nil, "%s: Tell: %v", q.what, err)
		}
		for _, kind := range []string{"nothing", "closed"} {
			_, err := c.State(t.Context(), connect.NewRequest(&actorv1.StateRequest{Kind: kind, Id: "a"}))
			require.Error(t, err)
			w, err := c.Watch(t.Context(), connect.NewRequest(&actorv1.WatchRequest{Kind: kind, Id: "a"}))
			require.NoError(t, err)
			require.False(t, w.Receive())
			faultIn(t, w.Err())
			_ = w.Close()
		}
		big := make([]byte, 2<<20)
		for i := range big {
			big[i] = byte(i * i >> 3) // so that it does not compress to nothing
		}
		_, err := c.Ask(t.Context(), connect.NewRequest(&actorv1.AskRequest{Kind: "account", Id: "a", Type: "Open", Content: &actorv1.AskRequest_Body{Body: big}}))
		require.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(err), "over http.body_max")
	}
	l, err := nodes.Router(0).Read(t.Context(), persistence.Key{Kind: "account", ID: "a"}, 0)
	require.NoError(t, err)
	require.Zero(t, l.Last, "nothing of all this was done")
}

// TestTheGuardSpeaksTheProtocol: what stands before ActorService refuses in a form that its clients read.
func TestTheGuardSpeaksTheProtocol(t *testing.T) {
	nodes := clustertest.New(t, 1, 1, bankKinds)
	lim := api.DefaultLimits()
	lim.RequestsMax, lim.StreamsMax = 2, 1
	s := serveActors(t, nodes.Router(0), api.WithLimits(lim))
	for name := range protocols {
		t.Run(name, func(t *testing.T) {
			c := clientOf(t, s.url, name)
			req := connect.NewRequest(&actorv1.StateRequest{Kind: "account", Id: "a"})
			req.Header().Set("Origin", "http://elsewhere.example")
			req.Header().Set("Sec-Fetch-Site", "cross-site")
			_, err := c.State(t.Context(), req)
			code, f := faultIn(t, err)
			require.Equal(t, connect.CodePermissionDenied, code)
			require.Equal(t, "refused", f.Kind)

			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			first := watch(t, ctx, c, 0)
			for !first.Receive() { // the server hears a moment later that the stream of the protocol before has ended
				code, _ := faultIn(t, first.Err())
				require.Equal(t, connect.CodeResourceExhausted, code)
				_ = first.Close()
				first = watch(t, ctx, c, 0)
			}
			second := watch(t, ctx, c, 0)
			require.False(t, second.Receive())
			code, f = faultIn(t, second.Err())
			require.Equal(t, connect.CodeResourceExhausted, code, "http.streams_max")
			require.NotNil(t, f.RetryAfter)
			_ = second.Close()
			cancel()
			require.False(t, first.Receive())
			_ = first.Close()
			require.Eventually(t, func() bool { // the server hears of it a moment later
				w := watch(t, t.Context(), c, 0)
				defer w.Close()
				return w.Receive()
			}, 10*time.Second, 10*time.Millisecond)
		})
	}
	res, err := http.Post(s.url+"/autoglm.actor.v1.ActorService/State", "application/json", strings.NewReader(`{"kind":"nothing","id":"a"}`))
	require.NoError(t, err)
	require.Equal(t, http.StatusNotFound, res.StatusCode)
	require.NoError(t, res.Body.Close())
	req, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/autoglm.actor.v1.ActorService/State", strings.NewReader(`{}`))
	require.NoError(t, err)
	req.Host = "elsewhere.example"
	req.Header.Set("Content-Type", "application/json")
	res, err = http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Contains(t, string(b), "permission_denied", "%d", res.StatusCode)
}

func watch(t *testing.T, ctx context.Context, c actorv1connect.ActorServiceClient, after uint64) *connect.ServerStreamForClient[actorv1.WatchResponse] {
	t.Helper()
	w, err := c.Watch(ctx, connect.NewRequest(&actorv1.WatchRequest{Kind: "account", Id: "a", Raw: true, AfterVersion: after}))
	require.NoError(t, err)
	return w
}

// TestWatchFollowsTheActor: while its owner moves to and fro, a watcher at either node sees every state that stays, in order.
func TestWatchFollowsTheActor(t *testing.T) {
	nodes := clustertest.New(t, 2, 1, bankKinds)
	for i := range 2 {
		c := clientOf(t, serveActors(t, nodes.Router(i)).url, "grpc")
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_, err := ask(t, c, "account", "a", "", "Open", bank.Open{})
		require.NoError(t, err)
		w := watch(t, ctx, c, 0)
		require.True(t, w.Receive())
		last := w.Msg().Version
		for n := range 6 {
			nodes.Move(n % 2)
			res, err := ask(t, c, "account", "a", fmt.Sprint(i, n), "Deposit", bank.Deposit{Cents: 1})
			require.NoError(t, err)
			for last < res.Version {
				require.True(t, w.Receive(), "%v", w.Err())
				require.Greater(t, w.Msg().Version, last)
				last = w.Msg().Version
			}
			require.Equal(t, res.Version, last)
		}
		require.NoError(t, w.Close())

		again := watch(t, ctx, c, last) // goes on: nothing is said twice
		require.True(t, again.Receive())
		require.True(t, again.Msg().Unchanged)
		res, err := ask(t, c, "account", "a", "", "Deposit", bank.Deposit{Cents: 1})
		require.NoError(t, err)
		require.True(t, again.Receive())
		require.Equal(t, res.Version, again.Msg().Version)
		require.NoError(t, again.Close())
	}
}

// TestASlowWatcher: what it does not read is one; the actor and the server do not wait for it.
func TestASlowWatcher(t *testing.T) {
	nodes := clustertest.New(t, 1, 1, bankKinds)
	lim := api.DefaultLimits()
	lim.Heartbeat = 20 * time.Millisecond
	s := serveActors(t, nodes.Router(0), api.WithLimits(lim))
	c := clientOf(t, s.url, "connect")
	_, err := ask(t, c, "account", "a", "", "Open", bank.Open{})
	require.NoError(t, err)
	w := watch(t, t.Context(), c, 0)
	require.True(t, w.Receive())
	const n = 300
	for range n {
		_, err = ask(t, c, "account", "a", "", "Deposit", bank.Deposit{Cents: 1})
		require.NoError(t, err)
	}
	seen, beats := 0, 0
	for last := uint64(1); last < n+1 || beats == 0; {
		require.True(t, w.Receive(), "%v", w.Err())
		if w.Msg().Unchanged {
			beats++
			continue
		}
		require.Greater(t, w.Msg().Version, last)
		last = w.Msg().Version
		seen++
	}
	require.LessOrEqual(t, seen, n)
	require.NoError(t, w.Close())
}

// TestAStuckWatcherIsCutOff: one that takes nothing is not waited for longer than http.write_timeout, and gives its place back.
func TestAStuckWatcherIsCutOff(t *testing.T) {
	nodes := clustertest.New(t, 1, 1, bankKinds)
	lim := api.DefaultLimits()
	lim.WriteTimeout, lim.StreamsMax = time.Second, 1
	s := serveActors(t, nodes.Router(0), api.WithLimits(lim))
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4<<10))
	c := clientOf(t, s.url, "connect")
	paint := func() {
		_, err := c.Ask(t.Context(), connect.NewRequest(&actorv1.AskRequest{Kind: "wall", Id: "a", Type: "Paint"}))
		require.NoError(t, err)
	}
	paint()
	msg := `{"kind":"wall","id":"a"}`
	_, err = fmt.Fprintf(conn, "POST /autoglm.actor.v1.ActorService/Watch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/connect+json\r\nContent-Length: %d\r\n\r\n%s%s",
		5+len(msg), []byte{0, 0, 0, 0, byte(len(msg))}, msg)
	require.NoError(t, err)
	_, err = io.ReadFull(conn, make([]byte, 1))
	require.NoError(t, err)
	w := watch(t, t.Context(), c, 0)
	require.False(t, w.Receive(), "the place is taken")
	_ = w.Close()
	require.Eventually(t, func() bool {
		paint() // a megabyte more to send, until no buffer takes it
		w := watch(t, t.Context(), c, 0)
		defer w.Close()
		return w.Receive()
	}, 30*time.Second, 20*time.Millisecond)
}

// TestShutdownEndsAWatch: it says Unavailable, so that its client goes elsewhere.
func TestShutdownEndsAWatch(t *testing.T) {
	nodes := clustertest.New(t, 1, 1, bankKinds)
	for _, name := range []string{"connect", "grpc"} {
		s := serveActors(t, nodes.Router(0))
		w := watch(t, t.Context(), clientOf(t, s.url, name), 0)
		require.True(t, w.Receive())
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		require.NoError(t, s.srv.Shutdown(ctx))
		cancel()
		require.False(t, w.Receive())
		code, f := faultIn(t, w.Err())
		require.Equal(t, connect.CodeUnavailable, code)
		require.Equal(t, "unavailable", f.Kind)
		require.NotNil(t, f.RetryAfter)
		_ = w.Close()
	}
}

// TestWithoutAnOwner: Unavailable within the deadline, with the time to try again, and no false answer.
func TestWithoutAnOwner(t *testing.T) {
	nodes := clustertest.New(t, 2, 1, bankKinds)
	s := serveActors(t, nodes.Router(1))
	c := clientOf(t, s.url, "connect")
	_, err := ask(t, c, "account", "a", "", "Open", bank.Open{})
	require.NoError(t, err)
	nodes.Cut(0, true)
	req, err := http.NewRequestWithContext(t.Context(), "POST", s.url+"/autoglm.actor.v1.ActorService/Ask", strings.NewReader(`{"kind":"account","id":"a","type":"Get"}`))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Connect-Timeout-Ms", "300")
	began := time.Now()
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Less(t, time.Since(began), 5*time.Second)
	require.Equal(t, http.StatusGatewayTimeout, res.StatusCode)
	require.Equal(t, "1", res.Header.Get("Retry-After"))
	nodes.Cut(0, false)
	_, err = ask(t, c, "account", "a", "", "Get", bank.Get{})
	require.NoError(t, err)
}

// TestTheRemedyOfWhatNobodyAnswered: only what may have changed something is of unknown outcome.
func TestTheRemedyOfWhatNobodyAnswered(t *testing.T) {
	nodes := clustertest.New(t, 2, 1, bankKinds)
	r, key := nodes.Router(1), persistence.Key{Kind: "account", ID: "a"}
	_, err := r.Read(t.Context(), key, 0) // so that node 1 knows the owner
	require.NoError(t, err)
	nodes.Cut(0, true)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = r.Read(ctx, key, 0)
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.NotContains(t, fault.RemedyOf(err), "it may have happened")
	require.Contains(t, fault.RemedyOf(err), "autoglm cluster status")
	_, err = r.Command(ctx, key, cluster.Command{Type: "Get", Body: []byte("{}")})
	require.Contains(t, fault.RemedyOf(err), "it may have happened")
}
