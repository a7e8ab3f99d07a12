package demo

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLoad(t *testing.T) {
	tasks, err := Load()
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(tasks), 300)
	jobs := map[string]int{}
	for _, d := range tasks {
		require.NoError(t, d.Spec.Validate(), d.Spec.ID)
		require.NotEmpty(t, d.Expected, d.Spec.ID)
		require.NotEmpty(t, d.Job, d.Spec.ID)
		jobs[d.Job]++
	}
	require.GreaterOrEqual(t, len(jobs), 6)
}
