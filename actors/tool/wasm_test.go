package tool

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// modules are what testdata/module is compiled to: with a main, and without.
var modules = sync.OnceValues(func() (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "modules")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	all := map[string][]byte{}
	for name, mode := range map[string]string{"main": "exe", "library": "c-shared"} {
		out := filepath.Join(dir, name)
		c := exec.Command("go", "build", "-buildmode="+mode, "-ldflags=-s -w", "-o", out, "./testdata/module")
		c.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOFLAGS=")
		if said, err := c.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w: %s", err, said)
		}
		if all[name], err = os.ReadFile(out); err != nil {
			return nil, err
		}
	}
	return all, nil
})

// shelved is a Wasm with these modules in its folder.
func shelved(t *testing.T, more map[string][]byte) (*Wasm, string) {
	t.Helper()
	all, err := modules()
	require.NoError(t, err)
	dir := t.TempDir()
	for _, files := range []map[string][]byte{all, more} {
		for name, b := range files {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name+wasmExt), b, 0o600))
		}
	}
	w := NewWasm(dir)
	t.Cleanup(w.Close)
	return w, dir
}

func call(w *Wasm, within time.Duration, c task.Call, input string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if c.MemoryMB == 0 {
		c.MemoryMB = task.WasmMemory
	}
	c.Input = []byte(input)
	r, err := w.Do(ctx, &infer.Request{Tool: &c})
	if err != nil {
		return "", err
	}
	return r.Text, nil
}

func TestAFunctionIsRun(t *testing.T) {
	w, _ := shelved(t, nil)
	require.NoError(t, w.Ready(t.Context(), &infer.Request{Tool: &task.Call{Module: "main", MemoryMB: task.WasmMemory}}))
	require.Len(t, w.machines.by, 1, "before it is called")
	require.Equal(t, fault.Unavailable, fault.KindOf(w.Ready(t.Context(), &infer.Request{Tool: &task.Call{Module: "missing", MemoryMB: 1}})))
	for _, c := range []task.Call{{Module: "main"}, {Module: "library", Function: "score"}} {
		for range 3 { // each time a new instance
			out, err := call(w, time.Minute, c, `score three short words`)
			require.NoError(t, err)
			require.Equal(t, `{"words":3}`, out)
		}
	}
	require.Len(t, w.machines.by, 2, "compiled once")

	names, err := w.Models(t.Context())
	require.NoError(t, err)
	require.Len(t, names, 4)
	require.Equal(t, []string{"wasm:library", "wasm:main"}, []string{names[0], names[2]})
	out, err := call(w, time.Minute, task.Call{Module: strings.TrimPrefix(names[3], "wasm:")}, `score x`)
	require.NoError(t, err)
	require.Equal(t, `{"words":1}`, out, "by its hash")
	require.Len(t, w.machines.by, 2)

	r, err := w.Do(t.Context(), &infer.Request{Tool: &task.Call{Module: "main", MemoryMB: task.WasmMemory, Input: []byte(`score`)}})
	require.NoError(t, err)
	require.Equal(t, "main@"+strings.TrimPrefix(names[3], "wasm:"), r.Model, "which bytes ran is journaled with the answer")
}

// TestAModuleSeesNothing of the machine, and sees the same each time.
func TestAModuleSeesNothing(t *testing.T) {
	w, _ := shelved(t, nil)
	first, err := call(w, time.Minute, task.Call{Module: "main"}, `world`)
	require.NoError(t, err)
	require.Regexp(t, `^2022-01-01T00:00:00Z true \d+ 0 true$`, first, "a clock that nobody set, sleep that takes no time, no environment, no files")
	again, err := call(w, time.Minute, task.Call{Module: "main"}, `world`)
	require.NoError(t, err)
	require.Equal(t, first, again)
}

