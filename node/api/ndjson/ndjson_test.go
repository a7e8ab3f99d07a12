package ndjson

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

func TestReader(t *testing.T) {
	const max = 10
	for _, tc := range []struct {
		name, in string
		want     []string // number:text, "long" for a long one
	}{
		{"last line without newline", "a\nb", []string{"1:a", "2:b"}},
		{"CRLF and blank lines", "a\r\n\r\n  \nb\r\n", []string{"1:a", "4:b"}},
		{"byte order mark", "\xef\xbb\xbfa\nb\n", []string{"1:a", "2:b"}},
		{"only a byte order mark", "\xef\xbb\xbf", nil},
		{"empty", "", nil},
		{"just fits", "0123456789\n", []string{"1:0123456789"}},
		{"just fits with CRLF", "0123456789\r\na", []string{"1:0123456789", "2:a"}},
		{"one too long", "01234567890\nb\n", []string{"1:long", "2:b"}},
		{"very long", strings.Repeat("x", 1<<20) + "\nb\n", []string{"1:long", "2:b"}},
		{"very long and last", "a\n" + strings.Repeat("x", 1<<20), []string{"1:a", "2:long"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tc.in), iotest.OneByteReader(strings.NewReader(tc.in))} {
				var got []string
				lr := NewReader(r, max)
				for {
					l, err := lr.Next()
					if err == io.EOF {
						break
					}
					require.NoError(t, err)
					text := string(l.Text)
					if l.TooLong {
						text = "long"
					}
					got = append(got, string(rune('0'+l.Number))+":"+text)
				}
				require.Equal(t, tc.want, got)
			}
		})
	}
}

func TestReaderSpansBuffers(t *testing.T) {
	long := strings.Repeat("y", 200_000)
	lr := NewReader(strings.NewReader(long+"\r\n"+long), 1<<20)
	for range 2 {
		l, err := lr.Next()
		require.NoError(t, err)
		require.Equal(t, long, string(l.Text))
	}
}

func TestReaderDropsAnUnfinishedLineOfABrokenStream(t *testing.T) {
	broken := errors.New("broken")
	lr := NewReader(io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken)), 10)
	l, err := lr.Next()
	require.NoError(t, err)
	require.Equal(t, "a", string(l.Text))
	_, err = lr.Next()
	require.ErrorIs(t, err, broken)
}

func FuzzReader(f *testing.F) {
	for _, s := range []string{"a\nb", "\xef\xbb\xbfa\r\n\r\n", strings.Repeat("x", 100) + "\ny"} {
		f.Add([]byte(s), 7)
	}
	f.Fuzz(func(t *testing.T, b []byte, max int) {
		max = 1 + max&0xff
		lr := NewReader(bytes.NewReader(b), max)
		last := 0
		for {
			l, err := lr.Next()
			if err == io.EOF {
				return
			}
			require.NoError(t, err)
			require.Greater(t, l.Number, last)
			require.LessOrEqual(t, len(l.Text), max)
			require.Equal(t, l.TooLong, l.Text == nil)
			last = l.Number
		}
	})
}
