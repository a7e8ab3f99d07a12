// Package fault is the one vocabulary of errors that every layer shares.
//
// An error says what was attempted (Op), on what (Key), what kind of trouble it
// is (Kind) and, where a person can do something, what that is (Remedy). Policy
// reads only the Kind:
//
//	Kind ──► HTTP status            (node/api)
//	     ──► retry, and how slowly  (actors/task, actors/callback)
//	     ──► restart, stop, escalate (actors/supervise)
//
// A sentinel error is for one caller's if; a Kind is for policy.
package fault

import (
	"errors"
	"fmt"
	"strings"
)

// Kind classes an error by its cure.
type Kind uint8

const (
	Unknown     Kind = iota // not classed: treated as a bug
	Invalid                 // the caller's input is wrong and will stay wrong
	NotFound                // no such task, file, model
	Conflict                // the same id with another body, or a sequence that moved on
	Fenced                  // an older epoch: another owner took over; look the route up again
	Unavailable             // not now: retry with backoff
	Overloaded              // a named limit is reached: retry slowly
	NoSpace                 // the disk reserve is touched: free space, reads go on
	TooLarge                // over a named size limit
	Timeout                 // no answer in time: the outcome is unknown
	Corrupt                 // bytes on disk or on the wire fail their checksum
	Refused                 // policy forbids it (an address, a path)
	Malformed               // an engine's answer breaks its promised form; another try may not
	numKinds
)

var kindNames = [numKinds]string{"unknown", "invalid", "not_found", "conflict", "fenced", "unavailable",
	"overloaded", "no_space", "too_large", "timeout", "corrupt", "refused", "malformed"}

// String returns the stable, lower-case name used in logs, metrics and JSON.
func (k Kind) String() string {
	if k >= numKinds {
		return kindNames[Unknown]
	}
	return kindNames[k]
}

// Retryable tells whether the same call may succeed later without any change.
func (k Kind) Retryable() bool {
	switch k {
	case Fenced, Unavailable, Overloaded, NoSpace, Timeout, Malformed:
		return true
	}
	return false
}

// Error is an error with a Kind.
type Error struct {
	Op     string // package and verb, "journal.append"
	Key    string // the task, member or file concerned; may be empty
	Kind   Kind
	Remedy string // what a person can do, a sentence without its full stop; may be empty
	Err    error  // cause, for errors.Is; may be nil
}

// Error joins the parts that are set: "op key: cause (remedy)".
func (e *Error) Error() string {
	s := e.Op
	if e.Key != "" {
		s += " " + e.Key
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	} else {
		s += ": " + e.Kind.String()
	}
	if e.Remedy != "" {
		s += " (" + e.Remedy + ")"
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// New makes an *Error whose cause is the formatted text; %w works as in fmt.Errorf.
func New(kind Kind, op, key, format string, args ...any) *Error {
	return &Error{Op: op, Key: key, Kind: kind, Err: fmt.Errorf(format, args...)}
}

// WithRemedy returns a copy of e that names what a person can do.
func (e *Error) WithRemedy(format string, args ...any) *Error {
	c := *e
	c.Remedy = fmt.Sprintf(format, args...)
	return &c
}

// Bare returns the text of err without its remedies, for who has a better one.
func Bare(err error) string {
	text := err.Error()
	var e *Error
	for errors.As(err, &e) {
		if e.Remedy != "" {
			text = strings.Replace(text, " ("+e.Remedy+")", "", 1)
		}
		err = e.Err
	}
	return text
}

// Plain returns the text of err without its Ops, which are for logs, and without its remedies: what a program shows to people, who see
// RemedyOf beside it.
func Plain(err error) string {
	text := told(err)
	if r := RemedyOf(err); r != "" { // an error from another node has it in its text
		text = strings.Replace(text, " ("+r+")", "", 1)
	}
	return text
}

// Shown is Plain with the remedy in brackets, for where there is one text.
// Errors that were joined have a line each.
func Shown(err error) string {
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		var texts, lines []string
		for _, e := range all.Unwrap() {
			texts, lines = append(texts, e.Error()), append(lines, Shown(e))
		}
		if strings.Join(texts, "\n") == err.Error() {
			return strings.Join(lines, "\n")
		}
	}
	if r := RemedyOf(err); r != "" {
		return Plain(err) + " (" + r + ")"
	}
	return Plain(err)
}

func told(err error) string {
	text := err.Error()
	within := func(inner error) {
		if inner != nil && inner.Error() != "" {
			text = strings.Replace(text, inner.Error(), told(inner), 1)
		}
	}
	switch e := err.(type) { // what each one says of those in it
	case *Error:
		return e.told()
	case interface{ Unwrap() error }:
		within(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			within(inner)
		}
	}
	return text
}

func (e *Error) told() string {
	s := strings.ReplaceAll(e.Kind.String(), "_", " ")
	if e.Err != nil {
		s = told(e.Err)
	}
	switch {
	case e.Key == "":
	case (e.Kind == Invalid || e.Kind == TooLarge) && errors.Unwrap(e.Err) == nil: // a field: its message is a predicate
		return e.Key + " " + s
	case !strings.HasPrefix(s, e.Key+": "): // a task, a file; errors of files name theirs
		return e.Key + ": " + s
	}
	return s
}

// Sentence says err to who knows nothing of steps: "'priority' is 12: use 0 to 9." Ops are left out, what is wrong with a
// field begins with its name, and a remedy is a sentence of its own.
func Sentence(err error) string {
	s := sentence(words(err))
	if r := RemedyOf(err); r != "" {
		s += " " + sentence(r)
	}
	return s
}

func words(err error) string {
	var e *Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	return strings.Replace(err.Error(), e.Error(), e.words(), 1)
}

func (e *Error) words() string {
	s := strings.ReplaceAll(e.Kind.String(), "_", " ")
	if e.Err != nil {
		s = words(e.Err)
	}
	switch {
	case e.Key == "":
	case e.Kind == Invalid || e.Kind == TooLarge: // a field: its message is a predicate
		return "'" + e.Key + "' " + s
	case (e.Kind == NotFound || e.Kind == Conflict) && !strings.Contains(s, e.Key): // a task, a file; other kinds' keys are ours
		return s + ": " + e.Key
	}
	return s
}

// sentence begins with a capital, unless its first word is more than a word, and ends with a full stop.
func sentence(s string) string {
	word, _, _ := strings.Cut(s, " ")
	if s == "" {
		return s
	}
	if !strings.ContainsFunc(strings.TrimRight(word, ",;:.!?"), func(r rune) bool { return r < 'a' || r > 'z' }) {
		s = strings.ToUpper(s[:1]) + s[1:]
	}
	if !strings.ContainsRune(".!?", rune(s[len(s)-1])) {
		s += "."
	}
	return s
}

// KindOf returns the Kind of the outermost *Error in err's chain that has one,
// and Unknown when there is none (also for nil).
func KindOf(err error) Kind {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return Unknown
		}
		if e.Kind != Unknown {
			return e.Kind
		}
		err = e.Err
	}
	return Unknown
}

// RemedyOf returns the outermost remedy in err's chain, or "".
func RemedyOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Remedy != "" {
			return e.Remedy
		}
		err = e.Err
	}
	return ""
}
