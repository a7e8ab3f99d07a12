package infer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
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
	done  <-chan struct{} // closed once it was reaped, and nothing of it is left

	plan plan
	ours atomic.Bool // this process sent it SIGKILL
	ooms int         // in its cgroup; only after done

	signals sync.Mutex
	gone    bool // it ended, and its number may become somebody else's; under signals
}

// start says which process is wanted.
type start struct {
	binary    string
	args, env []string
	pipe      bool // it gets a standard input that ends with this process
	out       io.Writer
	name      string // of its cgroup, where the plan has one
	root      string // below which that is
	plan      plan
}

// startProcess must be called on a locked thread that outlives the process, and that runs nothing else: it takes the child's niceness. Whatever the
// process leaves in its group ends with it.
func startProcess(s start) (p *process, err error) {
	var group *childGroup
	if s.plan.group {
		if group, err = newChildGroup(s.root, s.name, &s.plan); err != nil {
			return nil, fmt.Errorf("its cgroup: %w", err)
		}
		defer group.started()
	}
	if s.plan.nice > 0 {
		if err := setNice(s.plan.nice); err != nil {
			s.plan.missed = append(s.plan.missed, fmt.Sprintf("nice: %v", err))
		}
	}
	cmd, stdin, err := s.command(group)
	if err == nil {
		err = cmd.Start()
	}
	if errors.Is(err, errors.ErrUnsupported) && group != nil { // no clone3, as under systemd's RestrictNamespaces: a moment later, then
		if cmd, stdin, err = s.command(nil); err == nil {
			err = cmd.Start()
		}
		if err == nil {
			if err = group.add(cmd.Process.Pid); err != nil {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
		}
	}
	if err != nil {
		if group != nil {
			err = errors.Join(err, group.remove())
		}
		return nil, err
	}
	s.plan.missed = append(s.plan.missed, limitProcess(cmd.Process.Pid, s.plan)...)
	ctx, cancel := context.WithCancel(context.Background())
	p = &process{cmd: cmd, stdin: stdin, ctx: ctx, done: ctx.Done(), plan: s.plan}
	go func() {
		if endGroup(cmd.Process.Pid) {
			p.over() // Wait reaps it, and may go on for pipeWait
		}
		if group != nil {
			p.ooms = group.ooms()
			group.kill() // before Wait, which waits for whoever holds its stderr
		}
		_ = cmd.Wait() // what it would say is in ProcessState
		p.over()
		if group != nil {
			_ = group.remove() // the next node's start does it, too
		}
		cancel()
	}()
	return p, nil
}

func (s *start) command(group *childGroup) (cmd *exec.Cmd, stdin io.Closer, err error) {
	cmd = exec.Command(s.binary, s.args...)
	cmd.Env = append(os.Environ(), s.env...)
	cmd.Stdout, cmd.Stderr = s.out, s.out
	cmd.SysProcAttr = processAttr(group)
	cmd.WaitDelay = pipeWait
	if s.pipe {
		stdin, err = cmd.StdinPipe()
	}
	return cmd, stdin, err
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
	p.ours.Store(true)
	p.signals.Lock()
	if !p.gone { // else the number may be somebody else's by now
		_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
		_ = p.cmd.Process.Kill()
	}
	p.signals.Unlock()
	<-p.done
}

// over lets nobody signal its group any more.
func (p *process) over() {
	p.signals.Lock()
	p.gone = true
	p.signals.Unlock()
}

// exit tells how it ended: "exit status 1", "signal: killed". Only after done.
func (p *process) exit() string {
	s := p.cmd.ProcessState.String()
	if ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() && ws.Signal() == syscall.SIGILL {
		s += " (the worker was built for a newer processor: run `make build` on this machine)"
	}
	return s
}

// killedByOthers tells whether it died of a SIGKILL that this process did not send. Only after done.
func (p *process) killedByOthers() bool {
	ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL && !p.ours.Load()
}

// crashed tells whether it died of a fault of its own. Only after done.
func (p *process) crashed() bool {
	ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && (ws.Signal() == syscall.SIGSEGV || ws.Signal() == syscall.SIGABRT || ws.Signal() == syscall.SIGBUS)
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
	mu    sync.Mutex
	line  []byte // unfinished, at most lineMax
	kept  []byte // at most stderrKept, of one process
	stale bool   // kept is of the one before: the newest has said no line yet
	lack  string // the line of the newest process that tells of memory which it could not have: much may follow it
	say   func(line string)
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
		if saysMemory(s) {
			l.lack = s
		}
		if l.stale {
			l.kept, l.stale = l.kept[:0], false
		}
		l.kept = append(append(l.kept, s...), '\n')
		if over := len(l.kept) - stderrKept; over > 0 {
			l.kept = append(l.kept[:0], l.kept[over:]...)
		}
	}
	l.line = l.line[:0]
}

// String is the newest stderrKept bytes of the newest process that said anything, an unfinished line included.
func (l *lineTail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.words()
	if s == "" {
		s = string(l.kept)
	}
	return strings.TrimSpace(strings.ToValidUTF8(s[max(0, len(s)-stderrKept):], ""))
}

// begin marks where the next process begins to speak.
func (l *lineTail) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.line) > 0 {
		l.flush()
	}
	l.stale, l.lack = true, ""
}

// lacks is what the newest process said of memory that it could not have; empty: nothing.
func (l *lineTail) lacks() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lack == "" && saysMemory(string(l.line)) {
		return string(l.line)
	}
	return l.lack
}

// fresh is what is kept of what the newest process said.
func (l *lineTail) fresh() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.words()
}

func (l *lineTail) words() string {
	if l.stale {
		return string(l.line)
	}
	return string(l.kept) + string(l.line)
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
