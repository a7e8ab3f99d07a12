package cli

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Table writes rows in aligned columns. A column whose header ends in > is aligned right.
type Table struct {
	header []string
	rows   [][]string
}

// NewTable starts a table with its header.
func NewTable(header ...string) *Table { return &Table{header: header} }

// Row adds a row; missing cells are empty.
func (t *Table) Row(cells ...any) {
	row := make([]string, len(t.header))
	for i, c := range cells {
		row[i] = oneLine(fmt.Sprint(c))
	}
	t.rows = append(t.rows, row)
}

// Rule adds a line across the table.
func (t *Table) Rule() { t.rows = append(t.rows, nil) }

// Write writes the table.
func (t *Table) Write(w io.Writer) error {
	width := make([]int, len(t.header))
	right := make([]bool, len(t.header))
	header := make([]string, len(t.header))
	for i, h := range t.header {
		header[i], right[i] = strings.CutSuffix(h, ">")
		width[i] = utf8.RuneCountInString(header[i])
	}
	for _, row := range t.rows {
		for i, c := range row {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	var b strings.Builder
	line := func(cells []string) {
		var l strings.Builder
		for i, c := range cells {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if right[i] {
				l.WriteString(pad + c)
			} else {
				l.WriteString(c + pad)
			}
			l.WriteString("  ")
		}
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	line(header)
	for _, row := range t.rows {
		if row == nil {
			total := 2 * (len(width) - 1)
			for _, n := range width {
				total += n
			}
			b.WriteString(strings.Repeat("-", total) + "\n")
			continue
		}
		line(row)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// oneLine keeps a cell on its line, and control characters away from the terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}

// Cut shortens s to n runes.
func Cut(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// Ago says how long ago t was, roughly.
func Ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// Millis writes a duration for a table: three figures are enough.
func Millis(d time.Duration) string {
	switch ms := float64(d) / 1e6; {
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0f ms", ms)
	case ms < 100_000:
		return fmt.Sprintf("%.2f s", ms/1000)
	}
	return d.Round(time.Second).String()
}

// Bytes writes a size in the unit that suits it.
func Bytes(n uint64) string {
	v, unit := float64(n), 0
	for v >= 1024 && unit < 4 {
		v, unit = v/1024, unit+1
	}
	return fmt.Sprintf("%.4g %s", v, []string{"B", "KiB", "MiB", "GiB", "TiB"}[unit])
}
