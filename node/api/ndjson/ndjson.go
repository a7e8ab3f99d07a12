// Package ndjson cuts a stream of newline-delimited JSON into lines in constant memory. It
// looks at no JSON: server and client share it so that they agree on what a line is.
package ndjson

import (
	"bufio"
	"bytes"
	"io"
)

// Reader cuts a stream into lines.
type Reader struct {
	r      *bufio.Reader
	max    int // bytes of a line, its end not counted
	number int // of the newest line, from 1; blank lines count too
}

// Line is one line of a stream with something on it.
type Line struct {
	Number  int
	Text    []byte // owned by whoever has the line; nil when TooLong
	TooLong bool
}

var bom = []byte("\xef\xbb\xbf")

// TrimBOM returns b without a byte order mark.
func TrimBOM(b []byte) []byte { return bytes.TrimPrefix(b, bom) }

// NewReader reads lines of at most max bytes from r.
func NewReader(r io.Reader, max int) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 64<<10), max: max}
}

// Next returns the next line that is not blank: without its end (LF or CRLF), the last
// one with or without a newline, and without a byte order mark on the first. A line over
// max is read to its end and returned without its text. io.EOF ends the stream; with any
// other error, what came of an unfinished line is dropped.
func (l *Reader) Next() (Line, error) {
	for {
		text, tooLong, err := l.raw()
		if err != nil {
			return Line{}, err
		}
		l.number++
		if l.number == 1 {
			text = TrimBOM(text)
		}
		switch {
		case tooLong:
			return Line{Number: l.number, TooLong: true}, nil
		case len(bytes.TrimSpace(text)) > 0:
			return Line{Number: l.number, Text: bytes.Clone(text)}, nil
		}
	}
}

// raw returns one line, valid until the next call.
func (l *Reader) raw() (text []byte, tooLong bool, err error) {
	var long []byte // a line that spans reads of the buffer
	for got := false; ; got = true {
		part, err := l.r.ReadSlice('\n')
		switch {
		case err == bufio.ErrBufferFull:
			if !tooLong && len(long)+len(part) > l.max+len(bom) {
				long, tooLong = nil, true
			}
			if !tooLong {
				long = append(long, part...)
			}
			continue
		case err == io.EOF && (len(part) > 0 || got): // the last line has no newline
		case err != nil:
			return nil, false, err
		}
		if tooLong {
			return nil, true, nil
		}
		if got {
			part = append(long, part...)
		}
		part = bytes.TrimSuffix(bytes.TrimSuffix(part, []byte{'\n'}), []byte{'\r'})
		if len(TrimBOM(part)) > l.max {
			return nil, true, nil
		}
		return part, false, nil
	}
}
