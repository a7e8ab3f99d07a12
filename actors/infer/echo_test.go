package infer

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

var _, _ Engine = (*Echo)(nil), (*HTTP)(nil)
var _ TokenCounter = (*HTTP)(nil)

func ask(text string) *Request {
	return &Request{Model: "m", Messages: []Message{{Role: "user", Content: text}}}
}

func TestEchoAnswersTheLastUserMessage(t *testing.T) {
	e := NewEcho(EchoOptions{})
	require.Equal(t, "echo", e.Name())
	models, err := e.Models(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"*"}, models)
	r, err := e.Do(t.Context(), &Request{Model: "m", Messages: []Message{{Role: "system", Content: "s"}, {Role: "user", Content: "one"}, {Role: "assistant", Content: "a"}, {Role: "user", Content: "two"}, {Role: "assistant", Content: "b"}}})
	require.NoError(t, err)
	require.Equal(t, &Response{Text: "two", FinishReason: "stop", Model: "m", PromptTokens: 25, OutputTokens: 1}, r)

	_, err = e.Do(t.Context(), &Request{Messages: []Message{{Role: "system", Content: "s"}}})
	require.Equal(t, fault.Invalid, fault.KindOf(err))
}

func TestEchoIgnoresDirectivesUnlessAllowed(t *testing.T) {
	r, err := NewEcho(EchoOptions{}).Do(t.Context(), ask("#echo fail=always\nx"))
	require.NoError(t, err)
	require.Equal(t, "#echo fail=always\nx", r.Text)
}

func TestEchoDirectives(t *testing.T) {
	for _, c := range []struct {
		prompt string
		kinds  []fault.Kind // of each try; Unknown is success
		after  time.Duration
	}{
		{"#echo \nx", []fault.Kind{0}, 0},
		{"#echo fail=2\nx", []fault.Kind{fault.Unavailable, fault.Unavailable, 0, fault.Unavailable}, 0},
		{"#echo fail=1 kind=overloaded retry_after=2s\nx", []fault.Kind{fault.Overloaded, 0}, 2 * time.Second},
		{"#echo fail=always kind=timeout\nx", []fault.Kind{fault.Timeout, fault.Timeout, fault.Timeout}, 0},
		{"#echo fail=x\nx", []fault.Kind{fault.Invalid}, 0},
		{"#echo kind=nice\nx", []fault.Kind{fault.Invalid}, 0},
		{"#echo what=1\nx", []fault.Kind{fault.Invalid}, 0},
	} {
		e := NewEcho(EchoOptions{Directives: true})
		for i, want := range c.kinds {
			r, err := e.Do(t.Context(), ask(c.prompt))
			if want == 0 {
				require.NoError(t, err, c.prompt)
				require.Equal(t, "x", r.Text)
				continue
			}
			require.Equal(t, want, fault.KindOf(err), "%s, try %d: %v", c.prompt, i, err)
			if i == 0 {
				require.Equal(t, c.after, RetryAfterOf(err))
			}
		}
	}
}

func TestEchoCountsFailuresOfATaskOverItsAttempts(t *testing.T) {
	e := NewEcho(EchoOptions{Directives: true})
	r := ask("#echo fail=1\nx")
	for attempt, fails := range []bool{true, false} {
		for _, task := range []string{"a", "b", "/acme/a", "/acme/b"} {
			r.Key = fmt.Sprintf("%s/%d", task, attempt+1)
			_, err := e.Do(t.Context(), r)
			require.Equal(t, fails, err != nil, r.Key)
		}
	}
	require.Empty(t, e.failed, "a count ends with the success it waited for")
}

func TestEchoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := NewEcho(EchoOptions{Latency: time.Second, Directives: true})
		t0 := time.Now()
		_, err := e.Do(t.Context(), ask("x"))
		require.NoError(t, err)
		require.Equal(t, time.Second, time.Since(t0))

		t0 = time.Now()
		_, err = e.Do(t.Context(), ask("#echo latency=2s\nx"))
		require.NoError(t, err)
		require.Equal(t, 3*time.Second, time.Since(t0))

		for _, prompt := range []string{"x", "#echo hang\nx"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			_, err = e.Do(ctx, ask(prompt))
			require.Equal(t, fault.Timeout, fault.KindOf(err))
			cancel()
			ctx, cancel = context.WithCancel(t.Context())
			cancel()
			_, err = e.Do(ctx, ask(prompt))
			require.Equal(t, fault.Unavailable, fault.KindOf(err))
			require.ErrorIs(t, err, context.Canceled)
		}
	})
}

func BenchmarkEcho(b *testing.B) {
	e, r := NewEcho(EchoOptions{}), ask("2024-05-06")
	for b.Loop() {
		if _, err := e.Do(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
