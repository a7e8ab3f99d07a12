// Command hungry is a server with OpenAI's API for tests of limits: asked to eat, it uses a GiB of memory. It is a program of its own because a test
// binary with the race detector has mapped more than any limit before it begins.
package main

import (
	"flag"
	"io"
	"net"
	"net/http"
	"strings"
)

var eaten [][]byte

func main() {
	listen := flag.String("listen", "", "")
	flag.Parse()
	http.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		for strings.Contains(string(b), "eat") && len(eaten) < 64 {
			chunk := make([]byte, 16<<20)
			for i := 0; i < len(chunk); i += 4096 {
				chunk[i] = 1
			}
			eaten = append(eaten, chunk)
		}
		io.WriteString(w, `{"model":"m","choices":[{"message":{"content":"well"},"finish_reason":"stop"}]}`)
	})
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		panic(err)
	}
	panic(http.Serve(l, nil))
}
