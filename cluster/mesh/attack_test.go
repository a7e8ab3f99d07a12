package mesh

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/remote"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/open-autoglm/autoglm/cluster/mesh/internal/wire"
	"github.com/open-autoglm/autoglm/cluster/pki/pkitest"
)

// letters makes a batch that node "a" takes from node "evil", for tests to harm.
func letters(n int) *remote.MessageBatch {
	data, _ := proto.Marshal(&wire.Letter{Kind: wire.Kind_REQUEST, From: "evil", Call: 1, Op: "echo", LeftMs: 1000})
	b := &remote.MessageBatch{TypeNames: []string{letterType}, Targets: []*actor.PID{{Address: "a", Id: gateID}}}
	for range n {
		b.Envelopes = append(b.Envelopes, &remote.MessageEnvelope{MessageData: data})
	}
	return b
}

func message(b *remote.MessageBatch) *remote.RemoteMessage {
	return &remote.RemoteMessage{MessageType: &remote.RemoteMessage_MessageBatch{MessageBatch: b}}
}

func greeting(addr string) *remote.RemoteMessage {
	return &remote.RemoteMessage{MessageType: &remote.RemoteMessage_ConnectRequest{ConnectRequest: &remote.ConnectRequest{
		ConnectionType: &remote.ConnectRequest_ServerConnection{ServerConnection: &remote.ServerConnection{SystemId: "x", Address: addr}}}}}
}

// system is what protoactor's remote does with a message of another type, all of which a peer may otherwise send.
func system(typ string, m proto.Message, target string) func() *remote.RemoteMessage {
	return harm(func(b *remote.MessageBatch) {
		data, _ := proto.Marshal(m)
		b.TypeNames, b.Targets[0].Id, b.Envelopes[0].MessageData = []string{typ}, target, data
	})
}

func harm(f func(b *remote.MessageBatch)) func() *remote.RemoteMessage {
	return func() *remote.RemoteMessage {
		b := letters(1)
		f(b)
		return message(b)
	}
}

func encoded(l *wire.Letter) []byte {
	b, _ := proto.Marshal(l)
	return b
}

