package bench

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Machine is what the figures were measured on.
type Machine struct {
	Cores     int     `json:"cores"`
	Processor string  `json:"processor"`
	Datasync  Latency `json:"fdatasync"` // of 4 KiB appended to a file in the data folder
	Load      float64 `json:"load_1m"`   // processes that wanted a core in the last minute, at the start; -1 unknown
	Busy      bool    `json:"busy"`      // other work takes a good part of the cores: figures are too low
}

const (
	datasyncCount = 200
	datasyncBytes = 4 << 10
	busyShare     = 0.3 // of the cores, above which a warning is printed
)

// inspect looks at the machine and measures the disk below dir.
func inspect(dir string) (Machine, error) {
	m := Machine{Cores: runtime.NumCPU(), Processor: "unknown", Load: -1}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.Processor = parseProcessor(b)
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		if m.Load, err = parseLoad(b); err != nil {
			return m, err
		}
	}
	m.Busy = m.Load > busyShare*float64(m.Cores)
	lat, err := probeDisk(dir)
	if err != nil {
		return m, err
	}
	m.Datasync = *lat
	return m, nil
}

// parseProcessor returns the first model name of /proc/cpuinfo.
func parseProcessor(b []byte) string {
	for line := range strings.Lines(string(b)) {
		if name, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return runtime.GOARCH
}

// parseLoad returns the average of the last minute from /proc/loadavg.
func parseLoad(b []byte) (float64, error) {
	first, _, _ := strings.Cut(string(b), " ")
	v, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return -1, fmt.Errorf("bench.machine: loadavg: %w", err)
	}
	return v, nil
}

// probeDisk appends blocks to a new file in dir, each made durable, and removes it.
func probeDisk(dir string) (*Latency, error) {
	f, err := os.CreateTemp(dir, "fdatasync-*")
	if err != nil {
		return nil, fmt.Errorf("bench.machine: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	block := make([]byte, datasyncBytes)
	times := make([]time.Duration, 0, datasyncCount)
	for range datasyncCount {
		began := time.Now()
		if _, err := f.Write(block); err != nil {
			return nil, fmt.Errorf("bench.machine: %w", err)
		}
		if err := datasync(f); err != nil {
			return nil, fmt.Errorf("bench.machine: fdatasync: %w", err)
		}
		times = append(times, time.Since(began))
	}
	return latencyOf(times), nil
}

// write tells a person about the machine.
func (m *Machine) write(w io.Writer) {
	fmt.Fprintf(w, "%d cores, %s · write 4 KiB and fdatasync: p50 %s ms, p99 %s ms · load average %s\n", m.Cores, m.Processor,
		figure(m.Datasync.P50), figure(m.Datasync.P99), figure(m.Load))
	if m.Busy {
		fmt.Fprintf(w, "WARNING: other work keeps this machine busy; the figures below are lower than on an idle one\n")
	}
}
