package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/open-autoglm/autoglm/cmd/glm-worker/sample"
)

// Why a request was not answered. Anything else is the model's failure.
var (
	ErrQueueFull = errors.New("the waiting queue is full")
	ErrDraining  = errors.New("the worker is shutting down")
	ErrNoToken   = errors.New("the grammar allows no token of this model's vocabulary here")
	ErrSlow      = errors.New("the grammar takes too long to follow")
)

// TooLong says by how much a request is too long for one slot.
type TooLong struct {
	Context int // tokens that a slot holds
	Prompt  int
	Answer  int // tokens asked for
}

func (e *TooLong) Error() string {
	return fmt.Sprintf("the context holds %d tokens, the request needs %d: %d for the prompt and %d for the answer",
		e.Context, e.Prompt+e.Answer, e.Prompt, e.Answer)
}

// Request is one answer to make.
type Request struct {
	Prompt    []int32
	TokensMax int // of the answer; len(Prompt) + TokensMax <= Config.Context
	Params    sample.Params
	Stops     []string
	Matcher   Matcher // nil: any text. The engine closes it, whatever happens
	LogProbs  int     // how many alternatives to report with each token; -1 reports nothing
	Live      bool    // the caller reads while the answer grows
}

// Finish is why an answer ended.
type Finish string

const (
	Stop   Finish = "stop"   // an end token or a stop text
	Length Finish = "length" // TokensMax
)

// LogProb is one token of an answer with its probability and the likeliest alternatives.
type LogProb struct {
	sample.Scored
	Likeliest []sample.Scored
}

// Answer is what came out, or since the last look at a Stream.
type Answer struct {
	Text         string
	LogProbs     []LogProb
	Finish       Finish // empty while it grows
	TokensPrompt int
	TokensCached int // of the prompt, taken from an earlier one
	Tokens       int // of the answer so far, its end token included
}

// Stream is an answer in the making. Its size is bounded by the request, so the engine never waits for its reader.
type Stream struct {
	live  bool
	news  chan struct{} // holds at most one: there is something to look at
	mu    sync.Mutex
	next  Answer // not yet looked at; its text is kept beside it, where it can grow
	text  []byte
	ended bool
	err   error
}

// Next waits for more of the answer; after its end it returns io.EOF.
func (s *Stream) Next(ctx context.Context) (Answer, error) {
	for {
		if a, ok, err := s.look(); ok || err != nil {
			return a, err
		}
		select {
		case <-s.news:
		case <-ctx.Done():
			return Answer{}, ctx.Err()
		}
	}
}

// Wait returns the whole answer.
func (s *Stream) Wait(ctx context.Context) (Answer, error) {
	var whole Answer
	for {
		a, err := s.Next(ctx)
		if err == io.EOF {
			return whole, nil
		}
		if err != nil {
			return Answer{}, err
		}
		a.Text, a.LogProbs = whole.Text+a.Text, append(whole.LogProbs, a.LogProbs...)
		whole = a
	}
}

func (s *Stream) look() (a Answer, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return Answer{}, false, s.err
	case s.next.Finish == "" && (len(s.text) > 0 || s.next.LogProbs != nil) && s.live,
		s.next.Finish != "" && !s.ended:
		a = s.next
		a.Text = string(s.text)
		s.ended = a.Finish != ""
		s.text, s.next.LogProbs = s.text[:0], nil
		return a, true, nil
	case s.ended:
		return Answer{}, false, io.EOF
	}
	return Answer{}, false, nil
}

// cached notes how much of the prompt was there already.
func (s *Stream) cached(tokens int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next.TokensCached = tokens
}

// add is the engine's side: more of the answer. It tells the reader, if it wants to know already.
func (s *Stream) add(more Answer) {
	s.mu.Lock()
	s.text = append(s.text, more.Text...)
	s.next.LogProbs = append(s.next.LogProbs, more.LogProbs...)
	s.next.Tokens, s.next.Finish = more.Tokens, more.Finish
	tell := s.live || more.Finish != ""
	s.mu.Unlock()
	if tell {
		s.tell()
	}
}

func (s *Stream) fail(err error) {
	s.mu.Lock()
	if s.err == nil && s.next.Finish == "" {
		s.err = err
	}
	s.mu.Unlock()
	s.tell()
}

func (s *Stream) tell() {
	select {
	case s.news <- struct{}{}:
	default: // it has not looked since the last time
	}
}

// job is a request inside the engine, or a text to embed.
type job struct {
	Request
	stream *Stream
	embed  chan<- embedded // not nil: Prompt is to be embedded
	ctx    context.Context // ends when the caller goes away
	forget func() bool     // stops watching ctx
}

type embedded struct {
	vector []float32
	err    error
}

// end releases what a job holds. Every job ends once, by whoever takes it out of the queue or its slot.
func (j *job) end(err error) {
	j.forget()
	if j.Matcher != nil {
		j.Matcher.Close()
	}
	switch {
	case err == nil:
	case j.embed != nil:
		j.embed <- embedded{err: err} // has room for one
	default:
		j.stream.fail(err)
	}
}
