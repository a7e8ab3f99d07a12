package mutant

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEdits: every mutation's expression is in the tree exactly once. This is in the normal suite, so that whoever writes
// such an expression otherwise learns it at once, not in `make mutation`.
func TestEdits(t *testing.T) {
	for _, e := range []Edit{noFence, noConfirm, noticeLate, proposeAnyway, forward, accept, noStoreSync, noLogSync} {
		dir := root(t)
		if e.Module != "" {
			b := build{ctx: t.Context(), root: dir}
			var err error
			dir, err = b.run("list", "-m", "-f", "{{.Dir}}", e.Module)
			require.NoError(t, err)
		}
		src, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(e.File)))
		require.NoError(t, err)
		changed, err := e.apply(src)
		require.NoError(t, err)
		require.NotEqual(t, src, changed)
	}
}

// TestBuild: a mutant differs, the source does not, and an expression that is not there once is an error.
func TestBuild(t *testing.T) {
	tree := t.TempDir()
	main := filepath.Join(tree, "main.go")
	const src = "package main\n\nfunc main() {\n\tprint(1, 1)\n\tprint(\"yes\")\n}\n"
	const tagged = "//go:build louder\n\npackage main\n\nfunc init() { print(\"!\") }\n"
	require.NoError(t, os.WriteFile(main, []byte(src), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(tree, "tagged.go"), []byte(tagged), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(tree, "go.mod"), []byte("module tree\n\ngo 1.26\n"), 0o600))

	for tags, want := range map[string]string{"": "2no", "louder": "!2no"} {
		p, err := Build(t.Context(), tree, ".", tags, t.TempDir(), "mutant",
			Edit{File: "main.go", Old: `"yes"`, New: `"no"`}, Edit{File: "main.go", Old: "1, 1", New: "2"})
		require.NoError(t, err)
		out, err := exec.Command(p).CombinedOutput()
		require.NoError(t, err)
		require.Equal(t, want, string(out))
	}
	now, err := os.ReadFile(main)
	require.NoError(t, err)
	require.Equal(t, src, string(now))

	for _, old := range []string{"1", "never"} {
		_, err = Build(t.Context(), tree, ".", "", t.TempDir(), "mutant", Edit{File: "main.go", Old: old, New: "2"})
		require.ErrorContains(t, err, "written anew")
	}
}
