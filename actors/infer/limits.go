package infer

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Limits bound what one child may use. Zero fields bound nothing.
type Limits struct {
	CPU      float64 // processors
	Memory   uint64  // bytes
	IOWeight int     // 1 to 10000; everybody's is 100
	Nice     int     // 1 to 19
}

// Bounds of Limits.
const (
	CPUMin, CPUMax = 0.01, 4096
	MemoryMin      = 16 << 20 // less than a program needs to say what it lacks
	IOWeightMax    = 10_000
	NiceMax        = 19
)

// Validate names the field that is out of bounds, and the remedy.
func (l Limits) Validate() error {
	bad := func(field string, value any, format string, a ...any) error {
		return fault.New(fault.Invalid, "infer.limits", field, "is %v", value).WithRemedy(format, a...)
	}
	switch {
	case math.IsNaN(l.CPU) || l.CPU != 0 && (l.CPU < CPUMin || l.CPU > CPUMax):
		return bad("cpu", l.CPU, "use %v to %v processors, or 0 for no limit", CPUMin, CPUMax)
	case l.Memory != 0 && l.Memory < MemoryMin || l.Memory > math.MaxInt64:
		return bad("memory", l.Memory, "use at least %dMiB, or 0 for no limit", MemoryMin>>20)
	case l.IOWeight < 0 || l.IOWeight > IOWeightMax:
		return bad("io_weight", l.IOWeight, "use 1 to %d, where everybody else has 100, or 0 to leave it", IOWeightMax)
	case l.Nice < 0 || l.Nice > NiceMax:
		return bad("nice", l.Nice, "use 1 to %d, or 0 to leave it", NiceMax)
	}
	return nil
}

// grounds are what this process may make of limits.
type grounds struct {
	root        string   // cgroup v2 folder below which children get theirs; empty: there is none
	why         string   // it is empty
	controllers []string // that groups below root have
}

func (g grounds) has(controller string) bool { return slices.Contains(g.controllers, controller) }

// plan is how the limits of one child are kept: what to write into which file of its group, and what to ask of the kernel for its process.
type plan struct {
	group  bool
	files  []groupFile
	nice   int
	data   uint64   // RLIMIT_DATA in bytes; 0: none
	kept   []string // what is in force, and by which means
	missed []string // what is not, and why
}

type groupFile struct {
	name, value string
	optional    string // what is said where the kernel has no such file; empty: it must be there
}

// cpuPeriod is what cpu.max counts in, in µs: the kernel's default.
const cpuPeriod = 100_000

// planLimits decides how to keep limits on some grounds.
func planLimits(l Limits, g grounds) plan {
	if l == (Limits{}) {
		return plan{}
	}
	p := plan{group: g.root != "", nice: l.Nice}
	none := g.why
	lacks := func(controller string) string {
		if p.group {
			return "its cgroup has no " + controller + " controller"
		}
		return none
	}
	if l.CPU > 0 {
		text := "cpu " + strconv.FormatFloat(l.CPU, 'g', -1, 64)
		if p.group && g.has("cpu") {
			quota := max(int64(math.Round(l.CPU*cpuPeriod)), 1000) // the kernel's least
			p.files = append(p.files, groupFile{"cpu.max", fmt.Sprintf("%d %d", quota, cpuPeriod), ""})
			p.kept = append(p.kept, text+" by cgroup")
		} else {
			p.missed = append(p.missed, text+": "+lacks("cpu"))
		}
	}
	if l.Memory > 0 {
		text := "memory " + bytesText(l.Memory)
		if p.group && g.has("memory") {
			p.files = append(p.files,
				groupFile{"memory.max", strconv.FormatUint(l.Memory, 10), ""},
				groupFile{"memory.swap.max", "0", "memory: it may be swapped beyond that, for the kernel does not count swap"},
				groupFile{"memory.oom.group", "1", "memory: over it one of its processes is killed, not all"})
			p.kept = append(p.kept, text+" by cgroup")
		} else {
			p.data = l.Memory
			p.kept = append(p.kept, text+" of each process' own data by rlimit, for "+lacks("memory"))
		}
	}
	if l.IOWeight > 0 {
		text := fmt.Sprintf("io_weight %d", l.IOWeight)
		if p.group && g.has("io") {
			p.files = append(p.files, groupFile{"io.weight", fmt.Sprintf("default %d", l.IOWeight), text + ": the kernel weighs no IO here"})
			p.kept = append(p.kept, text+" by cgroup")
		} else {
			p.missed = append(p.missed, text+": "+lacks("io"))
		}
	}
	if l.Nice > 0 {
		p.kept = append(p.kept, fmt.Sprintf("nice %d", l.Nice))
	}
	return p
}

// lose takes a limit from what is kept that could not be put in force.
func (p *plan) lose(f groupFile) {
	about, _, _ := strings.Cut(f.optional, ":")
	p.kept = slices.DeleteFunc(p.kept, func(k string) bool { return strings.HasPrefix(k, about+" by") })
	p.missed = append(p.missed, f.optional)
}

// String is what is in force, and what is not: of a log line and of a status.
func (p plan) String() string {
	s := strings.Join(p.kept, ", ")
	if len(p.missed) == 0 {
		return s
	}
	if s != "" {
		s += "; "
	}
	return s + "not kept: " + strings.Join(p.missed, ", ")
}

// bytesText writes the largest binary unit that divides n.
func bytesText(n uint64) string {
	for i, unit := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if u := uint64(1) << (40 - 10*i); n%u == 0 {
			return strconv.FormatUint(n/u, 10) + unit
		}
	}
	return strconv.FormatUint(n, 10)
}

// childScore is the oom_score_adj of children, at least: where memory ends the kernel takes one of them, and not the node that starts it again.
const childScore = 500

// ending is what is known of a process that ended by itself.
type ending struct {
	killed  bool   // by a SIGKILL that this process did not send
	crashed bool   // by a fault of its own, as a program does that has not looked at what malloc gave it
	ooms    int    // times that the kernel killed for memory in its group
	words   string // what it said of memory
}

// wantOfMemory says that a child ended for want of memory, and what to do; empty where nothing says so.
func wantOfMemory(e ending, l Limits, p plan) string {
	switch {
	case e.ooms > 0:
		return fmt.Sprintf("the kernel killed it over limits.memory = %s: raise that, or lower its slots or ctx", bytesText(l.Memory))
	case e.killed:
		return "not by this node: where the kernel's log says that memory ran out, lower its slots, ctx or limits.memory"
	case p.data > 0 && saysMemory(e.words):
		return fmt.Sprintf("it wanted more than limits.memory = %s: raise that, or lower its slots or ctx", bytesText(l.Memory))
	case p.data > 0 && e.crashed:
		return fmt.Sprintf("maybe for want of more than limits.memory = %s: try it with a higher one", bytesText(l.Memory))
	}
	return ""
}

func saysMemory(line string) bool {
	line = strings.ToLower(line)
	return slices.ContainsFunc(memoryWords, func(w string) bool { return strings.Contains(line, w) })
}

// memoryWords are what programs say whose malloc failed.
var memoryWords = []string{"out of memory", "cannot allocate memory", "bad_alloc", "memoryerror", "failed to allocate"}
