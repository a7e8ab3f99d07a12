package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAFullDisk: on a small disk of its own, new tasks are refused with 507 and a
// remedy before the store can fail, reads go on, and all is well again when there is room.
func TestAFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a tmpfs needs root")
	}
	c := testConfig(t)
	disk := t.TempDir()
	require.NoError(t, syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=400m"))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(disk, 0)) })
	c.DataDir = filepath.Join(disk, "data")
	c.DiskReserve = 128 << 20
	n := boot(t, c)
	submit := func(id string) int {
		return call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": id, "prompt": "p"}, nil).StatusCode
	}
	require.Equal(t, http.StatusCreated, submit("before"))

	ballast := filepath.Join(disk, "ballast")
	fill(t, disk, ballast, 100<<20) // below the reserve, above half of it
	require.Eventually(t, func() bool { return submit(fmt.Sprint("x", time.Now().UnixNano())) == http.StatusInsufficientStorage }, 10*time.Second, 20*time.Millisecond)
	var problem struct {
		Kind   string `json:"kind"`
		Remedy string `json:"remedy"`
	}
	res := call(t, n, "POST", "/v1/tasks", map[string]any{"task_id": "refused", "prompt": "p"}, &problem)
	require.Equal(t, http.StatusInsufficientStorage, res.StatusCode)
	require.Equal(t, "no_space", problem.Kind)
	require.NotEmpty(t, problem.Remedy)
	var got taskView
	call(t, n, "GET", "/v1/tasks/before?wait=20s", nil, &got)
	require.Equal(t, "completed", got.State, "what was accepted goes on")
	res = call(t, n, "GET", "/v1/tasks/refused", nil, nil)
	require.Equal(t, http.StatusNotFound, res.StatusCode, "a refusal leaves nothing behind")
	var status map[string]any
	call(t, n, "GET", "/v1/status", nil, &status)
	b, err := json.Marshal(status)
	require.NoError(t, err)
	require.Contains(t, string(b), "disk")

	require.NoError(t, os.Remove(ballast))
	require.Eventually(t, func() bool { return submit("after") < 300 }, 10*time.Second, 20*time.Millisecond)
	call(t, n, "GET", "/v1/tasks/after?wait=20s", nil, &got)
	require.Equal(t, "completed", got.State)
	halt(t, n)
}

// fill leaves so many bytes free on the disk of dir.
func fill(t *testing.T, dir, file string, leave uint64) {
	var st syscall.Statfs_t
	require.NoError(t, syscall.Statfs(dir, &st))
	free := st.Bavail * uint64(st.Bsize)
	require.Greater(t, free, leave)
	f, err := os.Create(file)
	require.NoError(t, err)
	defer f.Close()
	require.NoError(t, syscall.Fallocate(int(f.Fd()), 0, 0, int64(free-leave)))
}
