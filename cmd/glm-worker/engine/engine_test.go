package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cmd/glm-worker/engine"
	"github.com/open-autoglm/autoglm/cmd/glm-worker/engine/enginetest"
	"github.com/open-autoglm/autoglm/cmd/glm-worker/sample"
)

func start(t *testing.T, m *enginetest.Model, c engine.Config) *engine.Engine {
	t.Helper()
	e, err := engine.New(m, enginetest.Vocab(), c)
	require.NoError(t, err)
	t.Cleanup(e.Close)
	return e
}

var small = engine.Config{Slots: 4, Context: 256, Batch: 16, Queue: 64}

// asking is a prompt that the fake answers with text in upper case.
func asking(text string) engine.Request {
	m := &enginetest.Model{}
	prompt := append([]int32{enginetest.Mask, enginetest.Sop, enginetest.User}, m.Tokenize("\n"+text)...)
	prompt = append(append(prompt, enginetest.Assistant), m.Tokenize("\n")...)
	return engine.Request{Prompt: prompt, TokensMax: 64, LogProbs: -1}
}

func ask(t *testing.T, e *engine.Engine, r engine.Request) engine.Answer {
	t.Helper()
	s, err := e.Submit(t.Context(), r)
	require.NoError(t, err)
	a, err := s.Wait(t.Context())
	require.NoError(t, err)
	return a
}

func TestAnswers(t *testing.T) {
	e := start(t, &enginetest.Model{}, small)
	r := asking("hello")
	a := ask(t, e, r)
	require.Equal(t, engine.Answer{Text: "HELLO", Finish: engine.Stop, TokensPrompt: len(r.Prompt), Tokens: 6}, a)

	r.TokensMax = 3
	a = ask(t, e, r)
	require.Equal(t, "HEL", a.Text)
	require.Equal(t, engine.Length, a.Finish)
	require.Equal(t, len(r.Prompt)-1, a.TokensCached, "the same prompt was there before, and its last token is computed anew")

	r = asking("hello wörld")
	r.Stops = []string{"RLD", "LO W"}
	require.Equal(t, "HEL", ask(t, e, r).Text)

	r = asking("wörld")
	require.Equal(t, "WöRLD", ask(t, e, r).Text, "a character in two tokens")
}

func TestAnswersAreTheSameBesideOthers(t *testing.T) {
	e := start(t, &enginetest.Model{}, small)
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			text := fmt.Sprintf("question %d%s", i, strings.Repeat("!", i%30))
			r := asking(text)
			if i%3 == 0 {
				r.Params = sample.Params{Temperature: 0.5, Seed: uint64(i), TopP: 0.9}
			}
			s, err := e.Submit(t.Context(), r)
			require.NoError(t, err)
			a, err := s.Wait(t.Context())
			require.NoError(t, err)
			require.Equal(t, strings.ToUpper(text), a.Text)
		})
	}
	all.Wait()
	require.Zero(t, e.Stats().Running)
	require.EqualValues(t, 50, e.Stats().Finished)
}

func TestStreaming(t *testing.T) {
	e := start(t, &enginetest.Model{}, small)
	r := asking("abc")
	r.Live, r.LogProbs = true, 2
	s, err := e.Submit(t.Context(), r)
	require.NoError(t, err)
	var text string
	var last engine.Answer
	tokens := 0
	for {
		a, err := s.Next(t.Context())
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		text += a.Text
		for _, p := range a.LogProbs {
			tokens++
			require.LessOrEqual(t, p.Log, 0.0)
			require.Len(t, p.Likeliest, 2)
		}
		last = a
	}
	require.Equal(t, "ABC", text)
	require.Equal(t, engine.Stop, last.Finish)
	require.Equal(t, last.Tokens, tokens)
	_, err = s.Next(t.Context())
	require.ErrorIs(t, err, io.EOF, "the end stays the end")
}

func TestGrammarHolds(t *testing.T) {
	e := start(t, &enginetest.Model{}, small)
	closed := 0
	r := asking("anything else")
	r.Matcher = &enginetest.Literal{Text: "ANY other", Closed: func() { closed++ }}
	require.Equal(t, "ANY other", ask(t, e, r).Text)
	require.Equal(t, 1, closed)

	r.TokensMax = 1000
	r.Matcher = &enginetest.Literal{Text: "x", Closed: func() { closed++ }}
	_, err := e.Submit(t.Context(), r)
	require.Error(t, err)
	require.Equal(t, 2, closed, "a refused request's matcher is closed too")

	r = asking("a")
	r.Matcher = impossible{}
	s, err := e.Submit(t.Context(), r)
	require.NoError(t, err)
	_, err = s.Wait(t.Context())
	require.ErrorIs(t, err, engine.ErrNoToken)
}

