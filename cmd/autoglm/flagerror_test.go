package main

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
)

// What is wrong with a flag is said without a word of Go's parsers, and is a mistake of who typed it.
func TestFlagErrors(t *testing.T) {
	for flag, want := range map[[2]string]string{
		{"--retry", "many"}:                 `invalid argument "many" for "--retry" flag: use a whole number`,
		{"--retry", "99999999999999999999"}: `invalid argument "99999999999999999999" for "--retry" flag: the number is too large`,
		{"--timeout", "soon"}:               `invalid argument "soon" for "--timeout" flag: use a time like 90s or 1h30m`,
		{"--priority", "urgent"}:            `invalid argument "urgent" for "--priority" flag: priority is "urgent": use high, normal or low, or a number from 0 (first) to 9 (last)`,
	} {
		app := cli.New("test")
		app.Out, app.Err = io.Discard, io.Discard
		root := newRoot(app)
		root.SetArgs([]string{"submit", "-p", "x", flag[0], flag[1]})
		err := root.ExecuteContext(t.Context())
		require.EqualError(t, err, want)
		require.Equal(t, cli.ExitUsage, cli.Code(err))
	}
}
