package tool

import (
	"context"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// machinesMax bounds the compiled modules that are kept while nothing runs on them; the one that was used last goes last.
const machinesMax = 16

// machineOf is what a machine is for: the memory that a module may have is the machine's.
type machineOf struct {
	sum      string
	memoryMB int
}

// machine is a compiled module, of which calls make instances.
type machine struct {
	of      machineOf
	once    sync.Once
	runtime wazero.Runtime
	code    wazero.CompiledModule
	err     error

	users int // both under machines.mu
	used  uint64
}

// machines compiles each module once: machines of one module differ in their memory alone, and share its code for as long as there is one of them.
type machines struct {
	cache wazero.CompilationCache
	mu    sync.Mutex
	by    map[machineOf]*machine
	clock uint64 // counts uses
}

func newMachines() *machines {
	return &machines{cache: wazero.NewCompilationCache(), by: map[machineOf]*machine{}}
}

// get returns a machine, to be put back. code reads the module where it is not compiled yet.
func (s *machines) get(ctx context.Context, of machineOf, code func() ([]byte, error)) (*machine, error) {
	s.mu.Lock()
	m := s.by[of]
	if m == nil {
		m = &machine{of: of}
		s.by[of] = m
	}
	m.users++
	s.mu.Unlock()
	m.once.Do(func() { m.compile(context.WithoutCancel(ctx), s.cache, code) })
	if m.err == nil {
		return m, nil
	}
	s.mu.Lock()
	if s.by[of] == m {
		delete(s.by, of) // the next call tries again
	}
	s.mu.Unlock()
	return nil, m.err
}

func (m *machine) compile(ctx context.Context, cache wazero.CompilationCache, code func() ([]byte, error)) {
	b, err := code()
	if err != nil {
		m.err = err
		return
	}
	config := wazero.NewRuntimeConfig().WithCompilationCache(cache).WithCloseOnContextDone(true).WithMemoryLimitPages(uint32(m.of.memoryMB << 20 / wasmPage))
	m.runtime = wazero.NewRuntimeWithConfig(ctx, config)
	if _, err = wasi_snapshot_preview1.Instantiate(ctx, m.runtime); err == nil {
		m.code, err = m.runtime.CompileModule(ctx, b)
	}
	if err != nil {
		_ = m.runtime.Close(ctx) // nothing runs on it
		m.err = refused(fault.Invalid, sumPrefix+m.of.sum[:16], "the module cannot be run with %d MiB of memory: %w", m.of.memoryMB, err)
	}
}

// free lets a machine go on which nothing runs, and the code where it is the last one's.
func (m *machine) free() {
	if m.runtime == nil {
		return
	}
	ctx := context.Background() // memory only
	if m.code != nil {
		_ = m.code.Close(ctx)
	}
	_ = m.runtime.Close(ctx)
}

// put gives a machine back, and lets others go where there are too many.
func (s *machines) put(m *machine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock++
	m.users, m.used = m.users-1, s.clock
	for len(s.by) > machinesMax {
		var oldest *machine
		for _, x := range s.by {
			if x.users > 0 {
				continue
			}
			if oldest == nil || s.shared(x) && !s.shared(oldest) || s.shared(x) == s.shared(oldest) && x.used < oldest.used {
				oldest = x
			}
		}
		if oldest == nil {
			return
		}
		delete(s.by, oldest.of)
		oldest.free()
	}
}

// shared tells whether another machine has the same code: one such is made again at once, so it goes first, and nobody's many sizes of memory drive out others' modules.
func (s *machines) shared(m *machine) bool {
	for of := range s.by {
		if of.sum == m.of.sum && of != m.of {
			return true
		}
	}
	return false
}

// close lets all of them go.
func (s *machines) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for of, m := range s.by {
		delete(s.by, of)
		if m.users == 0 {
			m.free()
		}
	}
}
