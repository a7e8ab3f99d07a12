package bulk

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// lines splits an input into its lines, however long it is, and however long they are: of one that is too long it keeps nothing. It
// takes off a byte order mark, the newlines, and a carriage return before them.
type lines struct {
	r      *bufio.Reader
	max    int
	buf    []byte // of a line that is longer than r's own
	offset int64  // of the next line
	number uint64 // of the next line
}

const linesBuffer = 64 << 10 // bytes

// newLines reads on from a line of the input that begins at offset.
func newLines(r io.Reader, offset int64, number uint64, max int) *lines {
	return &lines{r: bufio.NewReaderSize(r, linesBuffer), max: max, offset: offset, number: number}
}

var (
	bom         = []byte("\xef\xbb\xbf")
	errLineLong = errors.New("the line is too long")
)

// next returns a line, valid until the next call; io.EOF after the last, and errLineLong for one that is too long, after which the
// others can be read.
func (l *lines) next() ([]byte, error) {
	size, long, whole := 0, false, []byte(nil)
	l.buf = l.buf[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		size += len(part)
		full := errors.Is(err, bufio.ErrBufferFull)
		switch {
		case long:
		case !full && len(l.buf) == 0:
			whole = part
		case len(l.buf)+len(part) > l.max+len(bom)+2:
			long, l.buf = true, nil // do not keep the room of the longest
		default:
			l.buf = append(l.buf, part...)
			whole = l.buf
		}
		if full {
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if size == 0 {
			return nil, io.EOF
		}
		if l.offset == 0 {
			whole = bytes.TrimPrefix(whole, bom)
		}
		l.offset += int64(size)
		l.number++
		whole = bytes.TrimSuffix(bytes.TrimSuffix(whole, []byte("\n")), []byte("\r"))
		if long || len(whole) > l.max {
			return nil, errLineLong
		}
		return whole, nil
	}
}

// blank tells whether a line says nothing.
func blank(b []byte) bool { return len(bytes.TrimSpace(b)) == 0 }
