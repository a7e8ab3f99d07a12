package bench

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// columns of the table; the numbers among them are set to the right.
var columns = []struct {
	title string
	right bool
	cell  func(*Row) string
}{
	{"benchmark", false, func(r *Row) string { return r.Benchmark }},
	{"figure", false, func(r *Row) string { return r.Figure }},
	{"median", true, func(r *Row) string { return figure(r.Value) }},
	{"unit", false, func(r *Row) string { return r.Unit }},
	{"range", true, func(r *Row) string {
		if len(r.Runs) < 2 {
			return ""
		}
		return figure(r.Min) + "–" + figure(r.Max)
	}},
	{"aim", true, func(r *Row) string { return optional(r.Aim) }},
	{"ratio", true, func(r *Row) string {
		if r.Ratio == nil {
			return ""
		}
		return strconv.FormatFloat(*r.Ratio, 'f', 2, 64)
	}},
	{"p50 ms", true, func(r *Row) string {
		if r.Latency == nil {
			return ""
		}
		return figure(r.Latency.P50)
	}},
	{"p99 ms", true, func(r *Row) string {
		if r.Latency == nil {
			return ""
		}
		return figure(r.Latency.P99)
	}},
	{"node cores", true, func(r *Row) string { return cores(r.NodeCores) }},
	{"client cores", true, func(r *Row) string { return cores(r.ClientCores) }},
	{"node µs each", true, func(r *Row) string { return optional(r.NodeMicros) }},
	{"note", false, func(r *Row) string { return r.Note }},
}

// writeTable writes the rows for a person. Columns with nothing in them are left out; a row of a benchmark that failed
// becomes a line below.
func (r *Report) writeTable(w io.Writer) error {
	var b bytes.Buffer
	cells := [][]string{}
	for i := range r.Rows {
		if r.Rows[i].Error != "" {
			continue
		}
		line := make([]string, len(columns))
		for c, col := range columns {
			line[c] = col.cell(&r.Rows[i])
		}
		cells = append(cells, line)
	}
	if len(cells) > 0 {
		if r.Setting != "" {
			b.WriteString(r.Setting + "\n\n")
		}
		layOut(&b, cells)
		b.WriteString("\nratio: 1 or more meets the aim. Aims are the design's, for 2 idle cores; those of waiting for 1,000,000 tasks.\n" +
			"node µs each: the node's processor time for one; it changes little when other work slows the rest.\n")
	}
	for _, row := range r.Rows {
		if row.Error != "" {
			fmt.Fprintf(&b, "%s: not measured: %s\n", row.Benchmark, row.Error)
		}
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("bench.report: %w", err)
	}
	return nil
}

func layOut(b *bytes.Buffer, cells [][]string) {
	width := make([]int, len(columns)) // in characters; 0: an empty column
	for c, col := range columns {
		for _, line := range cells {
			width[c] = max(width[c], utf8.RuneCountInString(line[c]))
		}
		if width[c] > 0 {
			width[c] = max(width[c], utf8.RuneCountInString(col.title))
		}
	}
	titles := make([]string, len(columns))
	for c, col := range columns {
		titles[c] = col.title
	}
	for _, line := range append([][]string{titles}, cells...) {
		var l strings.Builder
		for c, col := range columns {
			if width[c] == 0 {
				continue
			}
			pad := strings.Repeat(" ", width[c]-utf8.RuneCountInString(line[c]))
			if col.right {
				l.WriteString(pad + line[c] + "  ")
			} else {
				l.WriteString(line[c] + pad + "  ")
			}
		}
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
}

func optional(v *float64) string {
	if v == nil {
		return ""
	}
	return figure(*v)
}

func cores(v *float64) string {
	if v == nil {
		return ""
	}
	return strconv.FormatFloat(*v, 'f', 2, 64)
}

// figure writes a number with as many digits as mean something: 12,345 · 123 · 12.3 · 1.23 · 0.123.
func figure(v float64) string {
	abs := math.Abs(v)
	digits := 0
	switch {
	case abs >= 100 || abs == 0:
	case abs >= 10:
		digits = 1
	case abs >= 1:
		digits = 2
	default:
		digits = 3
	}
	s := strconv.FormatFloat(v, 'f', digits, 64)
	whole, frac, _ := strings.Cut(s, ".")
	sign := ""
	if strings.HasPrefix(whole, "-") {
		sign, whole = "-", whole[1:]
	}
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if frac != "" {
		whole += "." + frac
	}
	return sign + whole
}
