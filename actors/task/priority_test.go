package task

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// A word is read as its number and written as that, so that nodes of the version before read what is kept and sent.
func TestPriority(t *testing.T) {
	for word, n := range map[string]Priority{"high": 2, "normal": 5, "low": 8, "0": 0, "9": 9} {
		p, err := ParsePriority(word)
		require.NoError(t, err, word)
		require.Equal(t, n, p, word)
	}
	for in, want := range map[string]string{"high": "2", "normal": "5", "low": "8"} {
		var p Priority
		require.NoError(t, json.Unmarshal([]byte(`"`+in+`"`), &p))
		b, err := json.Marshal(p)
		require.NoError(t, err)
		require.Equal(t, want, string(b), in)
	}
	var p Priority
	require.NoError(t, json.Unmarshal([]byte("12"), &p), "a number that is none is for Check to refuse, with the others")
	for given, err := range map[string]error{
		`is 12: `:       p.Check(),
		`is "urgent": `: json.Unmarshal([]byte(`"urgent"`), &p),
		`is "5": `:      json.Unmarshal([]byte(`"5"`), &p),
		`is 1.5: `:      json.Unmarshal([]byte(`1.5`), &p),
		`is [1]: `:      json.Unmarshal([]byte(`[1]`), &p),
	} {
		require.EqualError(t, err, fault.New(fault.Invalid, "task.priority", "priority", "%s%s", given, priorityForms).Error())
	}
	for _, s := range []string{"HIGH", "10", "-1", ""} {
		_, err := ParsePriority(s)
		require.ErrorContains(t, err, "use high, normal or low, or a number from 0 (first) to 9 (last)", s)
	}
	require.Less(t, High, Normal)
	require.Less(t, Normal, Low, "the lower number runs first")
}
