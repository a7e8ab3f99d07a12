//go:build linux

package chaos

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestPowerLoss: what was synced is there after a power loss, what was not is what it was before.
func TestPowerLoss(t *testing.T) {
	if err := CanForget(); err != nil {
		t.Skip(err)
	}
	dir := filepath.Join(t.TempDir(), "cluster")
	d, err := NewForgetfulDisks(dir, t.TempDir(), 2)
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()); require.NoError(t, d.Close(), "twice") }()
	path := func(name string) string { return filepath.Join(dir, "node-2", name) }
	content := func(name string) string {
		b, err := os.ReadFile(path(name))
		require.NoError(t, err)
		return string(b)
	}
	change := func(name string, flags int, f func(f *os.File)) {
		file, err := os.OpenFile(path(name), os.O_RDWR|flags, 0o600)
		require.NoError(t, err)
		f(file)
		require.NoError(t, file.Close())
	}
	write := func(f *os.File, s string) {
		_, err := f.WriteString(s)
		require.NoError(t, err)
	}
	for _, name := range []string{"kept", "appended", "overwritten", "truncated", "grown", "emptied", "renamed", "removed", "mapped", "msynced"} {
		change(name, os.O_CREATE, func(f *os.File) { write(f, "synced"); require.NoError(t, f.Sync()) })
	}
	change("new", os.O_CREATE, func(f *os.File) { write(f, "never synced") })
	change("appended", os.O_APPEND, func(f *os.File) { write(f, " and not") })
	change("overwritten", 0, func(f *os.File) { write(f, "SYN"); write(f, "CED AND MORE") })
	change("truncated", 0, func(f *os.File) { require.NoError(t, f.Truncate(2)); require.NoError(t, f.Truncate(20)) })
	change("grown", 0, func(f *os.File) { write(f, "SYNCED and"); require.NoError(t, f.Truncate(5006)) })
	change("emptied", os.O_TRUNC, func(f *os.File) { write(f, "x") })
	change("renamed", 0, func(f *os.File) { write(f, "XXXXXX") })
	require.NoError(t, os.Rename(path("renamed"), path("other")))
	change("removed", 0, func(f *os.File) { write(f, "XXXXXX"); require.NoError(t, os.Remove(path("removed"))); write(f, "Y") })
	change("kept", 0, func(f *os.File) { write(f, "SYNCED twice"); require.NoError(t, unix.Fdatasync(int(f.Fd()))) })
	child := exec.Command(os.Args[0], "-test.run=^TestMap$")
	child.Env = append(os.Environ(), mapVar+"="+filepath.Dir(path("mapped")))
	out, err := child.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, "SYNCED AND MORE", content("overwritten"), "before")
	require.Equal(t, "MAPPED", content("mapped"), "before")

	files, err := d.Lose()
	require.NoError(t, err)
	require.NotZero(t, files)
	for name, want := range map[string]string{"kept": "SYNCED twice", "appended": "synced", "overwritten": "synced", "truncated": "sy" + string(make([]byte, 18)),
		"grown": "synced" + string(make([]byte, 5000)), "emptied": "", "other": "synced", "mapped": "synced", "msynced": "MAPPED", "new": ""} {
		require.Equal(t, want, content(name), name)
	}
	require.NoFileExists(t, path("removed"))
	change("kept", 0, func(f *os.File) { write(f, "lives"); require.NoError(t, f.Sync()) })
	files, err = d.Lose()
	require.NoError(t, err)
	require.Zero(t, files, "nothing was unsynced")
	require.Equal(t, "livesD twice", content("kept"))
}

const mapVar = "CHAOS_MAP_DIR"

// TestMap is the child of TestPowerLoss that writes through mappings: a page fault holds a whole thread without Go's
// knowledge, so the process that serves the file system must not have one.
func TestMap(t *testing.T) {
	dir := os.Getenv(mapVar)
	if dir == "" {
		t.Skip("is started by TestPowerLoss")
	}
	for _, name := range []string{"mapped", "msynced"} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
		require.NoError(t, err)
		b, err := unix.Mmap(int(f.Fd()), 0, 6, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		require.NoError(t, err)
		copy(b, "MAPPED")
		if name == "msynced" {
			require.NoError(t, unix.Msync(b, unix.MS_SYNC))
		}
		require.NoError(t, unix.Munmap(b))
		require.NoError(t, f.Close())
	}
}
