package task

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestRetryID(t *testing.T) {
	long := strings.Repeat("x", IDMax)
	for id, want := range map[string]string{
		"a": "a.retry-1", "a.retry-1": "a.retry-2", "a.retry-9": "a.retry-10", "a.retry-0": "a.retry-0.retry-1", "a.retry-01": "a.retry-01.retry-1",
		"a.retry-x": "a.retry-x.retry-1", ".retry-1": ".retry-1.retry-1", "a.retry--1": "a.retry--1.retry-1",
	} {
		require.Equal(t, want, RetryID(id), id)
	}
	for _, id := range []string{long, long[:IDMax-1], long[:IDMax-8] + ".retry-9"} {
		got := RetryID(id)
		require.LessOrEqual(t, len(got), IDMax)
		require.NotEqual(t, id, got)
		require.Equal(t, got, RetryID(id))
	}
	require.NotEqual(t, RetryID(long), RetryID(long[:IDMax-1]))
}

func TestAgain(t *testing.T) {
	now := time.Now()
	dead := Record{State: Failed, EndedAt: now, Spec: &Spec{ID: "a", Prompt: "p", Deadline: &now, NotBefore: &now, Metadata: map[string]string{"k": "v"}}}
	s, err := dead.Again("a")
	require.NoError(t, err)
	require.Equal(t, &Spec{ID: "a.retry-1", Prompt: "p", Metadata: map[string]string{"k": "v"}, RetryOf: "a"}, s)
	require.NotNil(t, dead.Spec.Deadline, "the dead one stays as it is")
	for _, state := range []State{Pending, Running, Completed, Cancelled} {
		r := dead
		r.State = state
		_, err := r.Again("a")
		require.Equal(t, fault.Conflict, fault.KindOf(err), state)
	}
	dead.Line = &Line{Batch: "b"}
	_, err = dead.Again("a")
	require.Contains(t, fault.RemedyOf(err), "autoglm batch retry")
}
