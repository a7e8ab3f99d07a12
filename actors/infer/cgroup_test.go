package infer

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

func TestOwnGroup(t *testing.T) {
	const host = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
	const hybrid = "31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n32 23 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	for _, tc := range []struct{ mounts, own, want string }{
		{host, "0::/system.slice/autoglm.service\n", "/sys/fs/cgroup/system.slice/autoglm.service"},
		{hybrid, "4:memory:/x\n0::/\n", "/sys/fs/cgroup/unified"},
		{"40 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "0::/docker/abc/node\n", "/sys/fs/cgroup/node"}, // without a namespace
		{"40 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "0::/docker/abcd\n", ""},
		{"40 23 0:26 / /mnt/my\\040groups rw - cgroup2 cgroup rw\n", "0::/a\n", "/mnt/my groups/a"},
		{"31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", "0::/a\n", ""},
		{host, "4:memory:/x\n", ""},
		{"", "", ""},
	} {
		require.Equal(t, tc.want, ownGroup(tc.mounts, tc.own), tc.mounts+tc.own)
	}
}

func TestAGroupThatIsNotOursIsNotTaken(t *testing.T) {
	for want, files := range map[string]map[string]string{
		"root cgroup, which is not delegated":   {"cgroup.procs": "7\n"},
		"its cgroup cannot be read":             {"cgroup.type": "domain\n"},
		"not alone in its cgroup":               {"cgroup.type": "domain\n", "cgroup.procs": "7\n8\n"},
		"another node has its cgroup":           {"cgroup.type": "domain\n", "cgroup.procs": "7\n", nodeGroup + "/cgroup.procs": "9\n"},
		"no cgroup is delegated to the node (n": {"cgroup.type": "domain\n", "cgroup.procs": "7\n"}, // nothing appears in a folder that is no cgroup
	} {
		dir := t.TempDir()
		for name, text := range files {
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700))
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		}
		g := takeGroup(dir, 7)
		require.Empty(t, g.root)
		require.Contains(t, g.why, want)
	}
}

func TestAGroupThatCannotHaveItsLimitsIsRemoved(t *testing.T) {
	dir := t.TempDir()
	p := planLimits(Limits{CPU: 1}, grounds{root: dir, controllers: []string{"cpu"}})
	_, err := newChildGroup(dir, "a/b-0", &p)
	require.ErrorContains(t, err, "cpu.max")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left)

	p = planLimits(Limits{IOWeight: 5}, grounds{root: dir, controllers: []string{"io"}})
	g, err := newChildGroup(dir, "a/b-0", &p)
	require.NoError(t, err)
	g.started()
	require.Equal(t, "not kept: io_weight 5: the kernel weighs no IO here", p.String())
	require.Zero(t, g.ooms())
	require.NoError(t, os.WriteFile(filepath.Join(g.dir, "memory.events"), []byte("low 0\noom 3\noom_kill 2\noom_group_kill 1\n"), 0o600))
	require.Equal(t, 2, g.ooms())
}

// buildHungry builds the server that eats.
func buildHungry(t *testing.T) *Command {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hungry")
	build := exec.Command("go", "build", "-o", path, "./testdata/hungry")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	c, err := ParseCommand([]string{path, "--listen", "{{.Host}}:{{.Port}}"}, nil)
	require.NoError(t, err)
	return c
}