// TestModulesThatMisbehave: each has an end, and says what to do.
func TestModulesThatMisbehave(t *testing.T) {
	empty, err := hex.DecodeString("0061736d01000000") // the magic number and the version, and nothing else
	require.NoError(t, err)
	w, _ := shelved(t, map[string][]byte{"text": []byte("no module"), "empty": empty})
	_, err = call(w, time.Minute, task.Call{Module: "main"}, `score`) // compiled before anything is timed
	require.NoError(t, err)
	for name, c := range map[string]struct {
		call   task.Call
		input  string
		within time.Duration
		kind   fault.Kind
		text   string
	}{
		"loop":         {task.Call{Module: "main"}, `loop`, 300 * time.Millisecond, fault.Timeout, "did not end in time"},
		"bomb":         {task.Call{Module: "main", MemoryMB: 32}, `bomb`, time.Minute, fault.Invalid, "of its 32 MiB of memory"},
		"trap":         {task.Call{Module: "main"}, `panic`, time.Minute, fault.Invalid, "panic: on purpose"},
		"exit":         {task.Call{Module: "main"}, `exit 7`, time.Minute, fault.Invalid, "exit code 7: it says why"},
		"huge":         {task.Call{Module: "main"}, `huge`, time.Minute, fault.TooLarge, "which is the limit"},
		"too much":     {task.Call{Module: "main"}, fmt.Sprintf(`write %d`, task.ToolOutputMax+1), time.Minute, fault.TooLarge, "which is the limit"},
		"binary":       {task.Call{Module: "main"}, `binary`, time.Minute, fault.Invalid, "no UTF-8"},
		"no memory":    {task.Call{Module: "main", MemoryMB: 1}, `score`, time.Minute, fault.Invalid, "cannot be run with 1 MiB"},
		"no such file": {task.Call{Module: "missing"}, `{}`, time.Minute, fault.Unavailable, "not in tools.wasm_dir"},
		"no such hash": {task.Call{Module: sumPrefix + strings.Repeat("00", 32)}, `{}`, time.Minute, fault.Unavailable, "not in tools.wasm_dir"},
		"a path":       {task.Call{Module: "../main"}, `{}`, time.Minute, fault.Unavailable, "not in tools.wasm_dir"},
		"no function":  {task.Call{Module: "main", Function: "other"}, `{}`, time.Minute, fault.Invalid, "no function other"},
		"parameters":   {task.Call{Module: "library", Function: "adds"}, `{}`, time.Minute, fault.Invalid, "has parameters"},
		"no module":    {task.Call{Module: "text"}, `{}`, time.Minute, fault.Invalid, "cannot be run"},
		"nothing":      {task.Call{Module: "empty"}, `{}`, time.Minute, fault.Invalid, "no function _start"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := call(w, c.within, c.call, c.input)
			require.Equal(t, c.kind, fault.KindOf(err), "%v", err)
			require.ErrorContains(t, err, c.text)
			require.Less(t, len(err.Error()), 2*stderrMax)
		})
	}
	for input, want := range map[string]string{fmt.Sprintf(`write %d`, task.ToolOutputMax): strings.Repeat("x", task.ToolOutputMax), `log 100000`: "done", `exit 0`: ""} {
		out, err := call(w, time.Minute, task.Call{Module: "main"}, input)
		require.NoError(t, err)
		require.Equal(t, want, out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel) // the node stops, or the task was cancelled
	_, err = w.Do(ctx, &infer.Request{Tool: &task.Call{Module: "main", MemoryMB: task.WasmMemory, Input: []byte(`loop`)}})
	require.Equal(t, fault.Unavailable, fault.KindOf(err), "%v", err)
}

// TestAModuleChanges: the next call runs what is there then, and what is pinned by its hash is not replaced by anything.
func TestAModuleChanges(t *testing.T) {
	all, err := modules()
	require.NoError(t, err)
	w, dir := shelved(t, nil)
	path := filepath.Join(dir, "main.wasm")
	first, _, err := w.shelf.find("main")
	require.NoError(t, err)
	_, code, err := w.shelf.find("main")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path+".new", all["library"], 0o600))
	require.NoError(t, os.Rename(path+".new", path))
	_, err = code()
	require.Equal(t, fault.Unavailable, fault.KindOf(err), "it was changed between the look and the read")
	second, _, err := w.shelf.find("main")
	require.NoError(t, err)
	require.NotEqual(t, first, second)
	_, _, err = w.shelf.find(sumPrefix + first)
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.NoError(t, os.Remove(path))
	_, _, err = w.shelf.find("main")
	require.Equal(t, fault.Unavailable, fault.KindOf(err))

	require.NoError(t, os.Remove(filepath.Join(dir, "library.wasm")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".hidden.wasm"), all["main"], 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "folder.wasm"), 0o700))
	names, err := w.Models(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"wasm:"}, names, "known to have none")
	require.NoError(t, os.RemoveAll(dir))
	_, err = w.Models(t.Context())
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
}

// TestMemoryIsNoReasonToCompileAgain: code is compiled once for all sizes of memory, and many sizes of one module drive out no other's.
func TestMemoryIsNoReasonToCompileAgain(t *testing.T) {
	s := newMachines()
	defer s.close()
	empty := func() ([]byte, error) { return hex.DecodeString("0061736d01000000") }
	other, err := s.get(t.Context(), machineOf{"0123456789abcdef", 1}, empty)
	require.NoError(t, err)
	s.put(other)
	all, err := modules()
	require.NoError(t, err)
	code := func() ([]byte, error) { return all["main"], nil }
	took := func(memory int) uint64 { // bytes allocated: compiling takes fifty times what all else does
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		m, err := s.get(t.Context(), machineOf{"fedcba9876543210", memory}, code)
		require.NoError(t, err)
		s.put(m)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	first := took(64)
	for i := range machinesMax + 4 {
		require.Less(t, took(65+i), first/3)
	}
	require.Contains(t, s.by, other.of)
}

// TestMachinesAreFew: as many as the limit are kept compiled, those that were used last; none goes while it runs.
func TestMachinesAreFew(t *testing.T) {
	s := newMachines()
	empty := func() ([]byte, error) { return hex.DecodeString("0061736d01000000") }
	busy, err := s.get(t.Context(), machineOf{"0123456789abcdef0", 1}, empty)
	require.NoError(t, err)
	for i := range 2 * machinesMax {
		m, err := s.get(t.Context(), machineOf{"0123456789abcdef", i + 1}, empty)
		require.NoError(t, err)
		s.put(m)
		require.LessOrEqual(t, len(s.by), machinesMax)
	}
	require.Contains(t, s.by, busy.of)
	require.Contains(t, s.by, machineOf{"0123456789abcdef", 2 * machinesMax})
	require.NotContains(t, s.by, machineOf{"0123456789abcdef", 1})
	s.put(busy)
	_, err = s.get(t.Context(), machineOf{"0123456789abcdef", 1000}, func() ([]byte, error) { return nil, context.Canceled })
	require.ErrorIs(t, err, context.Canceled)
	require.NotContains(t, s.by, machineOf{"0123456789abcdef", 1000}, "it is tried again")
	s.close()
	require.Empty(t, s.by)
}
