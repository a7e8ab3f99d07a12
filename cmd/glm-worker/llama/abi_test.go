package llama

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cmd/glm-worker/gguf"
)

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s %v\n%s", name, args, out)
	return strings.TrimSpace(string(out))
}

// abi.h must describe the structs of the llama.cpp that go.mod names, byte for byte: a difference would be silent
// nonsense at run time.
func TestLayoutsAreTheRealOnes(t *testing.T) {
	module := output(t, "go", "list", "-m", "-f", "{{.Version}} {{.Dir}}", "github.com/ollama/ollama")
	version, dir, _ := strings.Cut(module, " ")
	require.Equal(t, "v0.17.4", version, "abi.h was written for v0.17.4: compare it with the new header, then change this line")
	layout := func(name string, flags ...string) string {
		exe := filepath.Join(t.TempDir(), name)
		output(t, "cc", append(flags, "-o", exe, "testdata/layout.c")...)
		return output(t, exe)
	}
	ours := layout("ours", "-I.")
	theirs := layout("theirs", "-DREAL", "-I"+dir+"/llama/llama.cpp/include", "-I"+dir+"/ml/backend/ggml/ggml/include")
	require.Equal(t, theirs, ours)
}

// gguf computes sizes from a table of its own; ggml has the last word.
func TestTensorTypesAreGgmls(t *testing.T) {
	for kind, block := range gguf.Types {
		values, bytes := TypeSize(int(kind))
		require.Equal(t, [2]int64{values, bytes}, [2]int64{int64(block.Values), int64(block.Bytes)}, "type %d", kind)
	}
}
