package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
	"github.com/open-autoglm/autoglm/node/api/wire"
)

// Numbers that lack some shards do not look like all of them, neither to a person nor to a script.
func TestStatusOfAPart(t *testing.T) {
	whole := wire.Status{Ready: true, Node: "n", Shards: 16, ShardsOwned: 6, Tasks: map[string]int64{"completed": 7}}
	part, away := whole, whole
	part.Partial = true
	away.Ready, away.Reason, away.Partial = false, "no quorum", true
	for _, v := range []struct {
		name  string
		st    wire.Status
		ready bool
		shows string
		code  int
	}{
		{"whole", whole, false, "leads 6 of 16 shards", cli.ExitOK},
		{"whole, in numbers", whole, false, "       7 ", cli.ExitOK},
		{"a part", part, false, "≥ 7", cli.ExitUnreachable},
		{"a part of a node that takes work", part, true, "their tasks are not in these numbers", cli.ExitOK},
		{"not ready", away, true, "not ready: no quorum", cli.ExitUnreachable},
		{"not ready, only shown", away, false, "not ready: no quorum", cli.ExitUnreachable},
	} {
		t.Run(v.name, func(t *testing.T) {
			var out strings.Builder
			require.NoError(t, writeStatus(&out, &v.st))
			require.Contains(t, out.String(), v.shows)
			require.NotContains(t, out.String(), "open", "a shard that another node leads is not shut")
			require.Equal(t, v.code, cli.Code(statusTrouble(&v.st, v.ready)))
		})
	}
}
