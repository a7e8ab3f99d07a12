package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/open-autoglm/autoglm/node/api/wire"
	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Exit codes. They are part of the interface: scripts test them.
const (
	ExitOK          = 0
	ExitFailed      = 1   // anything that no other code names
	ExitUsage       = 2   // the command, its input or its configuration is wrong
	ExitUnreachable = 3   // no node answers, or not in time
	ExitNotFound    = 4   // no such task or file
	ExitRefused     = 5   // the node refuses: a conflict, or policy
	ExitBusy        = 6   // too much at once, or the disk is full: try later
	ExitTasks       = 7   // the command worked, but tasks were rejected, failed or cancelled
	ExitInterrupted = 130 // Ctrl-C
)

// ExitHelp explains the codes to a user.
const ExitHelp = `Exit codes:
  0    done
  1    failed
  2    the command, its input or its configuration is wrong
  3    no node answers, or not in time; of serve: its port or its data directory is taken
  4    no such task or file
  5    the node refuses: a conflict, or its policy
  6    too much at once, or the disk is full: try again later
  7    the command worked, but tasks were rejected, failed or cancelled
  130  interrupted
`

// TasksError says that a command worked and tasks did not.
type TasksError struct{ Text string }

// Error returns Text.
func (e *TasksError) Error() string { return e.Text }

// TaskError is an error of a call about one task whose id the user has not seen yet.
type TaskError struct {
	ID   string
	Next string // what became of the task, as far as is known, and how to go on
	Err  error
}

// Error returns the cause's text with the id.
func (e *TaskError) Error() string { return fmt.Sprintf("task %s: %v", e.ID, e.Err) }

// Unwrap returns the cause.
func (e *TaskError) Unwrap() error { return e.Err }

// OneError is an error about one task of several that a command names.
type OneError struct {
	ID  string
	Err error
}

// Error returns the cause's text with the id.
func (e *OneError) Error() string { return e.ID + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *OneError) Unwrap() error { return e.Err }

// Code returns the exit code of a command that ended with err.
func Code(err error) int {
	var tasks *TasksError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &tasks):
		return ExitTasks
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	case isUsage(err):
		return ExitUsage
	}
	switch fault.KindOf(err) {
	case fault.Invalid, fault.TooLarge:
		return ExitUsage
	case fault.Unavailable, fault.Timeout, fault.Fenced:
		return ExitUnreachable
	case fault.NotFound:
		return ExitNotFound
	case fault.Conflict, fault.Refused:
		return ExitRefused
	case fault.Overloaded, fault.NoSpace:
		return ExitBusy
	}
	return ExitFailed
}

// isUsage recognizes what cobra says about a command line; it has no type for it.
func isUsage(err error) bool {
	msg := err.Error()
	for _, start := range []string{"unknown command", "unknown flag", "unknown shorthand", "accepts ", "requires ", "required flag",
		"invalid argument", "flag needs an argument", "if any flags in the group", "bad flag syntax"} {
		if strings.HasPrefix(msg, start) {
			return true
		}
	}
	return false
}

// Report tells the user why a command failed, on the App's Err, and returns the exit code.
func (a *App) Report(err error) int {
	code := Code(err)
	var about *TaskError
	errors.As(err, &about)
	switch {
	case err == nil:
	case a.JSON():
		p := *wire.ProblemOf(err)
		if p.Detail == "" || code == ExitTasks {
			p.Detail = err.Error()
		}
		if all, ok := err.(interface{ Unwrap() []error }); ok && len(all.Unwrap()) > 1 {
			p.Errors = nil
			for _, e := range all.Unwrap() {
				p.Errors = append(p.Errors, *wire.ProblemOf(e))
			}
		}
		out := map[string]any{"error": p, "exit_code": code}
		if about != nil {
			out["task_id"], out["next"] = about.ID, about.Next
		}
		b, _ := json.Marshal(out) // a Problem always can
		fmt.Fprintln(a.Err, string(b))
	case code == ExitInterrupted:
		fmt.Fprintln(a.Err, "autoglm: interrupted")
	default:
		if code == ExitUsage && a.usage != "" {
			if plain, ok := countOf(err.Error()); ok {
				fmt.Fprintf(a.Err, "autoglm: %s: %s\nRun with --help for what there is.\n", plain, a.usage)
				break
			}
		}
		fmt.Fprintln(a.Err, "autoglm:", strings.ReplaceAll(text(err), "\n", "\n         "))
		if code == ExitUsage && fault.KindOf(err) == fault.Unknown {
			fmt.Fprintln(a.Err, "Run with --help for what there is.")
		}
	}
	if about != nil && !a.JSON() {
		fmt.Fprintf(a.Err, "autoglm: task %s: %s\n", about.ID, about.Next)
	}
	return code
}

// countOf puts cobra's "accepts 1 arg(s), received 0" into words.
func countOf(msg string) (plain string, ok bool) {
	var n, m int
	switch {
	case scan(msg, "accepts %d arg(s), received %d", &n, &m), scan(msg, "requires at least %d arg(s), only received %d", &n, &m):
		if m < n {
			return "something is missing", true
		}
	case scan(msg, "accepts at most %d arg(s), received %d", &n, &m):
	default:
		return "", false
	}
	return "that is too much", true
}

func scan(msg, form string, n, m *int) bool {
	got, err := fmt.Sscanf(msg, form, n, m)
	return err == nil && got == 2
}

// text leaves the steps of programs out of a refusal: they mean nothing to a user.
func text(err error) string {
	if all, ok := err.(interface{ Unwrap() []error }); ok && len(all.Unwrap()) > 1 {
		lines := make([]string, len(all.Unwrap()))
		for i, e := range all.Unwrap() {
			lines[i] = text(e)
		}
		return strings.Join(lines, "\n")
	}
	if one, ok := err.(*OneError); ok {
		if s := text(one.Err); strings.Contains(s, one.ID) {
			return s
		}
		return one.ID + ": " + text(one.Err)
	}
	var p *wire.Problem
	if errors.As(err, &p) {
		return p.Error()
	}
	var about *TaskError
	if errors.As(err, &about) {
		err = about.Err // the id follows, with what to do
	}
	return fault.Shown(err)
}