// An answer whose grammar takes too long is given up, and the others go on.
func TestSlowGrammar(t *testing.T) {
	var now atomic.Int64
	c := small
	c.Clock = func() time.Time { return time.Unix(0, now.Load()) }
	e := start(t, &enginetest.Model{}, c)
	r := asking("abcdefgh")
	r.Matcher = &slow{Literal: enginetest.Literal{Text: "ABCDEFGH"}, clock: &now}
	s, err := e.Submit(t.Context(), r)
	require.NoError(t, err)
	_, err = s.Wait(t.Context())
	require.ErrorIs(t, err, engine.ErrSlow)
	require.Equal(t, "OK", ask(t, e, asking("ok")).Text)
}

type slow struct {
	enginetest.Literal
	clock *atomic.Int64
}

func (s *slow) Allows(token int32) bool {
	s.clock.Add(int64(4 * time.Second))
	return s.Literal.Allows(token)
}

type impossible struct{}

func (impossible) Allows(int32) bool { return false }
func (impossible) Mask(scores []float32) {
	(&enginetest.Literal{Text: "\x00"}).Mask(scores)
	scores[0] = scores[1]
}
func (impossible) Accept(int32) {}
func (impossible) Close()       {}

func TestRefusals(t *testing.T) {
	e := start(t, &enginetest.Model{}, small)
	r := asking("x")
	r.TokensMax = 256
	_, err := e.Submit(t.Context(), r)
	var long *engine.TooLong
	require.ErrorAs(t, err, &long)
	require.Equal(t, engine.TooLong{Context: 256, Prompt: len(r.Prompt), Answer: 256}, *long)
	for _, prompt := range [][]int32{nil, {-1}, {1 << 20}} {
		_, err := e.Submit(t.Context(), engine.Request{Prompt: prompt, TokensMax: 1})
		require.Error(t, err)
	}
	for _, c := range []engine.Config{{}, {Slots: 4, Context: 9, Batch: 3, Queue: 1}, {Slots: 1, Context: 9, Batch: 9}} {
		_, err := engine.New(&enginetest.Model{}, enginetest.Vocab(), c)
		require.Error(t, err)
	}
}

// gate lets a test hold the engine inside a round.
type gate struct{ entered, open chan struct{} }

func newGate() *gate { return &gate{make(chan struct{}, 10_000), make(chan struct{})} }

func (g *gate) before([]engine.Token) error {
	g.entered <- struct{}{}
	<-g.open
	return nil
}

func TestQueueIsBounded(t *testing.T) {
	g := newGate()
	e := start(t, &enginetest.Model{Before: g.before}, engine.Config{Slots: 1, Context: 256, Batch: 16, Queue: 2})
	first, err := e.Submit(t.Context(), asking("one"))
	require.NoError(t, err)
	<-g.entered // it has its slot
	var waiting []*engine.Stream
	for range 2 {
		s, err := e.Submit(t.Context(), asking("two"))
		require.NoError(t, err)
		waiting = append(waiting, s)
	}
	_, err = e.Submit(t.Context(), asking("three"))
	require.ErrorIs(t, err, engine.ErrQueueFull)
	require.Equal(t, 2, e.Stats().Waiting)
	close(g.open)
	for _, s := range append(waiting, first) {
		_, err := s.Wait(t.Context())
		require.NoError(t, err)
	}
}

func TestCallersThatGoAwayFreeTheirPlace(t *testing.T) {
	g := newGate()
	e := start(t, &enginetest.Model{Before: g.before}, engine.Config{Slots: 1, Context: 256, Batch: 16, Queue: 1})
	running, stopRunning := context.WithCancel(t.Context())
	closed := make(chan struct{}, 2)
	r := asking("one")
	r.Matcher = &enginetest.Literal{Text: strings.Repeat("a", 50), Closed: func() { closed <- struct{}{} }}
	first, err := e.Submit(running, r)
	require.NoError(t, err)
	<-g.entered

	waiting, stopWaiting := context.WithCancel(t.Context())
	r = asking("two")
	r.Matcher = &enginetest.Literal{Text: "TWO", Closed: func() { closed <- struct{}{} }}
	second, err := e.Submit(waiting, r)
	require.NoError(t, err)
	stopWaiting()
	<-closed // it left the queue while the slot was still busy
	_, err = second.Wait(t.Context())
	require.ErrorIs(t, err, context.Canceled)

	third, err := e.Submit(t.Context(), asking("three"))
	require.NoError(t, err, "its place in the queue is free")
	stopRunning()
	close(g.open)
	<-closed
	_, err = first.Wait(t.Context())
	require.ErrorIs(t, err, context.Canceled)
	a, err := third.Wait(t.Context())
	require.NoError(t, err)
	require.Equal(t, "THREE", a.Text)
	require.EqualValues(t, 2, e.Stats().Failed)
}

