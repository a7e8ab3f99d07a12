package dev

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
)

// Bounds of what is kept of a node's words.
const (
	lineMax    = 8 << 10  // bytes of a line; the rest of a longer one is left out
	logFileMax = 64 << 20 // bytes of DIR/node-1.log, which then begins anew
)

// colours of the prefixes, in the nodes' order.
var colours = []int{36, 32, 33, 35, 34, 31}

// console is where the words of all nodes meet, line by line.
type console struct {
	mu     sync.Mutex
	w      io.Writer
	colour bool
}

func (c *console) line(name string, text []byte) {
	prefix := fmt.Sprintf("%-6s | ", name)
	if i, err := strconv.Atoi(strings.TrimPrefix(name, "node-")); c.colour && err == nil {
		prefix = fmt.Sprintf("\x1b[%dm%s\x1b[0m", colours[i%len(colours)], prefix)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.w.Write(append(append([]byte(prefix), text...), '\n')) // a closed terminal is no reason to end the cluster
}

// lines cuts what one process writes into lines, for the console and for the node's file. One goroutine writes.
type lines struct {
	out  *console
	name string
	file *os.File
	size int64 // of file

	buf  []byte // an unfinished line, at most lineMax
	over bool   // that line was longer
}

// newLines appends to the file at path, after what earlier processes of the node said.
func newLines(out *console, name, path string) (*lines, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fileFault(path, err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fileFault(path, err)
	}
	return &lines{out: out, name: name, file: f, size: st.Size()}, nil
}

// Write never fails: a full disk must not block the node.
func (l *lines) Write(b []byte) (int, error) {
	n := len(b)
	for {
		head, rest, whole := bytes.Cut(b, []byte{'\n'})
		room := lineMax - len(l.buf)
		l.over = l.over || len(head) > room
		l.buf = append(l.buf, head[:min(room, len(head))]...)
		if !whole {
			return n, nil
		}
		l.emit()
		b = rest
	}
}

func (l *lines) emit() {
	if l.over {
		l.buf = append(l.buf, "…"...)
	}
	l.out.line(l.name, l.buf)
	if l.size > logFileMax && l.file.Truncate(0) == nil { // opened to append: it goes on at the start
		l.size = 0
	}
	n, _ := l.file.Write(append(l.buf, '\n'))
	l.size += int64(n)
	l.buf, l.over = l.buf[:0], false
}

// close writes what is left without a newline.
func (l *lines) close() {
	if len(l.buf) > 0 {
		l.emit()
	}
	l.file.Close()
}
