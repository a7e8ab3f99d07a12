package fault_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestBareLeavesRemediesOut(t *testing.T) {
	inner := fault.New(fault.Corrupt, "store.open", "d", "bad").WithRemedy("restore a backup")
	for want, err := range map[string]error{
		"EOF":                           io.EOF,
		"store.open d: bad":             inner,
		"node.start: store.open d: bad": fault.New(fault.Corrupt, "node.start", "", "%w", inner).WithRemedy("read the log"),
		"over store.open d: bad":        fmt.Errorf("over %w", inner),
		"two: EOF":                      &fault.Error{Op: "two", Err: errors.New("EOF")},
	} {
		require.Equal(t, want, fault.Bare(err))
	}
}