// With room for less than all answers at once, all are still made, and right.
func TestLittleRoom(t *testing.T) {
	g := newGate()
	e := start(t, &enginetest.Model{Room: 60, Before: g.before}, small)
	var accepted []*engine.Stream
	for i := range 20 { // all are there before the first round ends, so that four run at once
		s, err := e.Submit(t.Context(), asking(fmt.Sprintf("a rather long question %d", i)))
		require.NoError(t, err)
		accepted = append(accepted, s)
	}
	close(g.open)
	for i, s := range accepted {
		a, err := s.Wait(t.Context())
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("A RATHER LONG QUESTION %d", i), a.Text)
	}
	require.Positive(t, e.Stats().Parked)

	s, err := e.Submit(t.Context(), asking(strings.Repeat("too long for the room ", 4)))
	require.NoError(t, err)
	_, err = s.Wait(t.Context())
	require.ErrorContains(t, err, "no room")
	require.Equal(t, "OK", ask(t, e, asking("ok")).Text, "the others are spared")
}

func TestFailuresAreReported(t *testing.T) {
	var fail atomic.Bool
	m := &enginetest.Model{Before: func([]engine.Token) error {
		if fail.Load() {
			return errors.New("it broke")
		}
		return nil
	}}
	e := start(t, m, small)
	fail.Store(true)
	for range 3 {
		s, err := e.Submit(t.Context(), asking("x"))
		require.NoError(t, err)
		_, err = s.Wait(t.Context())
		require.ErrorContains(t, err, "it broke")
	}
	require.ErrorContains(t, <-e.Broken(), "3 rounds failed")
	fail.Store(false)
	require.Equal(t, "X", ask(t, e, asking("x")).Text)
}

func TestEmbed(t *testing.T) {
	e := start(t, &enginetest.Model{}, small)
	v, err := e.Embed(t.Context(), []int32{4, 1, 1})
	require.NoError(t, err)
	require.Equal(t, []float32{0.6, 0.8}, v)
	_, err = e.Embed(t.Context(), nil)
	require.Error(t, err)
	_, err = e.Embed(t.Context(), make([]int32, 257))
	require.Error(t, err)
	_, err = e.Embed(t.Context(), []int32{-1})
	require.Error(t, err)
}

func TestDrainFinishesWhatWasAccepted(t *testing.T) {
	g := newGate()
	e := start(t, &enginetest.Model{Before: g.before}, engine.Config{Slots: 1, Context: 256, Batch: 16, Queue: 4})
	var accepted []*engine.Stream
	for range 3 {
		s, err := e.Submit(t.Context(), asking("one"))
		require.NoError(t, err)
		accepted = append(accepted, s)
	}
	<-g.entered
	drained := make(chan error)
	go func() { drained <- e.Drain(t.Context()) }()
	for { // until the drain has begun
		s, err := e.Submit(t.Context(), asking("late"))
		if errors.Is(err, engine.ErrDraining) {
			break
		}
		if err == nil {
			accepted = append(accepted, s)
		}
	}
	close(g.open)
	require.NoError(t, <-drained)
	for _, s := range accepted {
		_, err := s.Wait(t.Context())
		require.NoError(t, err)
	}
	e.Close()
	require.NoError(t, e.Drain(t.Context()), "again")
}

func TestDrainHasALimit(t *testing.T) {
	g := newGate()
	e := start(t, &enginetest.Model{Before: g.before}, engine.Config{Slots: 1, Context: 256, Batch: 16, Queue: 4})
	var accepted []*engine.Stream
	for range 3 {
		s, err := e.Submit(t.Context(), asking("one"))
		require.NoError(t, err)
		accepted = append(accepted, s)
	}
	<-g.entered
	limit, end := context.WithCancel(t.Context())
	end()
	go close(g.open)
	require.ErrorIs(t, e.Drain(limit), context.Canceled)
	for _, s := range accepted {
		_, err := s.Wait(t.Context())
		if err != nil { // the first may have been finished in the same moment
			require.ErrorIs(t, err, engine.ErrDraining)
		}
	}
	_, err := e.Submit(t.Context(), asking("x"))
	require.ErrorIs(t, err, engine.ErrDraining)
	_, err = e.Embed(t.Context(), []int32{1})
	require.ErrorIs(t, err, engine.ErrDraining)
}
