package infer

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLimitsArePlanned(t *testing.T) {
	all := Limits{CPU: 2, Memory: 8 << 30, IOWeight: 50, Nice: 5}
	full := grounds{root: "/g", controllers: []string{"cpu", "memory", "io"}}
	none := grounds{why: "no cgroup is delegated"}
	for name, tc := range map[string]struct {
		l     Limits
		g     grounds
		files string
		nice  int
		data  uint64
		want  string
	}{
		"nothing to keep":  {Limits{}, full, "", 0, 0, ""},
		"all of it":        {all, full, "cpu.max=200000 100000 memory.max=8589934592 memory.swap.max=0 memory.oom.group=1 io.weight=default 50", 5, 0, "cpu 2 by cgroup, memory 8GiB by cgroup, io_weight 50 by cgroup, nice 5"},
		"a part of a CPU":  {Limits{CPU: 0.25}, full, "cpu.max=25000 100000", 0, 0, "cpu 0.25 by cgroup"},
		"the kernel's min": {Limits{CPU: 0.01}, full, "cpu.max=1000 100000", 0, 0, "cpu 0.01 by cgroup"},
		"no cgroup": {all, none, "", 5, 8 << 30,
			"memory 8GiB of each process' own data by rlimit, for no cgroup is delegated, nice 5; not kept: cpu 2: no cgroup is delegated, io_weight 50: no cgroup is delegated"},
		"memory only": {all, grounds{root: "/g", controllers: []string{"memory"}}, "memory.max=8589934592 memory.swap.max=0 memory.oom.group=1", 5, 0,
			"memory 8GiB by cgroup, nice 5; not kept: cpu 2: its cgroup has no cpu controller, io_weight 50: its cgroup has no io controller"},
		"no controllers": {Limits{CPU: 1, Memory: 100}, grounds{root: "/g"}, "", 0, 100,
			"memory 100 of each process' own data by rlimit, for its cgroup has no memory controller; not kept: cpu 1: its cgroup has no cpu controller"},
		"nice alone": {Limits{Nice: 19}, none, "", 19, 0, "nice 19"},
	} {
		p := planLimits(tc.l, tc.g)
		var files []string
		for _, f := range p.files {
			files = append(files, f.name+"="+f.value)
		}
		require.Equal(t, tc.files, strings.Join(files, " "), name)
		require.Equal(t, tc.nice, p.nice, name)
		require.Equal(t, tc.data, p.data, name)
		require.Equal(t, tc.want, p.String(), name)
		require.Equal(t, tc.l != Limits{} && tc.g.root != "", p.group, name)
	}
	p := planLimits(all, full)
	p.lose(p.files[4])
	require.Equal(t, "cpu 2 by cgroup, memory 8GiB by cgroup, nice 5; not kept: io_weight 50: the kernel weighs no IO here", p.String())
	p = planLimits(all, full)
	p.lose(p.files[2])
	require.Equal(t, "cpu 2 by cgroup, memory 8GiB by cgroup, io_weight 50 by cgroup, nice 5; not kept: memory: it may be swapped beyond that, for the kernel does not count swap", p.String())
}

func TestLimitsAreChecked(t *testing.T) {
	for _, l := range []Limits{{}, {CPU: 0.01, Memory: 16 << 20, IOWeight: 1, Nice: 19}, {CPU: CPUMax, IOWeight: 10_000}} {
		require.NoError(t, l.Validate())
	}
	for want, l := range map[string]Limits{
		"cpu is 0.001 (use 0.01": {CPU: 0.001}, "cpu is -1 ": {CPU: -1}, "cpu is NaN": {CPU: math.NaN()}, "cpu is +Inf": {CPU: math.Inf(1)},
		"memory is 8 (use at least 16MiB": {Memory: 8}, "memory is 18446744073709551615": {Memory: math.MaxUint64},
		"io_weight is 10001": {IOWeight: 10_001}, "io_weight is -1": {IOWeight: -1}, "nice is -5 (use 1 to 19": {Nice: -5}, "nice is 20": {Nice: 20},
	} {
		err := l.Validate()
		require.Error(t, err, want)
		require.Contains(t, strings.ReplaceAll(err.Error(), ": is", " is"), want)
	}
}

func TestWantOfMemoryIsTold(t *testing.T) {
	l := Limits{Memory: 1 << 30}
	group, rlimit := plan{group: true}, plan{data: 1 << 30}
	for name, tc := range map[string]struct {
		e    ending
		p    plan
		want string
	}{
		"by the group's limit":     {ending{killed: true, ooms: 1}, group, "over limits.memory = 1GiB: raise that"},
		"a part of it":             {ending{ooms: 1}, group, "over limits.memory = 1GiB"},
		"by somebody":              {ending{killed: true}, group, "not by this node: where the kernel's log says that memory ran out"},
		"malloc failed":            {ending{words: "terminate called\nwhat(): std::bad_alloc"}, rlimit, "it wanted more than limits.memory = 1GiB"},
		"Go's":                     {ending{words: "fatal error: runtime: out of memory"}, rlimit, "it wanted more"},
		"of a GPU, without limits": {ending{words: "CUDA error: out of memory"}, plan{}, ""},
		"a fault under an rlimit":  {ending{crashed: true}, rlimit, "maybe for want of more than limits.memory = 1GiB"},
		"a fault":                  {ending{crashed: true}, group, ""},
		"a crash":                  {ending{words: "segmentation fault"}, rlimit, ""},
	} {
		got := wantOfMemory(tc.e, l, tc.p)
		if tc.want == "" {
			require.Empty(t, got, name)
		} else {
			require.Contains(t, got, tc.want, name)
		}
	}
}
