package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of times in /proc/PID/stat: USER_HZ is 100 on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// memory is what the kernel says of a process, in bytes.
type memory struct {
	rss  int64 // VmRSS: resident now
	peak int64 // VmHWM: resident at most so far
}

// cpuOf returns the processor time that a process has used, all its threads together, its children not.
func cpuOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("bench.proc: %w", err)
	}
	return parseStat(b)
}

// parseStat reads utime and stime, fields 14 and 15. The command's name, field 2, may hold spaces and brackets.
func parseStat(b []byte) (time.Duration, error) {
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // f[0] is field 3
	if len(f) < 13 {
		return 0, fmt.Errorf("bench.proc: stat has %d fields after the name, want 13", len(f))
	}
	var ticks int64
	for _, s := range f[11:13] {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("bench.proc: stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}

// memoryOf reads a process's memory.
func memoryOf(pid int) (memory, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return memory{}, fmt.Errorf("bench.proc: %w", err)
	}
	return parseMemory(b)
}

func parseMemory(b []byte) (m memory, err error) {
	if m.rss, err = kilobytes(b, "VmRSS:"); err != nil {
		return m, err
	}
	m.peak, err = kilobytes(b, "VmHWM:")
	return m, err
}

// kilobytes returns the bytes of a line like "VmRSS:  1234 kB".
func kilobytes(b []byte, name string) (int64, error) {
	for line := range strings.Lines(string(b)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("bench.proc: %s %w", name, err)
		}
		return n << 10, nil
	}
	return 0, fmt.Errorf("bench.proc: there is no %s", name)
}

// cpuOfAll is the sum of cpuOf.
func cpuOfAll(pids []int) (sum time.Duration, err error) {
	for _, pid := range pids {
		used, err := cpuOf(pid)
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// meter measures the processor time of this process and of the nodes', all together, over a stretch of time.
type meter struct {
	pids         []int
	began        time.Time
	node, client time.Duration
}

func startMeter(pids ...int) (meter, error) {
	m := meter{pids: pids}
	var err error
	if m.node, err = cpuOfAll(pids); err != nil {
		return m, err
	}
	if m.client, err = cpuOf(os.Getpid()); err != nil {
		return m, err
	}
	m.began = time.Now()
	return m, nil
}

// stop returns how long the stretch was and how many cores each took in it.
func (m meter) stop() (time.Duration, *usage, error) {
	took := time.Since(m.began)
	node, err := cpuOfAll(m.pids)
	if err != nil {
		return took, nil, err
	}
	client, err := cpuOf(os.Getpid())
	if err != nil {
		return took, nil, err
	}
	s := max(took.Seconds(), 1e-9)
	return took, &usage{node: (node - m.node).Seconds() / s, client: (client - m.client).Seconds() / s}, nil
}
