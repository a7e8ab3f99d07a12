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

func TestPlainHasNoSteps(t *testing.T) {
	field := fault.New(fault.Invalid, "task.validate", "model", "is %q", "m").WithRemedy("use another")
	gone := fault.New(fault.Unavailable, "infer.http", "", "%w", io.EOF).WithRemedy("start it")
	for want, err := range map[string]error{
		"EOF":                         io.EOF,
		`model is "m"`:                field,
		`line 3: model is "m"`:        fmt.Errorf("line 3: %w", field),
		`key: line 3: model is "m"`:   fault.New(fault.Unavailable, "bulk.feed", "key", "line 3: %w", field),
		"t1: no such task":            fault.New(fault.NotFound, "task", "t1", "no such task"),
		"--out: EOF":                  fault.New(fault.Invalid, "", "--out", "%w", io.EOF),
		"a.yaml: cannot be read: EOF": fault.New(fault.Invalid, "config", "a.yaml", "cannot be read: %w", io.EOF),
		"EOF, and t2: not found":      fmt.Errorf("%w, and %w", gone, &fault.Error{Op: "task", Key: "t2", Kind: fault.NotFound}),
		"model is \"m\"\nEOF":         errors.Join(field, gone),
		"as another node said it":     fmt.Errorf("as another node said it (start it)%w", hidden{gone}),
		"two EOF":                     &fault.Error{Op: "x", Err: fmt.Errorf("two %w", &fault.Error{Op: "y", Err: io.EOF})},
		"open /x: no such file":       fault.New(fault.Unavailable, "store.open", "open /x", "open /x: no such file"),
	} {
		require.Equal(t, want, fault.Plain(err))
	}
}

// hidden says nothing of what is in it.
type hidden struct{ error }

func (hidden) Error() string   { return "" }
func (h hidden) Unwrap() error { return h.error }

func TestSentencesHaveNoSteps(t *testing.T) {
	field := fault.New(fault.Invalid, "task.validate", "model", "is %q, which no engine here serves", "m").WithRemedy("use one of: a, b")
	for want, err := range map[string]error{
		"EOF.":                      io.EOF,
		"Only a field.":             errors.New("only a field"),
		"task_id is taken? Really!": errors.New("task_id is taken? Really!"),
		`'model' is "m", which no engine here serves. Use one of: a, b.`:         field,
		`Line 3: 'model' is "m", which no engine here serves. Use one of: a, b.`: fault.New(fault.Unavailable, "bulk.feed", "key", "line 3: %w", field),
		`Over 'model' is "m", which no engine here serves. Leave it out.`:        fmt.Errorf("over %w", fault.New(fault.Unknown, "api.x", "", "%w", field).WithRemedy("leave it out")),
		"No such file: file-x.":    fault.New(fault.NotFound, "file", "file-x", "no such file"),
		`No such batch: "b".`:      fault.New(fault.NotFound, "bulk.batch", "b", "no such batch: %q", "b"),
		"'bytes' is 7: at most 5.": fault.New(fault.TooLarge, "file.upload", "bytes", "is 7: at most 5"),
		"The node is stopping.":    fault.New(fault.Unavailable, "node.complete", "some id", "the node is stopping"),
		"No space.":                &fault.Error{Op: "store.write", Kind: fault.NoSpace},
	} {
		require.Equal(t, want, fault.Sentence(err))
	}
}
