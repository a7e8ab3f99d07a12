package infer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// pipeWait bounds how long the end of a process waits for its stderr: a grandchild may hold it.
const pipeWait = 2 * time.Second

// process is one started worker, in a process group of its own so that a terminal's Ctrl-C
// reaches the node alone. It waits for its own end.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer // a glm-worker ends when this closes, however this process ends; nil: it has none
	ctx   context.Context
	done  <-chan struct{} // closed once it was reaped
}

// startProcess must be called on a locked thread that outlives the process. whatever it leaves in its group ends with it.
func startProcess(binary string, args, env []string, pipe bool, stderr io.Writer) (*process, error) {
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = stderr, stderr
	cmd.SysProcAttr = processAttr()
	cmd.WaitDelay = pipeWait
	var stdin io.Closer
	if pipe {
		var err error
		if stdin, err = cmd.StdinPipe(); err != nil {
			return nil, err
		}
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{cmd: cmd, stdin: stdin, ctx: ctx, done: ctx.Done()}
	go func() {
		endGroup(cmd.Process.Pid)
		_ = cmd.Wait() // what it would say is in ProcessState
		cancel()
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// terminate asks for a clean end, and kills after limit. It returns when the process was reaped.
func (p *process) terminate(limit time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended already
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
		p.kill()
	}
}

// kill ends the whole group and returns when the process was reaped.
func (p *process) kill() {
	if p.ctx.Err() == nil { // else the number may be somebody else's by now
		_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
		_ = p.cmd.Process.Kill()
	}
	<-p.done
}

// exit tells how it ended: "exit status 1", "signal: killed". Only after done.
func (p *process) exit() string {
	s := p.cmd.ProcessState.String()
	if ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() && ws.Signal() == syscall.SIGILL {
		s += " (the worker was built for a newer processor: run `make build` on this machine)"
	}
	return s
}

// code is the exit code, -1 after a signal. Only after done.
func (p *process) code() int { return p.cmd.ProcessState.ExitCode() }

// What is kept of a worker's words.
const (
	stderrKept = 4 << 10 // bytes, the newest
	lineMax    = 2 << 10 // bytes of one logged line; the rest of it is dropped
)

// lineTail is a Writer that hands on whole lines and keeps the newest bytes. One process after
// another writes to it.
type lineTail struct {
	mu   sync.Mutex
	line []byte // unfinished, at most lineMax
	kept []byte // at most stderrKept
	new  int    // bytes of kept since begin, or more
	say  func(line string)
}

func newLineTail(say func(string)) *lineTail { return &lineTail{say: say} }

// Write never fails: a worker must not die of what it says.
func (l *lineTail) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(b)
	for len(b) > 0 {
		part, rest, whole := bytes.Cut(b, []byte("\n"))
		l.line = append(l.line, part[:min(len(part), lineMax-len(l.line))]...)
		if whole {
			l.flush()
		}
		b = rest
	}
	return n, nil
}

func (l *lineTail) flush() {
	if len(bytes.TrimSpace(l.line)) > 0 {
		s := strings.ToValidUTF8(string(l.line), "?")
		l.say(s)
		l.kept = append(append(l.kept, s...), '\n')
		l.new += len(s) + 1
		if over := len(l.kept) - stderrKept; over > 0 {
			l.kept = append(l.kept[:0], l.kept[over:]...)
		}
	}
	l.line = l.line[:0]
}

// String is the newest stderrKept bytes, an unfinished line included.
func (l *lineTail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := string(l.kept) + string(l.line)
	return strings.TrimSpace(strings.ToValidUTF8(s[max(0, len(s)-stderrKept):], ""))
}

// begin marks where the next process begins to speak.
func (l *lineTail) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.line) > 0 {
		l.flush()
	}
	l.new = 0
}

// fresh is what is kept of what the newest process said.
func (l *lineTail) fresh() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.kept[len(l.kept)-min(l.new, len(l.kept)):]) + string(l.line)
}

// linesShown is how much of a worker's last words an error has.
const linesShown = 3

// said is the end of an error about a worker that spoke before it ended.
func said(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if lines[0] == "" {
		return ""
	}
	return "; it said: " + cut(strings.Join(lines[max(0, len(lines)-linesShown):], " | "))
}

// errNotFound is FindWorker's cause.
var errNotFound = errors.New("there is no glm-worker beside this executable")
