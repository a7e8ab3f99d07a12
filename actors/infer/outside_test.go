package infer

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// outside is an engine that is not ours, as a process of its own.
type outside struct {
	*HTTP
	process *process
}

// startOutside runs binary with args, in which PORT stands for a free port, until the test ends.
func startOutside(t *testing.T, binary string, args ...string) outside {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	require.NoError(t, l.Close())
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "PORT", port)
	}
	tail := newLineTail(func(string) {})
	started, end := make(chan *process, 1), make(chan struct{})
	var thread sync.WaitGroup
	thread.Go(func() { // a thread that outlives the process: see Child.supervise
		p, err := startProcess(start{binary: binary, args: args, pipe: true, out: tail})
		if err != nil {
			started <- nil
			return
		}
		started <- p
		<-end
	})
	p := <-started
	require.NotNil(t, p, "cannot start %s", binary)
	h, err := NewHTTP(HTTPOptions{URL: "http://127.0.0.1:" + port})
	require.NoError(t, err)
	t.Cleanup(func() {
		h.Close()
		p.kill()
		close(end)
		thread.Wait()
	})
	ctx, cancel := context.WithTimeout(t.Context(), watchTimeout)
	defer cancel()
	for h.Health(ctx) != nil {
		if next(ctx, p.done, 10*time.Millisecond) != elapsed {
			t.Fatalf("%s is not healthy: %s", binary, tail)
		}
	}
	return outside{h, p}
}

// conform is what any engine of the OpenAI API must give us. It serves model, and echoes; text
// (with %d) is something that it can echo: the simulator's tokenizer, for one, drops Chinese.
func (o outside) conform(t *testing.T, model, text string) {
	t.Run("models", func(t *testing.T) {
		models, err := o.Models(t.Context())
		require.NoError(t, err)
		require.Contains(t, models, model)
	})
	t.Run("many at once", func(t *testing.T) {
		var all sync.WaitGroup
		for i := range 64 {
			all.Go(func() {
				temperature, seed := 0.0, int64(i)
				text := fmt.Sprintf(text, i)
				r, err := o.Do(t.Context(), &Request{Model: model, Messages: []Message{{Role: "system", Content: "s"}, {Role: "user", Content: text}}, MaxTokens: 100,
					Temperature: &temperature, Seed: &seed, Stop: []string{"\x00"}, Key: fmt.Sprintf("t%d/1", i)})
				if err != nil {
					t.Errorf("request %d: %v", i, err)
					return
				}
				if r.Text != text || r.FinishReason != "stop" || r.Model != model || r.PromptTokens < 1 || r.OutputTokens < 1 {
					t.Errorf("request %d: %+v", i, r)
				}
			})
		}
		all.Wait()
	})
	t.Run("unknown model", func(t *testing.T) {
		_, err := o.Do(t.Context(), &Request{Model: "nobody/knows", Messages: ask("x").Messages})
		require.Equal(t, fault.NotFound, fault.KindOf(err), "%v", err)
	})
	t.Run("refused request", func(t *testing.T) {
		_, err := o.Do(t.Context(), &Request{Model: model})
		require.Contains(t, []fault.Kind{fault.Invalid, fault.NotFound, 0}, fault.KindOf(err), "%v", err)
	})
	t.Run("no tokenize", func(t *testing.T) {
		_, err := o.CountTokens(t.Context(), model, ask("x").Messages)
		require.Equal(t, fault.NotFound, fault.KindOf(err), "%v", err)
	})
}

// Ollama's code reads our requests and writes the answers; see tools/outside-engine.
func TestOutsideEngineConforms(t *testing.T) {
	binary := os.Getenv("AUTOGLM_OUTSIDE_ENGINE")
	if binary == "" {
		binary = "../../bin/outside-engine"
	}
	if _, err := os.Stat(binary); err != nil {
		t.Fatalf("the outside engine is missing (%v): run `make bin/outside-engine`, or set AUTOGLM_OUTSIDE_ENGINE to its path", err)
	}
	startOutside(t, binary, "--port", "PORT").conform(t, "glm-outside", `line %d, with <tags> & "quotes", 你好`)
}
