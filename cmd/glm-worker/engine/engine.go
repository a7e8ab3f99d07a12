package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Config sizes an engine. Every number must be at least 1.
type Config struct {
	Slots   int // answers made at once
	Context int // tokens of one answer with its prompt
	Batch   int // tokens computed in one round; at least Slots, so that every answer moves in every round
	Queue   int // requests waiting for a slot; one more is refused

	Clock func() time.Time // time.Now if nil; tests bring their own
}

// Engine answers requests with one model. Its methods may be called from any goroutine.
type Engine struct {
	config  Config
	backend Backend
	vocab   Vocab
	ends    []int32 // end tokens
	banned  []int32 // tokens never picked

	mu       sync.Mutex
	waiting  []*job // len <= config.Queue, oldest first
	draining bool

	wake    chan struct{} // holds at most one: the queue or draining changed
	cut     atomic.Bool   // end everything now
	stopped chan struct{} // closed when the loop has returned
	broken  chan error    // holds at most one: the model fails again and again

	counts counts
	loop   loop
}

// counts are written by the loop and read by Stats.
type counts struct {
	running, rounds, prompt, cached, answer, finished, failed, parked, embedded atomic.Int64
}

// Stats are what an engine is doing and has done. The last group only grows.
type Stats struct {
	Slots, Running, Waiting int

	Rounds         int64 // batches computed
	TokensPrompt   int64 // computed for prompts
	TokensCached   int64 // of prompts, taken from earlier ones
	TokensAnswer   int64
	Finished       int64 // answers
	Failed         int64 // requests given up, cancelled ones among them
	Parked         int64 // times an answer had to make room and start over
	TokensEmbedded int64
}

// New starts the engine's goroutine. Close it before closing the backend.
func New(backend Backend, vocab Vocab, config Config) (*Engine, error) {
	if config.Slots < 1 || config.Context < 2 || config.Batch < config.Slots || config.Queue < 1 {
		return nil, fmt.Errorf("engine.new: impossible sizes: slots %d and queue %d >= 1, context %d >= 2, batch %d >= slots",
			config.Slots, config.Queue, config.Context, config.Batch)
	}
	if len(vocab.Pieces) == 0 || len(vocab.Pieces) != len(vocab.Kinds) {
		return nil, fmt.Errorf("engine.new: %d pieces and %d kinds of tokens", len(vocab.Pieces), len(vocab.Kinds))
	}
	if config.Clock == nil {
		config.Clock = time.Now
	}
	e := &Engine{
		config: config, backend: backend, vocab: vocab,
		wake: make(chan struct{}, 1), stopped: make(chan struct{}), broken: make(chan error, 1),
	}
	e.ends, e.banned = vocab.specials()
	e.loop.slots = make([]slot, config.Slots)
	go e.run()
	return e, nil
}

// Submit queues a request. Its answer ends early when ctx does.
func (e *Engine) Submit(ctx context.Context, r Request) (*Stream, error) {
	s := &Stream{live: r.Live, news: make(chan struct{}, 1)}
	s.next.TokensPrompt = len(r.Prompt)
	j := &job{Request: r, stream: s}
	err := e.refuse(r)
	if err == nil {
		err = e.enqueue(ctx, j)
	}
	if err != nil {
		if r.Matcher != nil {
			r.Matcher.Close()
		}
		return nil, err
	}
	return s, nil
}

func (e *Engine) refuse(r Request) error {
	switch {
	case len(r.Prompt) == 0:
		return errors.New("engine.submit: the prompt has no tokens")
	case r.TokensMax < 1 || len(r.Prompt)+r.TokensMax > e.config.Context:
		return &TooLong{Context: e.config.Context, Prompt: len(r.Prompt), Answer: max(1, r.TokensMax)}
	}
	return e.known(r.Prompt)
}

// known refuses ids outside the vocabulary, which llama.cpp would read memory with.
func (e *Engine) known(tokens []int32) error {
	if i := slices.IndexFunc(tokens, func(t int32) bool { return t < 0 || int(t) >= len(e.vocab.Pieces) }); i >= 0 {
		return fmt.Errorf("engine.submit: token %d is not in the vocabulary of %d", tokens[i], len(e.vocab.Pieces))
	}
	return nil
}

// Embed waits for a text's vector. It takes its turn between two rounds.
func (e *Engine) Embed(ctx context.Context, tokens []int32) ([]float32, error) {
	if len(tokens) == 0 || len(tokens) > e.config.Context {
		return nil, &TooLong{Context: e.config.Context, Prompt: len(tokens)}
	}
	if err := e.known(tokens); err != nil {
		return nil, err
	}
	result := make(chan embedded, 1)
	if err := e.enqueue(ctx, &job{Request: Request{Prompt: tokens}, embed: result}); err != nil {
		return nil, err
	}
	r := <-result // cancelling ctx ends the job, so something always comes
	return r.vector, r.err
}

func (e *Engine) enqueue(ctx context.Context, j *job) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.draining:
		return ErrDraining
	case len(e.waiting) >= e.config.Queue:
		return ErrQueueFull
	}
	// The callback runs in a goroutine of its own and takes e.mu, so forget is set before anyone can need it.
	j.ctx = ctx
	j.forget = context.AfterFunc(ctx, func() { e.abandon(j) })
	e.waiting = append(e.waiting, j)
	e.nudge()
	return nil
}

// abandon takes a job whose caller is gone out of the queue. From a slot the loop takes it.
func (e *Engine) abandon(j *job) {
	e.mu.Lock()
	i := slices.Index(e.waiting, j)
	if i >= 0 {
		e.waiting = slices.Delete(e.waiting, i, i+1)
	}
	e.mu.Unlock()
	if i >= 0 {
		e.counts.failed.Add(1)
		j.end(context.Cause(j.ctx))
	}
}

func (e *Engine) nudge() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Broken receives an error when the model failed so often in a row that only a new process helps.
func (e *Engine) Broken() <-chan error { return e.broken }

// Stats is a look at the engine.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	waiting := len(e.waiting)
	e.mu.Unlock()
	c := &e.counts
	return Stats{
		Slots: e.config.Slots, Running: int(c.running.Load()), Waiting: waiting,
		Rounds: c.rounds.Load(), TokensPrompt: c.prompt.Load(), TokensCached: c.cached.Load(), TokensAnswer: c.answer.Load(),
		Finished: c.finished.Load(), Failed: c.failed.Load(), Parked: c.parked.Load(), TokensEmbedded: c.embedded.Load(),
	}
}

// Context is the number of tokens that a request and its answer may have.
func (e *Engine) Context() int { return e.config.Context }

// Vocab is the model's vocabulary; do not change it.
func (e *Engine) Vocab() *Vocab { return &e.vocab }

// Drain refuses new requests, finishes those accepted, and returns when that is done. When ctx ends first the rest is
// cut off with ErrDraining.
func (e *Engine) Drain(ctx context.Context) error {
	e.mu.Lock()
	e.draining = true
	e.mu.Unlock()
	e.nudge()
	select {
	case <-e.stopped:
		return nil
	case <-ctx.Done():
		e.Close()
		return ctx.Err()
	}
}

// Close ends everything at once and returns when the engine's goroutine has. It may be called again.
func (e *Engine) Close() {
	e.mu.Lock()
	e.draining = true
	e.mu.Unlock()
	e.cut.Store(true)
	e.nudge()
	<-e.stopped
}
