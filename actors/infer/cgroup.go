package infer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	nodeGroup    = "autoglm-node" // where this process goes, so that its group may have others below it
	groupPrefix  = "autoglm-"     // of its children's
	groupEnds    = 200            // looks at a killed group, until nobody is in it
	groupLook    = 10 * time.Millisecond
	cgroup2Magic = "cgroup2"
)

// wanted are the controllers that limits need.
var wanted = []string{"cpu", "memory", "io"}

// delegated is what the first limit of this process found: it moves into a group of its own for it, once.
var delegated = sync.OnceValue(func() grounds {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return grounds{why: "there is no cgroup v2 here"}
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return grounds{why: "there is no cgroup v2 here"}
	}
	dir := ownGroup(string(mounts), string(own))
	if dir == "" {
		return grounds{why: "there is no cgroup v2 here"}
	}
	return takeGroup(dir, os.Getpid())
})

// ownGroup is the folder of this process' cgroup, from /proc/self/mountinfo and /proc/self/cgroup; empty where there is no cgroup v2.
func ownGroup(mounts, own string) string {
	path := ""
	for line := range strings.Lines(own) {
		if p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			path = p
		}
	}
	for line := range strings.Lines(mounts) {
		front, back, _ := strings.Cut(line, " - ")
		f := strings.Fields(front) // id parent device root mountpoint …
		if path == "" || len(f) < 5 || !strings.HasPrefix(back, cgroup2Magic+" ") {
			continue
		}
		below, ok := strings.CutPrefix(path+"/", strings.TrimSuffix(f[3], "/")+"/")
		if ok {
			return filepath.Join(strings.ReplaceAll(f[4], `\040`, " "), below)
		}
	}
	return ""
}

// takeGroup makes a group ready for others below it: nobody may be in it then, so this process moves one down. It does so only where the group is
// this process' own.
func takeGroup(dir string, pid int) grounds {
	no := func(format string, a ...any) grounds { return grounds{why: fmt.Sprintf(format, a...)} }
	if _, err := os.Stat(filepath.Join(dir, "cgroup.type")); err != nil {
		return no("the node is in the machine's root cgroup, which is not delegated")
	}
	procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return no("its cgroup cannot be read: %v", errors.Unwrap(err))
	}
	if alone := strings.TrimSpace(string(procs)); alone != strconv.Itoa(pid) {
		return no("the node is not alone in its cgroup")
	}
	leaf := filepath.Join(dir, nodeGroup)
	if others, _ := os.ReadFile(filepath.Join(leaf, "cgroup.procs")); len(others) > 0 {
		return no("another node has its cgroup")
	}
	if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return no("no cgroup is delegated to the node (%v)", errors.Unwrap(err))
	}
	if err := writeFile(leaf, "cgroup.procs", strconv.Itoa(pid)); err != nil {
		_ = os.Remove(leaf)
		return no("no cgroup is delegated to the node (%v)", errors.Unwrap(err))
	}
	left, _ := filepath.Glob(filepath.Join(dir, groupPrefix+"*"))
	for _, old := range left { // of a node that was killed, with what its children left
		if old != leaf {
			_ = (&childGroup{dir: old}).remove()
		}
	}
	g := grounds{root: dir}
	for _, c := range wanted { // one by one: each may be missing
		_ = writeFile(dir, "cgroup.subtree_control", "+"+c)
	}
	has, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	g.controllers = strings.Fields(string(has))
	return g
}

// childGroup is the cgroup of one process of a child.
type childGroup struct {
	dir  string
	open *os.File // while the process is started
}

// groups counts them: each process has a new one, so that its events are its own.
var groups atomic.Int64

// newChildGroup makes it, with its limits; what cannot be kept is told in the plan.
func newChildGroup(root, name string, p *plan) (*childGroup, error) {
	g := &childGroup{dir: filepath.Join(root, fmt.Sprintf("%s%s.%d", groupPrefix, strings.ReplaceAll(name, "/", "_"), groups.Add(1)))}
	err := os.Mkdir(g.dir, 0o755)
	if err != nil {
		return nil, err
	}
	for _, f := range p.files {
		err := writeFile(g.dir, f.name, f.value)
		if errors.Is(err, fs.ErrNotExist) && f.optional != "" {
			p.lose(f)
			continue
		}
		if err != nil {
			return nil, errors.Join(err, g.remove())
		}
	}
	if g.open, err = os.Open(g.dir); err != nil {
		return nil, errors.Join(err, g.remove())
	}
	return g, nil
}

// started is called once the process was, or could not be, started.
func (g *childGroup) started() { _ = g.open.Close() }

// add moves a process into the group that could not be started in it.
func (g *childGroup) add(pid int) error { return writeFile(g.dir, "cgroup.procs", strconv.Itoa(pid)) }

// ooms is how often the kernel killed in it for memory.
func (g *childGroup) ooms() int {
	b, _ := os.ReadFile(filepath.Join(g.dir, "memory.events"))
	for line := range strings.Lines(string(b)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			v, _ := strconv.Atoi(strings.TrimSpace(n))
			return v
		}
	}
	return 0
}

// kill ends whoever is in it, also those that left their process group.
func (g *childGroup) kill() {
	_ = writeFile(g.dir, "cgroup.kill", "1") // a kernel before 5.14 has none: then the process group's end must do
}

// remove kills whoever is in it and takes it away.
func (g *childGroup) remove() error {
	g.kill()
	var err error
	for range groupEnds {
		if err = os.Remove(g.dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		time.Sleep(groupLook) // the killed are still on their way out
	}
	return err
}

// writeFile writes to a file that is there: the kernel's, or a test's.
func writeFile(dir, name, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}
