package persistence

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSmoke(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		start := time.Now()
		s, err := Open(Options{Dir: dir})
		require.NoError(t, err)
		t.Log("open", time.Since(start))
		j := s.Journal(3)
		e, err := j.Acquire(context.Background())
		require.NoError(t, err)
		require.EqualValues(t, round+1, e)
		for i := range 5 {
			ch := make(chan error, 1)
			st := time.Now()
			j.Append(e, []Write{{Key: Key{"task", fmt.Sprint(round, i)}, Data: []byte("hello"), Index: []Index{{Name: "p", Key: []byte{byte(round), byte(i)}}}, Count: []Count{{"n", 1}}}}, time.Second, func(o []Outcome, err error) {
				t.Log(o, err, time.Since(st))
				ch <- err
			})
			require.NoError(t, <-ch)
		}
		n := 0
		require.NoError(t, j.Scan("p", nil, nil, func(k, v []byte) bool { n++; return true }))
		require.Equal(t, 5*(round+1), n)
		c, _ := j.Counters()
		require.EqualValues(t, n, c["n"])
		l, err := j.Read(Key{"task", fmt.Sprint(round, 1)}, 0)
		require.NoError(t, err)
		require.EqualValues(t, 1, l.Last)
		start = time.Now()
		require.NoError(t, s.Close())
		t.Log("close", time.Since(start))
	}
}
