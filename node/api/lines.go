package api

import (
	"bufio"
	"bytes"
	"io"
)

// lineReader cuts a stream into lines in constant memory.
type lineReader struct {
	r      *bufio.Reader
	max    int // bytes of a line, its end not counted
	number int // of the newest line, from 1; blank lines count too
}

// line is one line of a stream with something on it.
type line struct {
	number  int
	text    []byte // owned by whoever has the line; nil when tooLong
	tooLong bool
}

var utf8BOM = []byte("\xef\xbb\xbf")

func newLineReader(r io.Reader, max int) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 64<<10), max: max}
}

// next returns the next line that is not blank: without its end (LF or CRLF), the last
// one with or without a newline, and without a byte order mark on the first. A line over
// max is read to its end and returned without its text. io.EOF ends the stream; with any
// other error, what came of an unfinished line is dropped.
func (l *lineReader) next() (line, error) {
	for {
		text, tooLong, err := l.raw()
		if err != nil {
			return line{}, err
		}
		l.number++
		if l.number == 1 {
			text = bytes.TrimPrefix(text, utf8BOM)
		}
		switch {
		case tooLong:
			return line{number: l.number, tooLong: true}, nil
		case len(bytes.TrimSpace(text)) > 0:
			return line{number: l.number, text: bytes.Clone(text)}, nil
		}
	}
}

// raw returns one line, valid until the next call.
func (l *lineReader) raw() (text []byte, tooLong bool, err error) {
	var long []byte // a line that spans reads of the buffer
	for got := false; ; got = true {
		part, err := l.r.ReadSlice('\n')
		switch {
		case err == bufio.ErrBufferFull:
			if !tooLong && len(long)+len(part) > l.max+len(utf8BOM) {
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
		if len(bytes.TrimPrefix(part, utf8BOM)) > l.max {
			return nil, true, nil
		}
		return part, false, nil
	}
}
