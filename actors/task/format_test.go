package task

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

func formatOf(schema any) json.RawMessage {
	b, err := json.Marshal(map[string]any{"type": "json_schema", "json_schema": map[string]any{"name": "n", "schema": schema}})
	if err != nil {
		panic(err)
	}
	return b
}

// TestASchemaThatExplodesIsRefused: each definition refers to the next one twice.
func TestASchemaThatExplodesIsRefused(t *testing.T) {
	chain := func(levels int) any {
		defs := map[string]any{fmt.Sprint("d", levels): map[string]any{"type": "object"}}
		for i := range levels {
			ref := map[string]any{"$ref": fmt.Sprintf("#/$defs/d%d", i+1)}
			defs[fmt.Sprint("d", i)] = map[string]any{"allOf": []any{ref, ref}}
		}
		return map[string]any{"$ref": "#/$defs/d0", "$defs": defs}
	}
	_, _, err := CompileFormat(formatOf(chain(5)))
	require.NoError(t, err)
	_, _, err = CompileFormat(formatOf(chain(50)))
	require.Equal(t, fault.Invalid, fault.KindOf(err))
	require.ErrorContains(t, err, "expands")
}

func TestASchemaMayReferToItself(t *testing.T) {
	tree := map[string]any{"$ref": "#/$defs/node", "$defs": map[string]any{"node": map[string]any{"type": "object",
		"properties": map[string]any{"children": map[string]any{"type": "array", "items": map[string]any{"$ref": "#/$defs/node"}}}}}}
	_, s, err := CompileFormat(formatOf(tree))
	require.NoError(t, err)
	require.NotNil(t, s)
}

func FuzzCompileFormat(f *testing.F) {
	f.Add([]byte(formatOf(map[string]any{"type": "object"})))
	f.Add([]byte(`{"type":"json_schema","json_schema":{"schema":{"$ref":"#"}}}`))
	f.Add([]byte(`{"type":"json_schema","json_schema":{"schema":{"$ref":"#/a/0/~1","a":[{}]}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := CompileFormat(b); err != nil {
			require.Equal(t, fault.Invalid, fault.KindOf(err))
		}
	})
}
