package explain

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	namesMax = 5 // engines or models that a text names
	timeForm = "15:04:05"
	dayForm  = "2006-01-02 " + timeForm
)

// list joins the first few.
func list(all []string) string {
	if len(all) <= namesMax {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:namesMax], ", "), len(all)-namesMax)
}

func count(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "y"):
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(what, "y"))
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// moment is a time of day, with its date where that is not today's.
func moment(t, now time.Time) string {
	form := timeForm
	if t.UTC().Format(time.DateOnly) != now.UTC().Format(time.DateOnly) {
		form = dayForm
	}
	return t.UTC().Format(form) + " UTC"
}

// dotless prepares a message to be followed by a full stop.
func dotless(s string) string { return strings.TrimRight(s, ". \n") }

// sentence begins large and ends with a full stop.
func sentence(s string) string { return title(dotless(s)) + "." }

func title(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if n == 0 {
		return s
	}
	return string(unicode.ToUpper(r)) + s[n:]
}
