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
  3    no node answers, or not in time
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
		out := map[string]any{"error": p, "exit_code": code}
		if about != nil {
			out["task_id"], out["next"] = about.ID, about.Next
		}
		b, _ := json.Marshal(out) // a Problem always can
		fmt.Fprintln(a.Err, string(b))
	case code == ExitInterrupted:
		fmt.Fprintln(a.Err, "autoglm: interrupted")
	default:
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

// text leaves the steps of programs out of a refusal: they mean nothing to a user.
func text(err error) string {
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
