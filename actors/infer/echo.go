package infer

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/backoff"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// EchoOptions make an Echo slow or faulty, for tests and benchmarks.
type EchoOptions struct {
	Name       string        // "echo" when empty
	Models     []string      // what it serves; all when empty
	Latency    time.Duration // of every answer; 0 answers at once
	Directives bool          // obey prompts that begin with EchoMark; off, they are echoed like any other
}

// EchoMark begins a prompt that tells an Echo how to fail, when its Directives are on. The first
// line holds the directives, the rest is what is echoed:
//
//	#echo fail=2 kind=overloaded retry_after=1s latency=5ms
//	the text
//
// fail is how many tries of this task fail first (its name is Request.Key up to the last slash, else
// the prompt), or "always"; kind is a fault kind, unavailable when missing; hang waits for the
// deadline; latency adds to the option's.
const EchoMark = "#echo "

// EchoFailuresMax is how many tasks an Echo counts failures for; past it the count of one of
// them is forgotten.
const EchoFailuresMax = 100_000

// Echo answers with the last user message. It keeps nothing but the failure counts of
// directives, and is safe for any number of goroutines.
type Echo struct {
	o      EchoOptions
	mu     sync.Mutex
	failed map[string]int // by task: failures given so far; bounded by EchoFailuresMax
}

// NewEcho makes an Echo.
func NewEcho(o EchoOptions) *Echo {
	if o.Name == "" {
		o.Name = "echo"
	}
	return &Echo{o: o, failed: map[string]int{}}
}

// Name returns the option's name, "echo" by default.
func (e *Echo) Name() string { return e.o.Name }

// Models returns ["*"] unless it was given some: an Echo answers for every model.
func (e *Echo) Models(context.Context) ([]string, error) {
	if len(e.o.Models) > 0 {
		return slices.Clone(e.o.Models), nil
	}
	return []string{"*"}, nil
}

// Health returns nil: an Echo is always well.
func (e *Echo) Health(context.Context) error { return nil }

// Do returns the last user message, after the latency, or the failure that was asked for. A raw request gets a whole answer.
func (e *Echo) Do(ctx context.Context, r *Request) (*Response, error) {
	var q echoQuestion
	var texts []string
	if r.Raw != nil {
		var err error
		if q, texts, err = e.question(r); err != nil {
			return nil, err
		}
	} else {
		text, ok := lastUser(r.Messages)
		if !ok {
			return nil, fault.New(fault.Invalid, "infer.echo", r.Key, "no user message to answer")
		}
		texts = []string{text}
	}
	if err := e.obey(ctx, r, &texts[0]); err != nil {
		return nil, err
	}
	if r.Raw != nil {
		return e.answerRaw(r, &q, texts)
	}
	return &Response{Text: texts[0], FinishReason: "stop", Model: r.Model, PromptTokens: RoughTokensOf(r.Messages), OutputTokens: RoughTokens(texts[0])}, nil
}

// obey waits for the latency and does what a directive in text asks, which it takes away.
func (e *Echo) obey(ctx context.Context, r *Request, text *string) error {
	if !e.o.Directives || !strings.HasPrefix(*text, EchoMark) {
		return wait(ctx, e.o.Latency)
	}
	line, rest, _ := strings.Cut(*text, "\n")
	d, err := parseDirective(line[len(EchoMark):])
	if err != nil {
		return err
	}
	if d.hang {
		<-ctx.Done()
	}
	if err := wait(ctx, e.o.Latency+d.latency); err != nil {
		return err
	}
	if e.fails(taskOf(r, line+rest), d.fail) {
		f := fault.New(d.kind, "infer.echo", r.Key, "failed as the prompt asked")
		if r.Raw != nil {
			return backoff.Asked(rawFault(f), d.retryAfter)
		}
		return backoff.Asked(f, d.retryAfter)
	}
	*text = rest
	return nil
}

func lastUser(ms []Message) (string, bool) {
	for i := len(ms) - 1; i >= 0; i-- {
		if ms[i].Role == "user" {
			return ms[i].Content, true
		}
	}
	return "", false
}

// wait returns nil after d, or the fault of a context that ended first.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 && ctx.Err() == nil {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctxFault(ctx.Err(), "infer.echo", "")
	case <-t.C:
		if err := ctx.Err(); err != nil {
			return ctxFault(err, "infer.echo", "")
		}
		return nil
	}
}

// ctxFault tells a deadline (Timeout) from a caller that no longer wants the answer (Unavailable).
func ctxFault(err error, op, key string) error {
	if err == context.DeadlineExceeded {
		return fault.New(fault.Timeout, op, key, "no answer before the deadline: %w", err)
	}
	return fault.New(fault.Unavailable, op, key, "the request was given up: %w", err)
}

type directive struct {
	fail       int // -1: always
	kind       fault.Kind
	retryAfter time.Duration
	latency    time.Duration
	hang       bool
}

func parseDirective(line string) (directive, error) {
	d := directive{kind: fault.Unavailable}
	bad := func(word string) (directive, error) {
		return d, fault.New(fault.Invalid, "infer.echo", "", "directive %q: use fail=N|always kind=K retry_after=D latency=D hang", word)
	}
	for _, word := range strings.Fields(line) {
		name, value, _ := strings.Cut(word, "=")
		var err error
		switch name {
		case "fail":
			if d.fail = -1; value != "always" {
				d.fail, err = strconv.Atoi(value)
			}
		case "kind":
			d.kind = kindNamed(value)
			if d.kind == fault.Unknown && value != "unknown" {
				return bad(word)
			}
		case "retry_after":
			d.retryAfter, err = time.ParseDuration(value)
		case "latency":
			d.latency, err = time.ParseDuration(value)
		case "hang":
			d.hang = true
		default:
			return bad(word)
		}
		if err != nil {
			return bad(word)
		}
	}
	return d, nil
}

func kindNamed(name string) fault.Kind {
	for k := fault.Invalid; k.String() != fault.Unknown.String(); k++ { // past the last, all are unknown
		if k.String() == name {
			return k
		}
	}
	return fault.Unknown
}

// taskOf names what a failure is counted for: all attempts of one task count together.
func taskOf(r *Request, prompt string) string {
	if r.Key == "" {
		return prompt
	}
	if i := strings.LastIndexByte(r.Key, '/'); i > 0 { // ids of tenants have more of them
		return r.Key[:i]
	}
	return r.Key
}

// fails tells whether this try is one of the n that fail, and counts it.
func (e *Echo) fails(task string, n int) bool {
	if n < 0 {
		return true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	given := e.failed[task]
	if given >= n {
		delete(e.failed, task)
		return false
	}
	if len(e.failed) >= EchoFailuresMax {
		for other := range e.failed {
			delete(e.failed, other)
			break
		}
	}
	e.failed[task] = given + 1
	return true
}
