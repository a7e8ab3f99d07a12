//go:build wasip1

// The module of the tests: the first word of its input says what it does. It has no fmt, so that it is compiled soon.
package main

import (
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"time"
)

var kept [][]byte

func main() { run() }

//go:wasmexport score
func score() { run() }

//go:wasmexport adds
func adds(n int32) int32 { return n + 1 }

func run() {
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	do, rest, _ := strings.Cut(string(in), " ")
	n, _ := strconv.Atoi(rest) // 0 where it is a text
	switch do {
	case "score":
		os.Stdout.WriteString(`{"words":` + strconv.Itoa(len(strings.Fields(rest))) + `}`)
	case "loop":
		for {
		}
	case "bomb":
		for {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			kept = append(kept, b)
		}
	case "panic":
		panic("on purpose")
	case "exit":
		os.Stderr.WriteString("it says why")
		os.Exit(n)
	case "huge":
		for {
			os.Stdout.WriteString(strings.Repeat("x", 1<<16))
		}
	case "write":
		os.Stdout.WriteString(strings.Repeat("x", n))
	case "log":
		os.Stderr.WriteString(strings.Repeat("log ", n))
		os.Stdout.WriteString("done")
	case "binary":
		os.Stdout.Write([]byte{0xff})
	case "world":
		began := time.Now()
		time.Sleep(24 * time.Hour)
		slept := time.Since(began)
		_, file := os.ReadFile("/etc/passwd")
		_, folder := os.ReadDir(".")
		os.Stdout.WriteString(strings.Join([]string{began.UTC().Format(time.RFC3339), strconv.FormatBool(slept >= 24*time.Hour), strconv.FormatUint(rand.Uint64(), 10),
			strconv.Itoa(len(os.Environ())), strconv.FormatBool(file != nil && folder != nil)}, " "))
	}
}
