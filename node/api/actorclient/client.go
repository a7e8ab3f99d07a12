package actorclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"github.com/google/uuid"

	"github.com/open-autoglm/autoglm/node/api/actorv1"
	"github.com/open-autoglm/autoglm/node/api/actorv1/actorv1connect"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	dialMax         = 3 * time.Second
	tryDefault      = 5 * time.Second
	patienceDefault = 30 * time.Second
	answerMax       = 16 << 20 // bytes of one answer
)

// Client is safe for any number of goroutines.
type Client struct {
	nodes    []node
	at       atomic.Uint32 // the node that answered last; nodes[at%len]
	try      time.Duration
	patience time.Duration
	http     connect.HTTPClient
	protocol Protocol
	key      string         // shown with every call; "": none
	trust    *x509.CertPool // nil: the system's
}

type node struct {
	url string
	rpc actorv1connect.ActorServiceClient
}

// Protocol is how a Client speaks.
type Protocol uint8

const (
	Connect Protocol = iota // over HTTP/1.1 or 2; the default
	GRPC                    // over HTTP/2, without TLS too
	GRPCWeb                 // for proxies that know it
)

// Option changes a Client.
type Option func(*Client)

// WithProtocol replaces Connect.
func WithProtocol(p Protocol) Option { return func(c *Client) { c.protocol = p } }

// WithPatience is how long a call without a deadline of its own is tried, 30 s by default; a Watch that was cut off tries so
// long to go on.
func WithPatience(d time.Duration) Option { return func(c *Client) { c.patience = d } }

// WithTry is how long one node has to answer before the next one is asked, 5 s by default.
func WithTry(d time.Duration) Option { return func(c *Client) { c.try = d } }

// WithAPIKey shows a key with every call.
func WithAPIKey(key string) Option { return func(c *Client) { c.key = key } }

// WithTrust replaces the authorities that https servers may be certified by: a cluster has one of its own.
func WithTrust(pool *x509.CertPool) Option { return func(c *Client) { c.trust = pool } }

// WithHTTPClient replaces the HTTP client. It must have no overall time-out: a Watch lasts.
func WithHTTPClient(h connect.HTTPClient) Option { return func(c *Client) { c.http = h } }

// New makes a client of the nodes at urls, like "http://127.0.0.1:8080"; nothing is called yet. Any node
// reaches any actor: one is enough, more survive the loss of one.
func New(urls []string, opts ...Option) (*Client, error) {
	c := &Client{try: tryDefault, patience: patienceDefault}
	for _, opt := range opts {
		opt(c)
	}
	if len(urls) == 0 || c.try <= 0 || c.patience <= 0 {
		return nil, fault.New(fault.Invalid, "actorclient.new", "", "at least one URL, and times above 0, are needed")
	}
	if c.http == nil {
		t := transport(c.protocol)
		if c.trust != nil {
			t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.trust}
		}
		c.http = &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }} // it would get the key
	}
	copts := []connect.ClientOption{connect.WithReadMaxBytes(answerMax)}
	if c.key != "" {
		copts = append(copts, connect.WithInterceptors(shown(c.key)))
	}
	switch c.protocol {
	case GRPC:
		copts = append(copts, connect.WithGRPC())
	case GRPCWeb:
		copts = append(copts, connect.WithGRPCWeb())
	}
	for _, s := range urls {
		if !strings.Contains(s, "://") {
			s = "http://" + s
		}
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fault.New(fault.Invalid, "actorclient.new", s, "is no server address").WithRemedy("write it like http://127.0.0.1:8080")
		}
		s = strings.TrimRight(s, "/")
		c.nodes = append(c.nodes, node{url: s, rpc: actorv1connect.NewActorServiceClient(c.http, s, copts...)})
	}
	return c, nil
}

// shown puts the key on every call.
type shown string

func (k shown) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		req.Header().Set("Authorization", "Bearer "+string(k))
		return next(ctx, req)
	}
}

func (k shown) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		conn.RequestHeader().Set("Authorization", "Bearer "+string(k))
		return conn
	}
}

func (shown) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func transport(p Protocol) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 64
	t.DialContext = (&net.Dialer{Timeout: dialMax}).DialContext
	if p == GRPC {
		t.Protocols = new(http.Protocols)
		t.Protocols.SetHTTP2(true)
		t.Protocols.SetUnencryptedHTTP2(true)
		t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
		t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second} // a peer that vanished
	}
	return t
}

// Close lets go of idle connections. The client stays usable.
func (c *Client) Close() {
	if h, ok := c.http.(*http.Client); ok {
		h.CloseIdleConnections()
	}
}

// Actor names an actor, which need not exist: one comes to be with its first commit.
func (c *Client) Actor(kind, id string) *Actor { return &Actor{c: c, kind: kind, id: id} }

