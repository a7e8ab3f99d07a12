package callback

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/actors/egress"
	"github.com/open-autoglm/autoglm/actors/tenant"
	"github.com/open-autoglm/autoglm/cluster/trace"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Options of a Poster. Secret is needed.
type Options struct {
	Secret    string        // "whsec_" and base64 of 24 to 64 bytes; each tenant's is made of it
	Timeout   time.Duration // of one try; Timeout when 0
	Egress    egress.Policy // which addresses beside the public internet
	UserAgent string        // "Open-AutoGLM" when empty
}

// Limits of one try.
const (
	Timeout  = 20 * time.Second
	drainMax = 64 << 10 // bytes of the receiver's answer that are read, and dropped, to keep its connection
)

// Delivery is one try of one callback.
type Delivery struct {
	URL       string
	ID        string    // the same at every try: see MessageID
	Timestamp time.Time // of this try: receivers refuse what is older than minutes
	Body      []byte    // the same at every try
	Trace     string    // W3C traceparent; "": none
	Tenant    string    // whose secret signs it; "": the operator's
}

// Poster posts for any number of goroutines.
type Poster struct {
	o      Options
	client *http.Client
}

// New checks the secret. Close drops idle connections.
func New(o Options) (*Poster, error) {
	if _, err := parseSecret(o.Secret); err != nil {
		return nil, fault.New(fault.Invalid, "callback.new", "", "secret: %w", err)
	}
	if o.Timeout < 0 {
		return nil, fault.New(fault.Invalid, "callback.new", "", "timeout %v cannot be negative", o.Timeout)
	}
	if o.Timeout == 0 {
		o.Timeout = Timeout
	}
	if o.UserAgent == "" {
		o.UserAgent = "Open-AutoGLM"
	}
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Poster{o, &http.Client{Transport: o.Egress.Transport(), CheckRedirect: noRedirect}}, nil
}

// Close drops idle connections. Tries under way go on.
func (p *Poster) Close() { p.client.CloseIdleConnections() }

// Secret is what a tenant's callbacks are signed with, and what its receivers verify them by.
func (p *Poster) Secret(whose string) (string, error) { return TenantSecret(p.o.Secret, whose) }

// sign signs with the secret of the delivery's tenant.
func (p *Poster) sign(d *Delivery) (string, error) {
	secret, err := p.Secret(cmp.Or(d.Tenant, tenant.Default))
	if err != nil {
		return "", err
	}
	signer, err := webhooks.NewWebhook(secret)
	if err != nil {
		return "", err
	}
	return signer.Sign(d.ID, d.Timestamp, d.Body)
}

// Post makes one try. nil means acknowledged (2xx). An error is worth another try unless Final
// says otherwise; backoff.AskedBy gives the pause that the receiver asked for.
func (p *Poster) Post(ctx context.Context, d Delivery) error {
	u, err := url.Parse(d.URL)
	if err != nil {
		return fault.New(fault.Refused, "callback.post", d.ID, "callback_url does not parse")
	}
	fail := func(kind fault.Kind, format string, args ...any) *fault.Error {
		return fault.New(kind, "callback.post", u.Redacted(), format, args...)
	}
	if err := egress.CheckURL(u, "callback.post"); err != nil {
		return fail(fault.Refused, "%w", err)
	}
	signature, err := p.sign(&d)
	if err != nil {
		return fail(fault.Invalid, "cannot sign: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, p.o.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.URL, bytes.NewReader(d.Body))
	if err != nil {
		return fail(fault.Refused, "%w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", p.o.UserAgent)
	req.Header.Set(webhooks.HeaderWebhookID, d.ID)
	req.Header.Set(webhooks.HeaderWebhookTimestamp, strconv.FormatInt(d.Timestamp.Unix(), 10))
	req.Header.Set(webhooks.HeaderWebhookSignature, signature)
	if d.Trace != "" {
		req.Header.Set(trace.Header, d.Trace)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return sendFault(ctx, fail, err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, drainMax) // its end, or a break: the status is all that counts
	if resp.StatusCode/100 == 2 {
		return nil
	}
	f := fail(statusKind(resp.StatusCode), "the receiver answered %s", resp.Status)
	if resp.StatusCode/100 == 3 {
		f = f.WithRemedy("redirects are not followed: give the final URL")
	}
	return backoff.Asked(f, backoff.RetryAfter(resp.Header, time.Now()))
}

// statusKind keeps Refused for 410 alone, so that Final can read it off the kind.
func statusKind(status int) fault.Kind {
	switch status {
	case http.StatusGone:
		return fault.Refused
	case http.StatusNotFound:
		return fault.NotFound
	case http.StatusRequestTimeout:
		return fault.Timeout
	case http.StatusRequestEntityTooLarge:
		return fault.TooLarge
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return fault.Overloaded
	}
	if status >= 500 {
		return fault.Unavailable
	}
	return fault.Invalid
}

func sendFault(ctx context.Context, fail func(fault.Kind, string, ...any) *fault.Error, err error) error {
	var op *net.OpError
	if egress.Refused(err) && errors.As(err, &op) {
		return fail(fault.Refused, "the address is not allowed: %w", op.Err).
			WithRemedy("if it is meant to be reached, allow its network on every node: callback.allowed_nets")
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	var ne net.Error
	if ctx.Err() == context.DeadlineExceeded || (errors.As(err, &ne) && ne.Timeout()) {
		return fail(fault.Timeout, "%w", err)
	}
	return fail(fault.Unavailable, "%w", err)
}

// Final tells whether no further try makes sense: the receiver is gone (410), or the node's policy
// forbids the address.
func Final(err error) bool { return fault.KindOf(err) == fault.Refused }

// MessageID is the webhook-id of a task's callback: stable, and plain ASCII whatever the task's id.
func MessageID(taskID string) string {
	sum := sha256.Sum256([]byte(taskID))
	return "msg_" + hex.EncodeToString(sum[:16])
}