// TestALimitWithoutCgroups: a child that wants more than its memory ends alone, its error says so, and it is started again.
func TestALimitWithoutCgroups(t *testing.T) {
	cmd := buildHungry(t)
	x := newPoolTest(t, "ok", func(o *PoolOptions) {
		o.Command, o.ModelID, o.Limits = cmd, "m", Limits{CPU: 1, Memory: 256 << 20, Nice: 3}
		o.grounds = func() grounds { return grounds{why: "this is a test"} }
	})
	x.Start()
	s := x.until(ChildReady)
	require.Equal(t, "memory 256MiB of each process' own data by rlimit, for this is a test, nice 3; not kept: cpu 1: this is a test", s.Limits)
	nice, err := unix.Getpriority(unix.PRIO_PROCESS, s.PID)
	require.NoError(t, err)
	require.Equal(t, 20-3, nice, "as the system call counts it")
	score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", s.PID))
	require.NoError(t, err)
	require.Equal(t, "500\n", string(score))
	_, err = x.Engines()[0].Do(t.Context(), ask("x"))
	require.NoError(t, err)
	_, err = x.Engines()[0].Do(t.Context(), ask("eat"))
	require.Equal(t, fault.Unavailable, fault.KindOf(err))
	require.Contains(t, x.until(ChildBackingOff).LastExit, "it wanted more than limits.memory = 256MiB: raise that, or lower its slots or ctx")
	x.until(ChildReady)
	_, err = x.Engines()[0].Do(t.Context(), ask("x"))
	require.NoError(t, err)
}

// TestChildrenInCgroups: a node whose cgroup is delegated moves down in it, starts each child in a group of its own, and ends with that whoever left
// the child's process group.
func TestChildrenInCgroups(t *testing.T) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	own, err := os.ReadFile("/proc/self/cgroup")
	require.NoError(t, err)
	root := ownGroup(string(mounts), string(own))
	if root == "" {
		t.Skip("there is no cgroup v2 here")
	}
	group := filepath.Join(root, fmt.Sprintf("autoglm-test-%d", os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Skipf("no cgroup is delegated: %v", err)
	}
	defer func() { require.NoError(t, os.Remove(group)) }()
	defer func() { require.NoError(t, (&childGroup{dir: filepath.Join(group, nodeGroup)}).remove()) }()
	stale := filepath.Join(group, groupPrefix+"old-0.1")
	require.NoError(t, os.Mkdir(stale, 0o755))
	fd, err := os.Open(group)
	require.NoError(t, err)
	defer fd.Close()

	dir := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	node := exec.Command(self)
	node.Env = append(os.Environ(), fakeEnv+"=cgroup-node", fakeDir+"="+dir, "TMPDIR="+dir)
	node.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(fd.Fd())}
	node.Stderr = os.Stderr
	stop, err := node.StdinPipe()
	require.NoError(t, err)
	out, err := node.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, node.Start())
	said := bufio.NewScanner(out)
	line := func() string { require.True(t, said.Scan()); return said.Text() }
	require.True(t, strings.HasSuffix(line(), "/"+nodeGroup), "the node has moved: %s", said.Text())
	require.Regexp(t, `/autoglm-embedded-0\.1$`, line(), "the child is in its own")
	require.Contains(t, line(), "memory 8GiB")
	require.NoDirExists(t, stale)
	require.NoError(t, stop.Close())
	require.Equal(t, "stopped", line())
	require.NoError(t, node.Wait())
	allGone(t, dir)
	left, err := filepath.Glob(filepath.Join(group, groupPrefix+"embedded*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// fakeCgroupNode is a node that tells of its cgroup and its child's, until its standard input ends.
func fakeCgroupNode() {
	o := fakeOptions(os.Getenv(fakeDir), "runaways")
	o.Log = slog.New(slog.DiscardHandler)
	o.Command = fakeCommand("--listen", "{{.Host}}:{{.Port}}")
	o.Limits = Limits{Memory: 8 << 30, Nice: 1}
	if len(delegated().controllers) == 0 { // then it is by rlimit, which a binary with the race detector does not survive
		o.Limits.Memory = 1 << 46
	}
	p, err := NewPool(o)
	if err != nil {
		panic(err)
	}
	p.Start()
	if err := p.WaitReady(context.Background(), 1); err != nil {
		panic(err)
	}
	for _, pid := range []int{os.Getpid(), p.Status()[0].PID} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil {
			panic(err)
		}
		for line := range strings.Lines(string(b)) {
			if g, ok := strings.CutPrefix(line, "0::"); ok {
				fmt.Print(g)
			}
		}
	}
	fmt.Println(strings.Replace(p.Status()[0].Limits, "64TiB", "8GiB", 1))
	io.Copy(io.Discard, os.Stdin)
	p.Stop()
	fmt.Println("stopped")
}
