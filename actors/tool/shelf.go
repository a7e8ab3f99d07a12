package tool

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/open-autoglm/autoglm/actors/task"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

const (
	sumPrefix  = "sha256:"
	wasmExt    = ".wasm"
	moduleMax  = 64 << 20 // bytes of a module's file
	modulesMax = 128      // files that are looked at, in the order of their names
)

// shelf is the folder of modules. A task names a module, never a file: what is not in the list is not opened.
type shelf struct {
	dir string

	mu   sync.Mutex
	sums map[string]binding // by name: what was read before, as long as its file looks the same
}

// binding is a module's file.
type binding struct {
	name, sum string
	size      int64
	at        time.Time // of its last change
}

func newShelf(dir string) *shelf { return &shelf{dir: dir, sums: map[string]binding{}} }

// look lists the modules, by name. A file that changed is read for its SHA-256.
func (s *shelf) look() (all []binding, err error) {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "tool.modules", s.dir, "%w", err).WithRemedy("make the folder of tools.wasm_dir, and let the node read it")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := map[string]binding{}
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), wasmExt)
		if !ok || !task.ModuleName(name) || len(now) >= modulesMax {
			continue
		}
		info, err := os.Stat(s.path(name)) // also through a link, as Kubernetes mounts them
		if err != nil || !info.Mode().IsRegular() || info.Size() > moduleMax {
			continue
		}
		b := s.sums[name]
		if b.size != info.Size() || !b.at.Equal(info.ModTime()) || b.sum == "" {
			if b.sum, _, err = s.read(name); err != nil {
				continue
			}
			b.name, b.size, b.at = name, info.Size(), info.ModTime()
		}
		now[name] = b
		all = append(all, b)
	}
	s.sums = now
	return all, nil
}

func (s *shelf) path(name string) string { return filepath.Join(s.dir, name+wasmExt) }

func (s *shelf) read(name string) (sum string, code []byte, err error) {
	f, err := os.Open(s.path(name))
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	code, err = io.ReadAll(io.LimitReader(f, moduleMax+1))
	if err != nil {
		return "", nil, err
	}
	h := sha256.Sum256(code)
	return hex.EncodeToString(h[:]), code, nil
}

// find returns a module's SHA-256, and how to read it. One that is gone is another node's to run, or comes back.
func (s *shelf) find(module string) (sum string, code func() ([]byte, error), err error) {
	gone := func(why string) error {
		return fault.New(fault.Unavailable, "tool.modules", module, "the module is not in tools.wasm_dir of this node%s", why).WithRemedy("put it there")
	}
	all, err := s.look()
	if err != nil {
		return "", nil, err
	}
	want, bySum := strings.CutPrefix(module, sumPrefix)
	for _, b := range all {
		if bySum && b.sum != want || !bySum && b.name != module {
			continue
		}
		return b.sum, func() ([]byte, error) {
			sum, code, err := s.read(b.name)
			if err != nil || sum != b.sum {
				return nil, gone(" any more: its file is being changed")
			}
			return code, nil
		}, nil
	}
	return "", nil, gone("")
}
