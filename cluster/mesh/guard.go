package mesh

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/open-autoglm/autoglm/cluster/mesh/internal/wire"
	"github.com/open-autoglm/autoglm/cluster/pki"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	batchMax      = 256 // letters in one message of protoactor
	peerStreams   = 32  // streams of one peer at once; a healthy one has one, and leaves some behind when links break
	systemIDMax   = 64  // bytes
	refusalLogGap = 10 * time.Second
)

var letterType = string((&wire.Letter{}).ProtoReflect().Descriptor().FullName())

const fromField = protowire.Number(2) // of Letter, as in letter.proto

// guard stands before protoactor's reader, which by itself believes everybody and dies of what it does not expect. It
// lets through: a greeting, and batches of letters to the gate that carry the name in the peer's certificate.
type guard struct {
	self string // name of this node, its address in PIDs
	log  *slog.Logger
	now  func() time.Time

	mu      sync.Mutex
	streams map[string]int       // by peer
	told    map[string]time.Time // when a refusal was logged, by peer; peers are certified, so they are few
}

func newGuard(self string, log *slog.Logger) *guard {
	return &guard{self: self, log: log, now: time.Now, streams: map[string]int{}, told: map[string]time.Time{}}
}

// check decides about one message from the node whose certificate says from. It is pure.
func (g *guard) check(m *remote.RemoteMessage, from string) error {
	switch t := m.GetMessageType().(type) {
	case *remote.RemoteMessage_ConnectRequest:
		sc := t.ConnectRequest.GetServerConnection()
		switch {
		case sc == nil:
			return refuse("a greeting of no server")
		case sc.Address != from:
			return refuse("a greeting in the name of %q", sc.Address)
		case len(sc.SystemId) > systemIDMax:
			return refuse("a system id of %d bytes", len(sc.SystemId))
		}
		return nil
	case *remote.RemoteMessage_MessageBatch:
		return g.checkBatch(t.MessageBatch, from)
	}
	return refuse("a message that is neither greeting nor letters")
}

func (g *guard) checkBatch(b *remote.MessageBatch, from string) error {
	if n := len(b.GetEnvelopes()); n == 0 || n > batchMax {
		return refuse("a batch of %d letters, want 1 to %d", n, batchMax)
	}
	if names := b.TypeNames; len(names) != 1 || names[0] != letterType {
		return refuse("types %.200q, want only %s", names, letterType)
	}
	if len(b.Targets) != 1 || b.Targets[0].GetAddress() != g.self || b.Targets[0].GetId() != gateID || b.Targets[0].GetRequestId() != 0 {
		return refuse("%d targets, want only the gate of this node", len(b.Targets))
	}
	if len(b.Senders) != 0 {
		return refuse("%d senders, want none", len(b.Senders))
	}
	for _, e := range b.Envelopes {
		switch {
		case e.GetTypeId() != 0 || e.GetTarget() != 0 || e.GetSender() != 0 || e.GetSerializerId() != 0:
			return refuse("index out of range: type %d, target %d, sender %d, serializer %d", e.GetTypeId(), e.GetTarget(), e.GetSender(), e.GetSerializerId())
		case e.GetTargetRequestId() != 0 || e.GetSenderRequestId() != 0 || e.GetMessageHeader() != nil:
			return refuse("a letter with request ids or a header")
		case len(e.GetMessageData()) > letterMax:
			return refuse("a letter of %d bytes, over the limit of %d", len(e.GetMessageData()), letterMax)
		}
		if err := signed(e.GetMessageData(), from); err != nil {
			return err
		}
	}
	return nil
}

// signed reads the sender's name out of an encoded letter without decoding the rest: protoactor does that again. Where
// a field is there twice a decoder takes the last, so all must be right.
func signed(data []byte, from string) error {
	found := false
	for len(data) > 0 {
		num, typ, n := protowire.ConsumeTag(data)
		if n < 0 {
			return refuse("bytes that are no letter")
		}
		data = data[n:]
		if n = protowire.ConsumeFieldValue(num, typ, data); n < 0 {
			return refuse("bytes that are no letter")
		}
		if num == fromField {
			v, k := protowire.ConsumeBytes(data)
			if typ != protowire.BytesType || k < 0 || string(v) != from {
				return refuse("a letter in the name of %.200q", v)
			}
			found = true
		}
		data = data[n:]
	}
	if !found {
		return refuse("a letter without its sender's name")
	}
	return nil
}

func refuse(format string, args ...any) error {
	return fault.New(fault.Refused, "mesh.guard", "", format, args...)
}

// options are the server's.
func (g *guard) options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, _ any, call *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
			from, _ := peerOf(ctx)
			g.tell(from, refuse("a call of %s", call.FullMethod))
			return nil, status.Error(codes.Unimplemented, "not served")
		}),
		grpc.ChainStreamInterceptor(g.stream),
	}
}

// stream wraps protoactor's reader: what check refuses ends the stream before the reader sees it, and if the reader
// panics all the same, the stream ends and not the process.
func (g *guard) stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	from, err := peerOf(ss.Context())
	if err != nil {
		g.tell("", err)
		return status.Error(codes.Unauthenticated, "no node's certificate")
	}
	if !g.enter(from) {
		g.tell(from, refuse("more than %d streams", peerStreams))
		return status.Error(codes.ResourceExhausted, "too many streams")
	}
	defer g.leave(from)
	defer func() {
		if r := recover(); r != nil {
			g.log.Error("mesh: the reader panicked", "peer", from, "panic", r, "stack", string(debug.Stack()))
			err = status.Error(codes.InvalidArgument, "refused")
		}
	}()
	return next(srv, &guardedStream{ServerStream: ss, guard: g, from: from})
}

func (g *guard) enter(from string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.streams[from] >= peerStreams {
		return false
	}
	g.streams[from]++
	return true
}

func (g *guard) leave(from string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.streams[from]--; g.streams[from] == 0 {
		delete(g.streams, from)
	}
}

// tell logs a refusal, once in a while for each peer.
func (g *guard) tell(from string, err error) {
	g.mu.Lock()
	now := g.now()
	due := now.Sub(g.told[from]) >= refusalLogGap
	if due {
		g.told[from] = now
	}
	g.mu.Unlock()
	if due {
		g.log.Warn("mesh: refused", "peer", from, "error", err)
	}
}

type guardedStream struct {
	grpc.ServerStream
	guard *guard
	from  string
}

// RecvMsg is where protoactor's reader takes messages from.
func (s *guardedStream) RecvMsg(v any) error {
	if err := s.ServerStream.RecvMsg(v); err != nil {
		return err
	}
	err := refuse("a message of type %T", v)
	if m, ok := v.(*remote.RemoteMessage); ok {
		err = s.guard.check(m, s.from)
	}
	if err != nil {
		s.guard.tell(s.from, err)
		return status.Error(codes.InvalidArgument, err.Error()) // the peer is certified: it may know why
	}
	return nil
}

// peerOf returns the node at the other end, as its certificate says.
func peerOf(ctx context.Context) (string, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", refuse("a stream without a peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return "", refuse("a stream without TLS")
	}
	return pki.PeerName(info.State)
}