// attacks are messages of a node with a good certificate, "evil". Each must be refused.
var attacks = map[string]func() *remote.RemoteMessage{
	"stop an actor":           system("actor.Stop", &actor.Stop{}, gateID),
	"stop remote's own actor": system("actor.Stop", &actor.Stop{}, "EndpointSupervisor"),
	"poison an actor":         system("actor.PoisonPill", &actor.PoisonPill{}, gateID),
	"watch an actor":          system("actor.Watch", &actor.Watch{Watcher: &actor.PID{Address: "127.9.9.9:1", Id: "x"}}, gateID),
	"unwatch an actor":        system("actor.Unwatch", &actor.Unwatch{}, gateID),
	"terminated without who":  system("actor.Terminated", &actor.Terminated{}, gateID),
	"terminated with who":     system("actor.Terminated", &actor.Terminated{Who: &actor.PID{Address: "127.9.9.9:1", Id: "x"}}, gateID),
	"spawn":                   system("remote.ActorPidRequest", &remote.ActorPidRequest{Kind: "k", Name: "n"}, "activator"),
	"unknown type":            system("no.such.Type", &wire.Letter{From: "evil"}, gateID),
	"letter to another actor": harm(func(b *remote.MessageBatch) { b.Targets[0].Id = "activator" }),
	"letter to a future":      harm(func(b *remote.MessageBatch) { b.Targets[0].RequestId = 1 }),
	"letter to another node":  harm(func(b *remote.MessageBatch) { b.Targets[0].Address = "127.9.9.9:1" }), // it would dial that
	"two targets":             harm(func(b *remote.MessageBatch) { b.Targets = append(b.Targets, &actor.PID{Address: "127.9.9.9:1"}) }),
	"no target":               harm(func(b *remote.MessageBatch) { b.Targets = nil }),
	"forged sender": harm(func(b *remote.MessageBatch) {
		b.Senders = []*actor.PID{{Address: "a", Id: gateID}}
		b.Envelopes[0].Sender = 1
	}),
	"unused sender":            harm(func(b *remote.MessageBatch) { b.Senders = []*actor.PID{{Address: "a", Id: gateID}} }),
	"sender index":             harm(func(b *remote.MessageBatch) { b.Envelopes[0].Sender = 7 }),
	"negative sender index":    harm(func(b *remote.MessageBatch) { b.Envelopes[0].Sender = -7 }),
	"target index":             harm(func(b *remote.MessageBatch) { b.Envelopes[0].Target = 7 }),
	"negative target index":    harm(func(b *remote.MessageBatch) { b.Envelopes[0].Target = -1 }),
	"type index":               harm(func(b *remote.MessageBatch) { b.Envelopes[0].TypeId = 9 }),
	"negative type index":      harm(func(b *remote.MessageBatch) { b.Envelopes[0].TypeId = -9 }),
	"JSON serializer":          harm(func(b *remote.MessageBatch) { b.Envelopes[0].SerializerId = 1 }),
	"serializer index":         harm(func(b *remote.MessageBatch) { b.Envelopes[0].SerializerId = 99 }),
	"request id":               harm(func(b *remote.MessageBatch) { b.Envelopes[0].TargetRequestId = 3 }),
	"sender's request id":      harm(func(b *remote.MessageBatch) { b.Envelopes[0].SenderRequestId = 3 }),
	"header":                   harm(func(b *remote.MessageBatch) { b.Envelopes[0].MessageHeader = &remote.MessageHeader{} }),
	"too many letters":         func() *remote.RemoteMessage { return message(letters(batchMax + 1)) },
	"no letters":               func() *remote.RemoteMessage { return message(letters(0)) },
	"empty message":            func() *remote.RemoteMessage { return &remote.RemoteMessage{} },
	"greeting as another node": func() *remote.RemoteMessage { return greeting("b") },
	"greeting as a client": func() *remote.RemoteMessage {
		return &remote.RemoteMessage{MessageType: &remote.RemoteMessage_ConnectRequest{ConnectRequest: &remote.ConnectRequest{ConnectionType: &remote.ConnectRequest_ClientConnection{}}}}
	},
	"greeting of nobody": func() *remote.RemoteMessage {
		return &remote.RemoteMessage{MessageType: &remote.RemoteMessage_ConnectRequest{}}
	},
	"long system id": func() *remote.RemoteMessage {
		m := greeting("evil")
		m.GetConnectRequest().GetServerConnection().SystemId = strings.Repeat("x", 999)
		return m
	},
	"disconnect": func() *remote.RemoteMessage {
		return &remote.RemoteMessage{MessageType: &remote.RemoteMessage_DisconnectRequest{}}
	},
	"letter of another node": harm(func(b *remote.MessageBatch) { b.Envelopes[0].MessageData = encoded(&wire.Letter{From: "b"}) }),
	"letter of nobody":       harm(func(b *remote.MessageBatch) { b.Envelopes[0].MessageData = encoded(&wire.Letter{Op: "echo"}) }),
	"letter of two nodes": harm(func(b *remote.MessageBatch) {
		b.Envelopes[0].MessageData = append(encoded(&wire.Letter{From: "evil"}), encoded(&wire.Letter{From: "b"})...)
	}),
	"sender's name as a number": harm(func(b *remote.MessageBatch) {
		b.Envelopes[0].MessageData = append(encoded(&wire.Letter{From: "evil"}), 2<<3, 1)
	}),
	"bytes that are no letter": harm(func(b *remote.MessageBatch) { b.Envelopes[0].MessageData = []byte{0xff} }),
	"a letter that is too large": harm(func(b *remote.MessageBatch) {
		b.Envelopes[0].MessageData = encoded(&wire.Letter{From: "evil", Body: make([]byte, letterMax)})
	}),
}

func TestGuardDecides(t *testing.T) {
	g := newGuard("a", nil)
	require.NoError(t, g.check(message(letters(1)), "evil"))
	require.NoError(t, g.check(message(letters(batchMax)), "evil"))
	require.NoError(t, g.check(greeting("evil"), "evil"))
	for what, m := range attacks {
		require.Error(t, g.check(m(), "evil"), what)
	}
	require.Error(t, g.check(nil, "evil"))
	require.Error(t, g.check(message(nil), "evil"))
	require.Error(t, g.check(message(&remote.MessageBatch{TypeNames: []string{letterType}, Targets: []*actor.PID{nil}, Envelopes: []*remote.MessageEnvelope{nil}}), "evil"))
}

