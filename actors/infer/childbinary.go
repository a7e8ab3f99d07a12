package infer

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/cpu"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// FindWorker returns the glm-worker beside this executable that suits this processor.
func FindWorker() (string, error) {
	self, err := os.Executable()
	if err == nil {
		self, err = filepath.EvalSymlinks(self)
	}
	if err != nil {
		return "", fault.New(fault.NotFound, "infer.worker", "", "%w", err).WithRemedy("name the glm-worker binary")
	}
	dir := filepath.Dir(self)
	for _, name := range workerNames(hasV3()) {
		path := filepath.Join(dir, name)
		if st, err := os.Stat(path); err == nil && st.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fault.New(fault.NotFound, "infer.worker", dir, "%w", errNotFound).WithRemedy("run `make build`, or name the binary")
}

// workerNames is the order in which to look. A v3 binary is 5 to 10 times faster and dies of
// SIGILL on an older processor; the plain name is what `make build` made for this machine.
func workerNames(v3 bool) []string {
	if v3 {
		return []string{"glm-worker-v3", "glm-worker", "glm-worker-v1"}
	}
	return []string{"glm-worker-v1", "glm-worker"}
}

// hasV3 tells whether the processor runs a worker of x86-64-v3, which is built without LZCNT. F16C and MOVBE, which the level also
// needs, came no later than AVX2 in every processor; the worker checks F16C itself.
func hasV3() bool {
	x := &cpu.X86
	return x.HasAVX && x.HasAVX2 && x.HasFMA && x.HasBMI1 && x.HasBMI2 && x.HasPOPCNT
}
