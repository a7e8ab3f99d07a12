package node

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/file"
)

// TestAClientThatGoesAwayLeavesNothing: chunked, as npm sends it, and with a length.
func TestAClientThatGoesAwayLeavesNothing(t *testing.T) {
	n := boot(t, testConfig(t))
	form := "--B\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--B\r\n" +
		"Content-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n" + strings.Repeat("x", 1<<20)
	for _, length := range []string{"Transfer-Encoding: chunked", "Content-Length: 2000000"} {
		conn, err := net.Dial("tcp", n.HTTPAddr())
		require.NoError(t, err)
		_, err = fmt.Fprintf(conn, "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=B\r\n%s\r\n\r\n", length)
		require.NoError(t, err)
		body := form
		if strings.HasPrefix(length, "Transfer") {
			body = fmt.Sprintf("%x\r\n%s\r\n", len(form), form)
		}
		_, err = io.WriteString(conn, body)
		require.NoError(t, err)
		require.NoError(t, conn.(*net.TCPConn).CloseWrite())
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Equal(t, http.StatusBadRequest, res.StatusCode, "%s", b)
		require.Contains(t, string(b), "nothing of it is kept")
		require.NoError(t, conn.Close())
	}
	page, _, err := n.files.List(t.Context(), file.Query{Limit: 10})
	require.NoError(t, err)
	require.Empty(t, page)
}

func TestAPackedFileIsRefused(t *testing.T) {
	c := testConfig(t)
	c.Files.BytesMax = 1000
	n := boot(t, c)
	post := func(body io.Reader, header ...string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+n.HTTPAddr()+"/v1/files", body)
		require.NoError(t, err)
		req.Header.Set("Content-Type", "multipart/form-data; boundary=B")
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(b)
	}
	form := func(n int) io.Reader {
		return bytes.NewReader([]byte("--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n" + strings.Repeat("x", n) +
			"\r\n--B\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--B--"))
	}
	status, text := post(form(1), "Content-Encoding", "gzip")
	require.Equal(t, http.StatusUnsupportedMediaType, status, text)
	status, text = post(form(1001))
	require.Equal(t, http.StatusRequestEntityTooLarge, status, text)
	status, text = post(form(1000))
	require.Equal(t, http.StatusOK, status, text)
}
