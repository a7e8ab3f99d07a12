//go:build simulator

package infer

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

const simModel = "glm-sim"

// startSimulator runs llm-d-inference-sim, a fake vLLM. It listens on every address, so run this
// where only loopback is (a network namespace).
func startSimulator(t *testing.T, args ...string) outside {
	t.Helper()
	binary := os.Getenv("AUTOGLM_SIMULATOR")
	if binary == "" {
		t.Fatal("AUTOGLM_SIMULATOR is not set: give it the path of a binary of llm-d-inference-sim v0.3.0")
	}
	return startOutside(t, binary, append([]string{"--port", "PORT", "--model", simModel, "--mode", "echo", "--max-num-seqs", "16"}, args...)...)
}

func TestSimulatorConforms(t *testing.T) {
	startSimulator(t).conform(t, simModel, `line %d, with <tags> & "quotes"`)
}

func TestSimulatorContextLength(t *testing.T) {
	o := startSimulator(t, "--max-model-len", "50")
	r := ask(strings.Repeat("word ", 100))
	r.Model, r.MaxTokens = simModel, 10
	_, err := o.Do(t.Context(), r)
	require.Equal(t, fault.TooLarge, fault.KindOf(err), "%v", err)
	require.ErrorContains(t, err, "maximum context length is 50")
}

func TestSimulatorDeadline(t *testing.T) {
	o := startSimulator(t, "--time-to-first-token", "60000")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r := ask("x")
	r.Model = simModel
	_, err := o.Do(ctx, r)
	require.Equal(t, fault.Timeout, fault.KindOf(err), "%v", err)
}

func TestSimulatorKilled(t *testing.T) {
	o := startSimulator(t, "--time-to-first-token", "60000")
	const n = 8
	errs := make(chan error, n)
	for range n {
		go func() {
			r := ask("x")
			r.Model = simModel
			_, err := o.Do(t.Context(), r)
			errs <- err
		}()
	}
	o.process.kill()
	for range n {
		require.Equal(t, fault.Unavailable, fault.KindOf(<-errs))
	}
}
