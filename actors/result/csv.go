package result

import (
	"encoding/csv"
	"io"
	"strconv"
	"strings"
	"time"
)

// CSV writes rows as RFC 4180 has it, with LF at the end of a line. Times are RFC 3339 in UTC.
type CSV struct {
	w *csv.Writer

	// EscapeFormulas puts an apostrophe before a text that a spreadsheet would run as a formula: one that begins with =, +, -, @, a tab or
	// a carriage return. It alters data, so it is for files that people open, not for those that programs read.
	EscapeFormulas bool
}

// NewCSV writes to w. Flush ends it, and may be called in between.
func NewCSV(w io.Writer) *CSV { return &CSV{w: csv.NewWriter(w)} }

// Header writes the names of the columns.
func (c *CSV) Header() error { return c.w.Write(Columns()) }

// Write writes one row.
func (c *CSV) Write(r *Row) error {
	fields := []string{r.TaskID, r.BatchID, r.CustomID, r.State, r.Model, r.Prompt, r.Answer, r.FinishReason,
		strconv.FormatInt(r.PromptTokens, 10), strconv.FormatInt(r.CompletionTokens, 10), moment(r.CreatedAt), moment(r.EndedAt), strconv.FormatInt(r.Attempts, 10),
		r.ErrorKind, r.ErrorMessage, r.Metadata, r.Response}
	if c.EscapeFormulas {
		for i, f := range fields {
			if f != "" && strings.ContainsRune("=+-@\t\r", rune(f[0])) {
				fields[i] = "'" + f
			}
		}
	}
	return c.w.Write(fields)
}

// Flush hands on what is buffered.
func (c *CSV) Flush() error {
	c.w.Flush()
	return c.w.Error()
}

func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
