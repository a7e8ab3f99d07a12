package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/unicode"
)

// byExtension names the type where the server did not, or only said "some bytes".
var byExtension = map[string]string{
	".csv": "text/csv", ".tsv": "text/tab-separated-values", ".json": "application/json",
	".jsonl": "application/x-ndjson", ".ndjson": "application/x-ndjson", ".txt": "text/plain", ".md": "text/markdown",
	".xml": "application/xml", ".html": "text/html", ".yaml": "application/yaml", ".yml": "application/yaml", ".log": "text/plain",
}

// textual are the types beside text/*, *+json and *+xml that hold text.
var textual = map[string]bool{"application/json": true, "application/x-ndjson": true, "application/ndjson": true,
	"application/jsonl": true, "application/x-jsonlines": true, "application/csv": true, "application/xml": true,
	"application/yaml": true, "application/x-yaml": true}

// unsaid are the types that stores give to what they know nothing about; the bytes decide.
var unsaid = map[string]bool{"": true, "application/octet-stream": true, "binary/octet-stream": true}

// acceptable tells whether a declared type may hold text.
func acceptable(mt string) error {
	if unsaid[mt] || textual[mt] || strings.HasPrefix(mt, "text/") || strings.HasSuffix(mt, "+json") || strings.HasSuffix(mt, "+xml") {
		return nil
	}
	return fmt.Errorf("content type %q is not text", mt)
}

// textOf turns bytes into UTF-8 text and names their type. Everything that is not surely text is
// an error: a model would answer something about garbage, too.
func textOf(b body, name string) (text, mediaType string, err error) {
	mt := b.mediaType
	if unsaid[mt] {
		if mt = byExtension[strings.ToLower(path.Ext(name))]; mt == "" {
			mt = "text/plain"
		}
	}
	raw, err := decode(b.bytes, b.charset)
	if err != nil {
		return "", "", err
	}
	if i := bytes.IndexByte(raw, 0); i >= 0 {
		return "", "", fmt.Errorf("the data is binary: a zero byte at %d", i)
	}
	switch {
	case mt == "application/json" || strings.HasSuffix(mt, "+json"):
		if err := checkJSON(raw); err != nil {
			return "", "", err
		}
	case strings.Contains(mt, "ndjson") || strings.Contains(mt, "jsonl"):
		for i, line := range bytes.Split(raw, []byte("\n")) {
			if line = bytes.TrimSpace(line); len(line) > 0 && !json.Valid(line) {
				return "", "", fmt.Errorf("line %d is no JSON", i+1)
			}
		}
	}
	return string(raw), mt, nil
}

var (
	bomUTF8    = []byte("\xef\xbb\xbf")
	bomUTF16LE = []byte("\xff\xfe")
	bomUTF16BE = []byte("\xfe\xff")
	bomUTF32LE = []byte("\xff\xfe\x00\x00")
)

// decode gives UTF-8 without a mark. A mark says more than a declared charset, which is often a
// server's default; without either only valid UTF-8 will do.
func decode(b []byte, charset string) ([]byte, error) {
	var enc encoding.Encoding
	switch {
	case bytes.HasPrefix(b, bomUTF8):
		b, charset = b[len(bomUTF8):], "utf-8"
	case bytes.HasPrefix(b, bomUTF32LE):
		return nil, errors.New("the data is UTF-32")
	case bytes.HasPrefix(b, bomUTF16LE):
		b, enc, charset = b[2:], unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM), "utf-16le"
	case bytes.HasPrefix(b, bomUTF16BE):
		b, enc, charset = b[2:], unicode.UTF16(unicode.BigEndian, unicode.IgnoreBOM), "utf-16be"
	case charset != "":
		var err error
		if enc, err = htmlindex.Get(charset); err != nil {
			return nil, fmt.Errorf("charset %q is not known", charset)
		}
		if n, _ := htmlindex.Name(enc); n == "utf-8" {
			enc = nil
		}
	}
	if enc == nil {
		if !utf8.Valid(b) {
			return nil, errors.New("the data is no valid UTF-8")
		}
		return b, nil
	}
	out, err := enc.NewDecoder().Bytes(b)
	if err != nil {
		return nil, fmt.Errorf("the data is no valid %s: %w", charset, err)
	}
	if bytes.ContainsRune(out, utf8.RuneError) { // how decoders mark what they cannot read
		return nil, fmt.Errorf("the data is no valid %s", charset)
	}
	return out, nil
}

// checkJSON names the line of the first error.
func checkJSON(b []byte) error {
	var any json.RawMessage
	err := json.Unmarshal(b, &any)
	var se *json.SyntaxError
	if errors.As(err, &se) {
		return fmt.Errorf("the data is no JSON: line %d: %w", 1+bytes.Count(b[:min(int(se.Offset), len(b))], []byte("\n")), err)
	}
	if err != nil {
		return fmt.Errorf("the data is no JSON: %w", err)
	}
	return nil
}

// labels are the fence's info string by type; models know these.
var labels = map[string]string{"text/csv": "csv", "application/csv": "csv", "text/tab-separated-values": "tsv",
	"text/markdown": "markdown", "text/html": "html", "text/plain": "text"}

// Compose puts the data after the prompt, in a fence that nothing in the data can close: it is
// longer than any run of backticks there. The data stays as it is, but for newlines at its end.
func Compose(prompt string, d Data) string {
	label := labels[d.MediaType]
	switch {
	case label != "":
	case strings.Contains(d.MediaType, "json"):
		label = "json"
	case strings.Contains(d.MediaType, "xml"):
		label = "xml"
	case strings.Contains(d.MediaType, "yaml"):
		label = "yaml"
	default:
		label = "text"
	}
	fence := strings.Repeat("`", max(3, longestRun(d.Text, '`')+1))
	var s strings.Builder
	s.Grow(len(prompt) + len(d.Text) + 2*len(fence) + 16)
	if prompt != "" {
		s.WriteString(prompt + "\n\n")
	}
	s.WriteString(fence + label + "\n")
	s.WriteString(strings.TrimRight(d.Text, "\r\n"))
	s.WriteString("\n" + fence)
	return s.String()
}

func longestRun(s string, c byte) int {
	longest, run := 0, 0
	for i := range len(s) {
		if s[i] != c {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	return longest
}
