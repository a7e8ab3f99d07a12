package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/sys"

	"github.com/open-autoglm/autoglm/actors/infer"
	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// WasmName names the engine of WASM tools.
const WasmName = "tools-wasm"

const (
	wasmPage  = 64 << 10 // bytes
	stderrMax = 1 << 10  // bytes of standard error that are kept for an error
)

// Wasm runs functions of the modules in a folder: input on standard input, output on standard output, and nothing else of the machine. Clocks and
// random numbers are the same in each run, so that an attempt on any node gives what one before it would have given.
// It is safe for many goroutines.
type Wasm struct {
	shelf    *shelf
	machines *machines
}

// NewWasm takes the folder of modules. Close lets go of what is compiled.
func NewWasm(dir string) *Wasm { return &Wasm{newShelf(dir), newMachines()} }

// Name is the same on every node.
func (w *Wasm) Name() string { return WasmName }

// Models are the modules that are there now, by name and by SHA-256.
func (w *Wasm) Models(context.Context) ([]string, error) {
	all, err := w.shelf.look()
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, b := range all {
		names = append(names, task.ToolWasm(b.name), task.ToolWasm(sumPrefix+b.sum))
	}
	if len(names) == 0 {
		names = append(names, task.ToolWasm("")) // nobody asks for it: an empty list would say that it is not known yet
	}
	return names, nil
}

// Close ends it, once nothing runs any more.
func (w *Wasm) Close() { w.machines.close() }

// Ready compiles a module that is not compiled yet: that takes seconds, and is none of the step's time.
func (w *Wasm) Ready(ctx context.Context, r *infer.Request) error {
	m, err := w.machine(ctx, r.Tool)
	if err == nil {
		w.machines.put(m)
	}
	return err
}

// machine returns the one for a call, to be put back.
func (w *Wasm) machine(ctx context.Context, c *task.Call) (*machine, error) {
	sum, code, err := w.shelf.find(c.Module)
	if err != nil {
		return nil, err
	}
	return w.machines.get(ctx, machineOf{sum, c.MemoryMB}, code)
}

// Do runs one function.
func (w *Wasm) Do(ctx context.Context, r *infer.Request) (*infer.Response, error) {
	c := r.Tool
	m, err := w.machine(ctx, c)
	if err != nil {
		return nil, err
	}
	defer w.machines.put(m)
	out, err := m.run(ctx, c)
	if err != nil {
		return nil, err
	}
	return &infer.Response{Text: out, FinishReason: "stop", Model: c.Module + "@" + sumPrefix + m.of.sum}, nil
}

// run makes an instance for one call.
func (m *machine) run(ctx context.Context, c *task.Call) (string, error) {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	out, said := &output{max: task.ToolOutputMax, over: cancel}, &output{max: stderrMax, over: func() {}}
	config := new(clock).keep(wazero.NewModuleConfig().WithName("").WithArgs(c.Module).WithStdin(bytes.NewReader(c.Input)).WithStdout(out).WithStderr(said).WithStartFunctions())
	mod, err := m.runtime.InstantiateModule(inner, m.code, config)
	if err != nil {
		return "", ended(ctx, c, err, out, said, "")
	}
	defer mod.Close(context.WithoutCancel(ctx))
	for _, name := range entries(c.Function) {
		f := mod.ExportedFunction(name)
		switch {
		case f == nil && name == initialize:
			continue
		case f == nil:
			return "", refused(fault.Invalid, c.Module, "the module has no function %s", name).WithRemedy("export it, or name another")
		case len(f.Definition().ParamTypes()) > 0:
			return "", refused(fault.Invalid, c.Module, "its function %s has parameters: input comes on standard input", name)
		}
		memory := mod.Memory()
		if _, err = f.Call(inner); err != nil {
			note := ""
			if memory != nil && int(memory.Size()) > c.MemoryMB<<20*3/4 {
				note = fmt.Sprintf("; it had %d of its %d MiB of memory", memory.Size()>>20, c.MemoryMB)
			}
			if err = ended(ctx, c, err, out, said, note); err != nil {
				return "", err
			}
			break // it said that it is done
		}
	}
	if out.cut {
		return "", tooLong(c.Module)
	}
	if !utf8.Valid(out.Bytes()) {
		return "", refused(fault.Invalid, c.Module, "the module's output is no UTF-8 text")
	}
	return out.String(), nil
}

// initialize is what a module without main has to be called by first.
const initialize = "_initialize"

func entries(function string) []string {
	if function == "" {
		return []string{"_start"}
	}
	return []string{initialize, function}
}

// ended says what the end of a call means: nil is the module's own exit with 0. What a module does of itself it would do again, so that is final;
// a time-out may be the machine's fault.
func ended(ctx context.Context, c *task.Call, err error, out, said *output, note string) error {
	if t := strings.TrimSpace(strings.ToValidUTF8(said.String(), "")); t != "" {
		note += ": " + t
	}
	exit, exited := errors.AsType[*sys.ExitError](err)
	switch {
	case out.cut:
		return tooLong(c.Module)
	case ctx.Err() == context.DeadlineExceeded:
		return refused(fault.Timeout, c.Module, "the module did not end in time%s", note)
	case ctx.Err() != nil:
		return refused(fault.Unavailable, c.Module, "the module was stopped: %w", ctx.Err())
	case exited && exit.ExitCode() == 0:
		return nil
	case exited:
		return refused(fault.Invalid, c.Module, "the module ended with exit code %d%s", exit.ExitCode(), note)
	}
	why, _, _ := strings.Cut(err.Error(), "\n") // a stack follows
	return refused(fault.Invalid, c.Module, "the module failed: %s%s", why, note)
}

// output keeps the first bytes of what a module writes.
type output struct {
	bytes.Buffer
	max  int
	cut  bool
	over func() // called when there is more
}

// Write never fails, so that a module which logs much goes on.
func (o *output) Write(p []byte) (int, error) {
	if room := o.max - o.Len(); len(p) > room {
		o.cut = true
		o.over()
		_, _ = o.Buffer.Write(p[:room])
		return len(p), nil
	}
	return o.Buffer.Write(p)
}