// FuzzGuard: what the guard lets through, protoactor's reader can take, and it is a letter of the peer to the gate.
func FuzzGuard(f *testing.F) {
	for _, m := range attacks {
		b, err := proto.Marshal(m())
		if err == nil && len(b) < 64<<10 {
			f.Add(b)
		}
	}
	for _, m := range []*remote.RemoteMessage{message(letters(2)), greeting("evil")} {
		b, _ := proto.Marshal(m)
		f.Add(b)
	}
	g := newGuard("a", nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		var m remote.RemoteMessage
		if proto.Unmarshal(data, &m) != nil || g.check(&m, "evil") != nil {
			return
		}
		if c := m.GetConnectRequest(); c != nil {
			require.Equal(t, "evil", c.GetServerConnection().Address)
			return
		}
		b := m.GetMessageBatch()
		for _, e := range b.Envelopes { // as in protoactor's endpointReader.onMessageBatch
			require.Equal(t, gateID, b.Targets[e.Target].Id)
			require.Equal(t, "a", b.Targets[e.Target].Address)
			require.Zero(t, e.Sender)
			v, err := remote.Deserialize(e.MessageData, b.TypeNames[e.TypeId], e.SerializerId)
			if err == nil { // an error ends the stream
				require.Equal(t, "evil", v.(*wire.Letter).From)
			}
		}
	})
}

