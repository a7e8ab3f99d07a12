package members

import (
	"bytes"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGossipLogWarnsOfTroubleOnly(t *testing.T) {
	for _, v := range []struct {
		line  string
		warns bool
	}{
		{"[WARN] memberlist: Refuting a suspect message (from: node-2)", false},
		{"[WARN] memberlist: Refuting a dead message (from: node-2)", false},
		{"[WARN] memberlist: Got ping for unexpected node", true},
		{"[ERR] memberlist: Push/Pull with node-2 failed: timeout", true},
		{"[DEBUG] memberlist: Stream connection from=127.0.0.1", false},
	} {
		var out bytes.Buffer
		g := newGossipLog(slog.New(slog.NewTextHandler(&out, nil)))
		n, err := g.Write([]byte(v.line + "\n"))
		require.NoError(t, err)
		require.Equal(t, len(v.line)+1, n)
		require.Equal(t, v.warns, bytes.Contains(out.Bytes(), []byte("level=WARN")), v.line)
		require.Equal(t, v.warns, out.Len() > 0, v.line)
	}
}
