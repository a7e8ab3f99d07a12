package node

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLayers: imports go only to the right: cmd → node → actors → cluster → persistence.
func TestLayers(t *testing.T) {
	rank := map[string]int{"persistence": 0, "cluster": 1, "actors": 2, "node": 3, "cmd": 4}
	const module = "github.com/open-autoglm/autoglm/"
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").CombinedOutput()
	require.NoError(t, err, "%s", out)
	seen := 0
	for line := range strings.Lines(string(out)) {
		from, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		layer, _, _ := strings.Cut(strings.TrimPrefix(from, module), "/")
		for imp := range strings.FieldsSeq(imports) {
			rest, ours := strings.CutPrefix(imp, module)
			if !ours {
				continue
			}
			below, _, _ := strings.Cut(rest, "/")
			_, known := rank[below]
			require.True(t, known, "%s is in no layer: add it to the table or move it", imp)
			require.LessOrEqual(t, rank[below], rank[layer], "%s imports %s, which is above it", from, imp)
			seen++
		}
	}
	require.Greater(t, seen, 20, "go list found nothing to check")
}