// TestAttacksAreRefusedAndTheNodeLives makes every attack on a node's port and asks it afterwards.
func TestAttacksAreRefusedAndTheNodeLives(t *testing.T) {
	dir, other := pkitest.New(t, "a", "b", "evil"), pkitest.New(t, "a", "b", "evil")
	bk := newBook()
	a, b := startNode(t, dir, "a", bk, nodeOptions{}), startNode(t, dir, "b", bk, nodeOptions{})
	for _, n := range [][2]*node{{a, b}, {b, a}} {
		n[0].do("peer %s %s", n[1].name, n[1].addr)
		require.Equal(t, "ok", n[0].line())
	}
	lives := func(t *testing.T) {
		t.Helper()
		b.do("ask a echo k")
		require.Equal(t, "answer 0 <nil>", b.line())
	}
	lives(t)
	evil := pkitest.Load(t, dir, "evil")

	t.Run("strangers", func(t *testing.T) {
		trust := pkitest.Trust(t, dir)
		load := func(folder string) tls.Certificate {
			c, err := tls.LoadX509KeyPair(filepath.Join(folder, "node.crt"), filepath.Join(folder, "node.key"))
			require.NoError(t, err)
			return c
		}
		conf := func(certs ...tls.Certificate) *tls.Config {
			return &tls.Config{RootCAs: trust, ServerName: "a", Certificates: certs}
		}
		for what, c := range map[string]credentials.TransportCredentials{
			"plaintext":                 insecure.NewCredentials(),
			"no certificate":            credentials.NewTLS(conf()),
			"another authority":         credentials.NewTLS(conf(load(filepath.Join(other, "nodes", "b")))),
			"another cluster":           credentials.NewTLS(conf(pkitest.Forge(t, dir, []string{"autoglm://elsewhere/b"}, []string{"b"}))),
			"no node's name":            credentials.NewTLS(conf(pkitest.Forge(t, dir, nil, []string{"b"}))),
			"two names":                 credentials.NewTLS(conf(pkitest.Forge(t, dir, []string{"autoglm://test/b", "autoglm://test/a"}, []string{"b"}))),
			"a host that is not itself": credentials.NewTLS(conf(pkitest.Forge(t, dir, []string{"autoglm://test/b"}, []string{"a"}))),
		} {
			t.Run(what, func(t *testing.T) {
				require.Error(t, attack(t, a.addr, c, greeting("b")))
				lives(t)
			})
		}
		t.Run("noise", func(t *testing.T) {
			c, err := net.Dial("tcp", a.addr)
			require.NoError(t, err)
			defer c.Close()
			_, err = c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			require.NoError(t, err)
			require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
			_, err = io.ReadAll(c) // an alert, then the end
			require.NotErrorIs(t, err, context.DeadlineExceeded)
			lives(t)
		})
		t.Run("silence", func(t *testing.T) { // more connections than may be half way in, and none says a word
			for range handshakesMax + 8 {
				c, err := net.Dial("tcp", a.addr)
				require.NoError(t, err)
				defer c.Close()
			}
			lives(t) // over the connection that stands
		})
	})

	for what, m := range attacks {
		t.Run(what, func(t *testing.T) {
			err := attack(t, a.addr, credentials.NewTLS(evil.Client("a")), m())
			require.Equal(t, codes.InvalidArgument, status.Code(err), "%v", err)
			lives(t)
		})
	}
	t.Run("an oversized message", func(t *testing.T) {
		big := letters(1)
		big.Envelopes[0].MessageData = make([]byte, batchBytesMax)
		err := attack(t, a.addr, credentials.NewTLS(evil.Client("a")), message(big))
		require.Equal(t, codes.ResourceExhausted, status.Code(err), "%v", err)
		lives(t)
	})
	t.Run("calls", func(t *testing.T) {
		cc := dialRaw(t, a.addr, credentials.NewTLS(evil.Client("a")))
		ctx := within(t, patience)
		_, err := remote.NewRemotingClient(cc).ListProcesses(ctx, &remote.ListProcessesRequest{Pattern: "g"})
		require.Equal(t, codes.Unimplemented, status.Code(err))
		_, err = remote.NewRemotingClient(cc).GetProcessDiagnostics(ctx, &remote.GetProcessDiagnosticsRequest{Pid: &actor.PID{Id: gateID}})
		require.Equal(t, codes.Unimplemented, status.Code(err))
		lives(t)
	})
	t.Run("an answer to a question of another node", func(t *testing.T) {
		b := letters(1)
		b.Envelopes[0].MessageData = encoded(&wire.Letter{Kind: wire.Kind_ANSWER, From: "evil", Call: 1})
		c := greeted(t, a.addr, credentials.NewTLS(evil.Client("a")))
		require.NoError(t, c.Send(message(b)))
		lives(t)
	})
	t.Run("many streams", func(t *testing.T) {
		var last error
		for range peerStreams/4 + 2 { // four streams on each connection
			cc := dialRaw(t, a.addr, credentials.NewTLS(evil.Client("a")))
			for range 4 {
				c, err := remote.NewRemotingClient(cc).Receive(within(t, patience))
				require.NoError(t, err)
				if err := c.Send(greeting("evil")); err != nil {
					require.ErrorIs(t, err, io.EOF) // refused already: Recv says why
				}
				_, last = c.Recv()
			}
		}
		require.Equal(t, codes.ResourceExhausted, status.Code(last), "%v", last)
		lives(t)
	})
	// what is of a newer version is no attack
	t.Run("a newer letter", func(t *testing.T) {
		b := letters(2)
		b.Envelopes[0].MessageData = encoded(&wire.Letter{From: "evil", Kind: 99})
		b.Envelopes[1].MessageData = append(encoded(&wire.Letter{From: "evil", Kind: wire.Kind_NOTICE, Op: "tell", Key: "new"}), 0xfa, 0x3e, 1, 'x') // field 1007
		c := greeted(t, a.addr, credentials.NewTLS(evil.Client("a")))
		require.NoError(t, c.Send(message(b)))
		require.Equal(t, "evil new", a.line())
		lives(t)
	})
}

func dialRaw(t *testing.T, addr string, c credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(c), grpc.WithAuthority("a"), grpc.WithNoProxy())
	require.NoError(t, err)
	t.Cleanup(func() { cc.Close() })
	return cc
}

// greeted returns a stream whose greeting was answered.
func greeted(t *testing.T, addr string, c credentials.TransportCredentials) remote.Remoting_ReceiveClient {
	t.Helper()
	st, err := remote.NewRemotingClient(dialRaw(t, addr, c)).Receive(within(t, patience))
	require.NoError(t, err)
	require.NoError(t, st.Send(greeting("evil")))
	_, err = st.Recv()
	require.NoError(t, err)
	return st
}

// attack sends one message and returns what the node says to it: the end of the stream.
func attack(t *testing.T, addr string, c credentials.TransportCredentials, m *remote.RemoteMessage) error {
	t.Helper()
	st, err := remote.NewRemotingClient(dialRaw(t, addr, c)).Receive(within(t, patience))
	if err != nil {
		return err
	}
	if err := st.Send(m); err != nil && err != io.EOF {
		return err
	}
	_, err = st.Recv()
	return err
}
