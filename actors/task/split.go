package task

import (
	"encoding/csv"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// Split says how a text becomes parts.
type Split struct {
	By      string `json:"by" enum:"lines,bytes,rows" doc:"rows are those of CSV or TSV; each part begins with the first one, the names of the columns."`
	Size    int    `json:"size" doc:"Lines, bytes or rows of one part." minimum:"1"`
	Overlap int    `json:"overlap,omitempty" doc:"So many of the part before are repeated." minimum:"0"`
}

func (s *Split) validate(field string) error {
	bad := func(sub, format string, args ...any) error {
		return fault.New(fault.Invalid, "task.validate", field+sub, format, args...)
	}
	switch {
	case s.By != "lines" && s.By != "bytes" && s.By != "rows":
		return bad(".by", "is %q: use lines, bytes or rows", s.By)
	case s.Size < 1:
		return bad(".size", "is %d: use 1 or more", s.Size)
	case s.By == "bytes" && s.Size > PromptMax/2:
		return bad(".size", "is %d: use at most %d bytes", s.Size, PromptMax/2)
	case s.Overlap < 0 || s.Overlap >= s.Size:
		return bad(".overlap", "is %d: use 0 to less than size", s.Overlap)
	}
	return nil
}

// Of returns the parts of text, the same ones each time.
func (s *Split) Of(text string) ([]string, error) {
	var ends []int // where units end
	head := ""
	switch s.By {
	case "bytes":
		return s.bytes(text)
	case "rows":
		rows, err := rowEnds(text)
		if err != nil {
			return nil, err
		}
		if len(rows) > 0 {
			head, text = text[:rows[0]], text[rows[0]:]
			for _, e := range rows[1:] {
				ends = append(ends, e-len(head))
			}
			if !strings.HasSuffix(head, "\n") {
				head += "\n"
			}
		}
	default:
		for i := 0; i < len(text); {
			n := strings.IndexByte(text[i:], '\n') + 1
			if n == 0 {
				n = len(text) - i
			}
			i += n
			ends = append(ends, i)
		}
	}
	var parts []string
	for from := 0; from < len(ends); from += s.Size - s.Overlap {
		to, begin := min(from+s.Size, len(ends)), 0
		if from > 0 {
			begin = ends[from-1]
		}
		parts = append(parts, head+text[begin:ends[to-1]])
		if len(parts) > PartsMax {
			return nil, s.tooMany()
		}
		if to == len(ends) {
			break
		}
	}
	return parts, nil
}

// bytes cuts between runes: a part may have up to three bytes less than Size, an overlap up to three more.
func (s *Split) bytes(text string) ([]string, error) {
	var parts []string
	for from := 0; ; {
		to := runeStart(text, min(from+s.Size, len(text)))
		if to <= from && from < len(text) { // one rune is longer than Size
			_, n := utf8.DecodeRuneInString(text[from:])
			to = from + n
		}
		if to > from {
			parts = append(parts, text[from:to])
		}
		switch next := runeStart(text, to-s.Overlap); {
		case len(parts) > PartsMax:
			return nil, s.tooMany()
		case to >= len(text):
			return parts, nil
		case next > from:
			from = next
		default: // the overlap is all of it
			from = to
		}
	}
}

// runeStart is where the rune at i begins.
func runeStart(text string, i int) int {
	for i > 0 && i < len(text) && !utf8.RuneStart(text[i]) {
		i--
	}
	return max(i, 0)
}

func (s *Split) tooMany() error {
	return fault.New(fault.TooLarge, "task.split", "map.split", "makes more than %d parts of the data", PartsMax).WithRemedy("raise split.size, or split the data over several tasks")
}

// rowEnds finds where the rows of CSV or TSV end: a quoted field may have newlines in it.
func rowEnds(text string) (ends []int, err error) {
	r := csv.NewReader(strings.NewReader(text))
	r.LazyQuotes, r.FieldsPerRecord, r.ReuseRecord = true, -1, true
	if line, _, _ := strings.Cut(text, "\n"); strings.Contains(line, "\t") && !strings.Contains(line, ",") {
		r.Comma = '\t'
	}
	for {
		_, err := r.Read()
		if errors.Is(err, io.EOF) {
			return ends, nil
		}
		if err != nil {
			return nil, fault.New(fault.Invalid, "task.split", "map.split", "finds no rows in the data: %w", err)
		}
		ends = append(ends, int(r.InputOffset()))
	}
}
