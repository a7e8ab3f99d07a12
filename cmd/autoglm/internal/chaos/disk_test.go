//go:build linux

package chaos

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSmallDisksFill(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	d, err := NewSmallDisks(filepath.Join(t.TempDir(), "cluster"), 2)
	if err != nil {
		t.Skipf("this machine mounts nothing for us: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, d.Close()); require.NoError(t, d.Close()) })
	require.NoError(t, d.Fill(0, 64<<10))
	big := make([]byte, 1<<20)
	require.ErrorIs(t, os.WriteFile(filepath.Join(d.paths[0], "x"), big, 0o600), syscall.ENOSPC)
	require.NoError(t, os.WriteFile(filepath.Join(d.paths[1], "x"), big, 0o600), "the other disk has room")
	require.NoError(t, d.Free(0))
	require.NoError(t, d.Free(0))
	require.NoError(t, os.WriteFile(filepath.Join(d.paths[0], "x"), big, 0o600))
}