// Actor is an address. It is safe for any number of goroutines.
type Actor struct {
	c        *Client
	kind, id string
}

// Message is one message in JSON.
type Message struct {
	Type      string // a name that the kind has opened
	Body      []byte // nil: an empty object
	RequestID string // "": one is made. Who may crash and send again keeps it
}

// Answer is what an actor answered.
type Answer struct {
	Type    string // "" when the answer is nothing
	Body    []byte // JSON
	Version uint64 // how many commits had made the actor's state
}

// Ask sends msg as JSON under its type's name and decodes the answer.
func Ask[Reply any](ctx context.Context, a *Actor, typ string, msg any) (reply Reply, err error) {
	body, err := json.Marshal(msg)
	if err != nil {
		return reply, fault.New(fault.Invalid, "actorclient.ask", typ, "%w", err)
	}
	ans, err := a.Ask(ctx, Message{Type: typ, Body: body})
	if err != nil || ans.Type == "" {
		return reply, err
	}
	if err = json.Unmarshal(ans.Body, &reply); err != nil {
		err = fault.New(fault.Malformed, "actorclient.ask", a.String(), "answer %s does not decode: %w", ans.Type, err)
	}
	return reply, err
}

// String returns kind/id.
func (a *Actor) String() string { return a.kind + "/" + a.id }

// Ask sends a message and returns the answer, however many tries that takes, until ctx ends. An
// error of kind Unavailable or Timeout leaves open whether the message was carried out: Ask again with the same RequestID. A refusal
// is one of these where an earlier try had no answer, for that one may be carried out later.
func (a *Actor) Ask(ctx context.Context, m Message) (ans Answer, err error) {
	if m.RequestID == "" {
		m.RequestID = uuid.NewString()
	}
	if m.Body == nil {
		m.Body = []byte("{}")
	}
	if !utf8.ValidString(a.kind + a.id + m.Type + m.RequestID) {
		return ans, fault.New(fault.Invalid, "actorclient.ask", a.kind, "kind, id, type and request id must be UTF-8")
	}
	open := false
	err = a.c.repeat(ctx, "actorclient.ask", func(ctx context.Context, n node) error {
		res, err := n.rpc.Ask(ctx, connect.NewRequest(&actorv1.AskRequest{Kind: a.kind, Id: a.id, Type: m.Type, RequestId: m.RequestID,
			Content: &actorv1.AskRequest_Body{Body: m.Body}}))
		if err == nil {
			ans = Answer{Type: res.Msg.Type, Body: res.Msg.GetBody(), Version: res.Msg.Version}
		}
		open = open || leavesOpen(err)
		return err
	})
	if err != nil && open && !again(err) && ctx.Err() != context.Canceled {
		err = fault.New(fault.Unavailable, "actorclient.ask", a.String(), "an earlier try had no answer and may be carried out yet; the last one was refused: %w", err).
			WithRemedy("send it again later with the same request id")
	}
	return ans, err
}

// Tell posts a message to the actor and does not wait for it. It is tried at one node after the other until one takes
// it; from there it arrives, or is lost with a node.
func (a *Actor) Tell(ctx context.Context, typ string, msg any) error {
	body, err := json.Marshal(msg)
	if err != nil {
		return fault.New(fault.Invalid, "actorclient.tell", typ, "%w", err)
	}
	return a.c.repeat(ctx, "actorclient.tell", func(ctx context.Context, n node) error {
		_, err := n.rpc.Tell(ctx, connect.NewRequest(&actorv1.TellRequest{Kind: a.kind, Id: a.id, Type: typ, Content: &actorv1.TellRequest_Body{Body: body}}))
		return err
	})
}

// State is what the actor's kind shows of it.
type State struct {
	Version uint64 // 0: it has not committed anything
	JSON    []byte // nil for version 0, or when the kind shows nothing
}

// Decode fills v; a state without JSON leaves it as it is.
func (s State) Decode(v any) error {
	if s.JSON == nil {
		return nil
	}
	if err := json.Unmarshal(s.JSON, v); err != nil {
		return fault.New(fault.Malformed, "actorclient.state", "", "it does not decode: %w", err)
	}
	return nil
}

// State reads the actor without waking it: everything that was answered before the call is in it.
func (a *Actor) State(ctx context.Context) (s State, err error) {
	err = a.c.repeat(ctx, "actorclient.state", func(ctx context.Context, n node) error {
		res, err := n.rpc.State(ctx, connect.NewRequest(&actorv1.StateRequest{Kind: a.kind, Id: a.id, Raw: true}))
		if err == nil {
			s = State{Version: res.Msg.Version, JSON: res.Msg.GetBody()}
		}
		return err
	})
	return s, err
}
