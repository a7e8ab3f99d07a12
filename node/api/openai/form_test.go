package openai

import (
	"bytes"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/persistence/fault"
)

// head are the headers of a form with a boundary.
func head(boundary string) http.Header {
	return http.Header{"Content-Type": {"multipart/form-data; boundary=" + boundary}}
}

// take reads a form from body and returns what it says.
func takeForm(h http.Header, body io.Reader) (name, content string, fields map[string]string, err error) {
	f, err := openForm(h, body)
	if err != nil {
		return "", "", nil, err
	}
	err = f.read("file", func(filename string, r io.Reader) error {
		name = filename
		b, err := io.ReadAll(r)
		content = string(b)
		return err
	})
	return name, content, f.fields, err
}

const plain = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n\r\n{}\r\n\r\n--B\r\n" +
	"Content-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--B--\r\n"

func TestForm(t *testing.T) {
	name, content, fields, err := takeForm(head("B"), iotest.OneByteReader(strings.NewReader(plain)))
	require.NoError(t, err)
	require.Equal(t, "a.jsonl", name)
	require.Equal(t, "{}\r\n", content)
	require.Equal(t, map[string]string{"purpose": "batch"}, fields)

	for n := range len(plain) - 2 { // all but the last line's end
		_, _, _, err := takeForm(head("B"), strings.NewReader(plain[:n]))
		require.Error(t, err, "cut after %d bytes", n)
		require.Equal(t, http.StatusBadRequest, ErrorOf(err).Status, "%v", err)
	}
	_, content, _, err = takeForm(head("B"), strings.NewReader(plain[:len(plain)-2]))
	require.NoError(t, err)
	require.Equal(t, "{}\r\n", content)
	with := func(old, new string) string { return strings.Replace(plain, old, new, 1) }
	part := "Content-Disposition: form-data; name=\"file\"; filename=\"a.jsonl\"\r\n"
	for _, c := range []struct {
		why  string
		h    http.Header
		body string
		code int
		says string
	}{
		{"no multipart", http.Header{"Content-Type": {"application/json"}}, "{}", 400, "multipart/form-data"},
		{"no type", http.Header{}, plain, 400, "multipart/form-data"},
		{"no boundary", http.Header{"Content-Type": {"multipart/form-data"}}, plain, 400, "boundary"},
		{"long boundary", head(strings.Repeat("x", 71)), plain, 400, "boundary"},
		{"another boundary", head("C"), plain, 400, "broke off"},
		{"packed", http.Header{"Content-Type": {"multipart/form-data; boundary=B"}, "Content-Encoding": {"gzip"}}, plain, 415, "gzip"},
		{"packed part", head("B"), with(part, part+"Content-Encoding: gzip\r\n"), 415, "gzip"},
		{"base64", head("B"), with(part, part+"Content-Transfer-Encoding: base64\r\n"), 415, "base64"},
		{"quoted-printable", head("B"), with(part, part+"Content-Transfer-Encoding: quoted-printable\r\n"), 415, "quoted"},
		{"no file", head("B"), with("\"file\"", "\"fail\""), 400, "'file'"},
		{"two files", head("B"), with("\"purpose\"", "\"file\""), 400, "two parts"},
		{"twice", head("B"), with("\"file\"", "\"purpose\""), 400, "twice"},
		{"no name", head("B"), with("; name=\"purpose\"", ""), 400, "no name"},
		{"long field", head("B"), with("batch", strings.Repeat("b", fieldMax+1)), 400, "fieldMax"},
		{"empty", head("B"), "", 400, "broke off"},
	} {
		_, _, _, err := takeForm(c.h, strings.NewReader(c.body))
		require.ErrorContains(t, err, c.says, c.why)
		require.Equal(t, c.code, ErrorOf(err).Status, c.why)
	}
	var many bytes.Buffer
	w := multipart.NewWriter(&many)
	for i := range fieldsMax + 1 {
		require.NoError(t, w.WriteField(strings.Repeat("x", i+1), ""))
	}
	require.NoError(t, w.Close())
	_, _, _, err = takeForm(head(w.Boundary()), &many)
	require.ErrorContains(t, err, "fieldsMax")
	_, _, _, err = takeForm(head("B"), io.MultiReader(strings.NewReader(plain[:75]), iotest.ErrReader(fault.New(fault.Unavailable, "t", "", "stopping"))))
	require.Equal(t, http.StatusServiceUnavailable, ErrorOf(err).Status, "what this side says is not the client's fault: %v", err)
}

// FuzzForm: whatever comes, a form is whole or refused as the client's mistake; what it says of a whole one is what a
// writer of forms wrote.
func FuzzForm(f *testing.F) {
	f.Add([]byte(plain), "B", []byte("x"), "a.jsonl")
	f.Add([]byte("--B--"), "B", []byte("\r\n--B--\r\n"), "\"\\")
	f.Add([]byte(plain[:len(plain)-9]), "B", []byte{}, "")
	f.Fuzz(func(t *testing.T, body []byte, boundary string, content []byte, name string) {
		if _, _, _, err := takeForm(head(boundary), bytes.NewReader(body)); err != nil {
			var e *Error
			require.True(t, errors.As(err, &e), "%v", err)
			require.True(t, e.Status >= 400 && e.Status < 500)
		}
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		part, err := w.CreateFormFile("file", name)
		require.NoError(t, err)
		_, err = part.Write(content)
		require.NoError(t, err)
		require.NoError(t, w.WriteField("purpose", "batch"))
		require.NoError(t, w.Close())
		whole := b.Bytes()
		_, got, fields, err := takeForm(head(w.Boundary()), bytes.NewReader(whole))
		if err == nil { // a name may hold what no header may
			require.Equal(t, string(content), got)
			require.Equal(t, "batch", fields["purpose"])
		}
		_, _, _, err = takeForm(head(w.Boundary()), bytes.NewReader(whole[:len(whole)-5]))
		require.Error(t, err, "it has no end")
	})
}
