package infer

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// processAttr: a group of its own, and the kernel kills it when this process dies, however.
func processAttr(group *childGroup) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if group != nil {
		a.UseCgroupFD, a.CgroupFD = true, int(group.open.Fd())
	}
	return a
}

// setNice is for this thread, and what it starts.
func setNice(nice int) error { return unix.Setpriority(unix.PRIO_PROCESS, 0, nice) }

// limitProcess does what a cgroup does not, and tells what it could not. The process runs already, and has not had the time to need much.
func limitProcess(pid int, p plan) (missed []string) {
	if p.data > 0 {
		if err := unix.Prlimit(pid, unix.RLIMIT_DATA, &unix.Rlimit{Cur: p.data, Max: p.data}, nil); err != nil {
			missed = append(missed, fmt.Sprintf("memory by rlimit: %v", err))
		}
	}
	file := fmt.Sprintf("/proc/%d/oom_score_adj", pid)
	if b, err := os.ReadFile(file); err == nil {
		if now, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && now < childScore {
			_ = os.WriteFile(file, []byte(strconv.Itoa(childScore)), 0) // raising it needs no rights; without it the kernel may take the node first
		}
	}
	return missed
}

// endGroup waits until a child has ended and kills what it left in its group. The child is not reaped yet, so that its number, which is the
// group's, is nobody else's.
func endGroup(pid int) (ended bool) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil {
			_ = syscall.Kill(-pid, syscall.SIGKILL) // fails where nobody is left
		}
		return err == nil
	}
}
