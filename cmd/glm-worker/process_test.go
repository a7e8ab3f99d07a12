package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
)

// The tests run real workers: this test binary plays them, and the parents of some, when it is told to.
const roleEnv = "GLM_WORKER_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "worker":
		main()
	case "parent": // starts a worker and waits to be killed; its standard input ends only with the test
		c := exec.Command(os.Args[0], os.Args[1:]...)
		c.Env = append(os.Environ(), roleEnv+"=worker")
		c.Stderr = os.Stderr
		if _, err := c.StdinPipe(); err != nil {
			panic(err)
		}
		if err := c.Start(); err != nil {
			panic(err)
		}
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// modelFile is the model that the project ships; GLM_TEST_MODEL names another one.
func modelFile(t testing.TB) string {
	t.Helper()
	path := "model/tinyglm.gguf"
	if other := os.Getenv("GLM_TEST_MODEL"); other != "" {
		path = other
	}
	_, err := os.Stat(path)
	require.NoError(t, err, "the test model is missing: check out cmd/glm-worker/model/tinyglm.gguf, or name another in GLM_TEST_MODEL")
	return path
}

// process is a running worker.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	socket string
	log    *bufio.Scanner
	lines  []string
	http   *http.Client
	ended  bool
}

// launch starts a worker, or a parent that starts one.
func launch(t testing.TB, role, socket string, args ...string) *process {
	t.Helper()
	p := &process{t: t, socket: socket}
	p.cmd = exec.Command(os.Args[0], append([]string{"--socket", socket}, args...)...)
	p.cmd.Env = append(os.Environ(), roleEnv+"="+role)
	r, w, err := os.Pipe() // not StderrPipe: Wait would close it under the reader
	require.NoError(t, err)
	p.cmd.Stderr = w
	_, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	w.Close()
	p.log = bufio.NewScanner(r)
	p.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		if !p.ended {
			_ = p.cmd.Wait()
		}
		r.Close()
	})
	return p
}

// until reads the log up to a line that contains text.
func (p *process) until(text string) {
	p.t.Helper()
	for p.log.Scan() {
		p.lines = append(p.lines, p.log.Text())
		if strings.Contains(p.log.Text(), text) {
			return
		}
	}
	p.t.Fatalf("the worker ended without saying %q:\n%s", text, strings.Join(p.lines, "\n"))
}

// rest reads the log to its end, when all that hold it are gone.
func (p *process) rest() string {
	for p.log.Scan() {
		p.lines = append(p.lines, p.log.Text())
	}
	return strings.Join(p.lines, "\n")
}

// code waits for the process to end.
func (p *process) code() int {
	p.rest()
	_ = p.cmd.Wait()
	p.ended = true
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) post(body string) (int, map[string]any) {
	r, err := p.http.Post("http://worker/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		return 0, nil
	}
	defer r.Body.Close()
	var out map[string]any
	_ = json.NewDecoder(r.Body).Decode(&out)
	return r.StatusCode, out
}

func (p *process) ask(prompt, more string) (text string) {
	b, _ := json.Marshal(prompt)
	status, out := p.post(fmt.Sprintf(`{"temperature":0,"messages":[{"role":"user","content":%s}]%s}`, b, more))
	if status != 200 {
		return fmt.Sprint(status, out)
	}
	choice := out["choices"].([]any)[0].(map[string]any)
	return choice["message"].(map[string]any)["content"].(string)
}

func ready(t testing.TB, args ...string) *process {
	t.Helper()
	p := launch(t, "worker", filepath.Join(t.TempDir(), "s"), append([]string{"--model", modelFile(t), "--slots", "32"}, args...)...)
	p.until("msg=ready")
	return p
}

var prompts = func() (out []string) {
	for i := range 32 {
		out = append(out, fmt.Sprintf("Normalise the date to ISO 8601: %d March %d", i%28+1, 1980+i),
			fmt.Sprintf("Normalise the phone number to E.164: (%d) %d-%04d", 201+i, 555-i, 1000+37*i))
	}
	return out
}()

// An answer does not depend on who else is asking.
func TestAnswersAloneAndAmongNeighbours(t *testing.T) {
	p := ready(t, "--queue", "128")
	alone := make([]string, len(prompts))
	for i, q := range prompts {
		alone[i] = p.ask(q, "")
		require.NotEmpty(t, alone[i])
	}
	for range 3 {
		var all sync.WaitGroup
		among := make([]string, len(prompts))
		for i, q := range prompts {
			all.Go(func() { among[i] = p.ask(q, "") })
		}
		all.Wait()
		require.Equal(t, alone, among)
	}
}

func TestSchemaOnTheRealModel(t *testing.T) {
	p := ready(t)
	schema := `{"type":"object","properties":{"name":{"type":"string","maxLength":20},"born":{"type":"string","format":"date"},"age":{"type":"integer","minimum":0,"maximum":150},"tags":{"type":"array","items":{"enum":["a","b"]},"maxItems":3}},"required":["name","born","age"],"additionalProperties":false}`
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(schema))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	require.NoError(t, c.AddResource("mem:///s", doc))
	valid, err := c.Compile("mem:///s")
	require.NoError(t, err)
	for _, temperature := range []string{"0", "1", "1.5"} {
		for seed := range 10 {
			status, out := p.post(fmt.Sprintf(`{"seed":%d,"temperature":%s,"messages":[{"role":"user","content":"Convert the CSV row to JSON: Maria,34"}],
				"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":%s}}}`, seed, temperature, schema))
			require.Equal(t, 200, status, "%v", out)
			text := out["choices"].([]any)[0].(map[string]any)["message"].(map[string]any)["content"].(string)
			v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
			require.NoError(t, err, text)
			require.NoError(t, valid.Validate(v), text)
		}
	}
	require.Equal(t, 0, func() int { require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM)); return p.code() }())
}

// SIGTERM: what was accepted is finished, then the process ends well and leaves nothing behind.
func TestDrain(t *testing.T) {
	p := ready(t)
	body := `{"stream":true,"temperature":0,"max_tokens":400,"messages":[{"role":"user","content":"count"}],
		"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"array","items":{"type":"integer"},"minItems":150,"maxItems":150}}}}`
	r, err := p.http.Post("http://worker/v1/chat/completions", "application/json", strings.NewReader(body))
	require.NoError(t, err)
	defer r.Body.Close()
	lines := bufio.NewScanner(r.Body)
	require.True(t, lines.Scan(), "the answer has begun")
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	last, pieces := "", 1
	for lines.Scan() {
		if lines.Text() != "" {
			last = lines.Text()
			pieces++
		}
	}
	require.Equal(t, "data: [DONE]", last, "after %d pieces", pieces)
	require.Greater(t, pieces, 100)
	require.Equal(t, exitOK, p.code(), p.lines)
	for _, left := range []string{p.socket, p.socket + ".lock"} {
		_, err := os.Lstat(left)
		require.ErrorIs(t, err, os.ErrNotExist)
	}
}

func TestKilledWorkersSocketIsTakenOver(t *testing.T) {
	p := ready(t)
	other := launch(t, "worker", p.socket, "--model", modelFile(t))
	require.Equal(t, exitRefused, other.code())
	require.Contains(t, other.rest(), "another worker holds")
	require.NotEmpty(t, p.ask(prompts[0], ""), "the first one is not disturbed")

	require.NoError(t, p.cmd.Process.Kill())
	p.code()
	_, err := os.Lstat(p.socket)
	require.NoError(t, err, "a killed worker leaves its socket")
	next := launch(t, "worker", p.socket, "--model", modelFile(t))
	next.until("msg=ready")
	require.NotEmpty(t, next.ask(prompts[0], ""))
	st, err := os.Stat(p.socket)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm(), "nobody else may connect")
}

func TestOtherPeoplesFilesAreLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	require.NoError(t, os.WriteFile(path, []byte("precious"), 0o600))
	p := launch(t, "worker", path, "--model", modelFile(t))
	require.Equal(t, exitRefused, p.code())
	require.Contains(t, p.rest(), "is no socket")
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "precious", string(b))

	require.NoError(t, os.Remove(path))
	l, err := net.Listen("unix", path) // somebody without our lock
	require.NoError(t, err)
	defer l.Close()
	p = launch(t, "worker", path, "--model", modelFile(t))
	require.Equal(t, exitRefused, p.code())
	require.Contains(t, p.rest(), "somebody answers")
}

// The worker goes when its parent is killed: told by the kernel, or by the end of its standard input.
func TestDiesWithItsParent(t *testing.T) {
	for _, args := range [][]string{nil, {"--parent-stdin"}} {
		p := launch(t, "parent", filepath.Join(t.TempDir(), "s"), append(args, "--model", modelFile(t))...)
		p.until("msg=ready")
		require.NotEmpty(t, p.ask(prompts[0], ""))
		require.NoError(t, p.cmd.Process.Kill())
		require.Contains(t, p.rest(), "the parent is gone") // the log ends only when the worker has ended
		p.code()
	}
}

func TestParentClosesStdin(t *testing.T) {
	p := &process{t: t}
	p.cmd = exec.Command(os.Args[0], "--socket", filepath.Join(t.TempDir(), "s"), "--model", modelFile(t), "--parent-stdin")
	p.cmd.Env = append(os.Environ(), roleEnv+"=worker")
	p.cmd.Stdin = bytes.NewReader(nil)
	require.Error(t, p.cmd.Run())
	require.Equal(t, exitFailed, p.cmd.ProcessState.ExitCode())
}

// Damaged and foreign files end in a sentence, not in a crash.
func TestUnusableModels(t *testing.T) {
	good, err := os.ReadFile(modelFile(t))
	require.NoError(t, err)
	for says, content := range map[string][]byte{
		"cut short":        good[:len(good)-1000],
		"ends in its head": good[:5000],
		"not a GGUF file":  []byte("hello, this is no model at all"),
		`is \"phi3\"`:      bytes.Replace(good, []byte("glm4"), []byte("phi3"), 1),
		"no token <sop>":   bytes.Replace(good, []byte("<sop>"), []byte("<sob>"), 1),
	} {
		path := filepath.Join(t.TempDir(), "m.gguf")
		require.NoError(t, os.WriteFile(path, content, 0o600))
		p := launch(t, "worker", filepath.Join(t.TempDir(), "s"), "--model", path)
		require.Equal(t, exitRefused, p.code(), says)
		require.Contains(t, p.rest(), says)
		require.NotContains(t, p.rest(), "goroutine")
	}
	p := launch(t, "worker", filepath.Join(t.TempDir(), "s"), "--model", "/nowhere.gguf")
	require.Equal(t, exitRefused, p.code())
}

func TestFlags(t *testing.T) {
	for says, args := range map[string][]string{
		"--model is missing": {"--socket", "s"}, "--socket is missing": {"--model", "m"}, "unexpected argument": {"--model", "m", "--socket", "s", "x"},
		"--slots is 0": {"--model", "m", "--socket", "s", "--slots", "0"}, "--batch is 4": {"--model", "m", "--socket", "s", "--batch", "4"},
		"at most 107": {"--model", "m", "--socket", strings.Repeat("s", 108)}, "--ctx is 1": {"--model", "m", "--socket", "s", "--ctx", "1"},
		"--queue is 0": {"--model", "m", "--socket", "s", "--queue", "0"}, "--threads is 0": {"--model", "m", "--socket", "s", "--threads", "0"},
		"--drain is 0s": {"--model", "m", "--socket", "s", "--drain", "0s"}, "--log-format is": {"--model", "m", "--socket", "s", "--log-format", "xml"},
		"--body-bytes": {"--model", "m", "--socket", "s", "--body-bytes", "1"}, "not defined": {"--foo"},
	} {
		_, err := parse(args, io.Discard)
		require.ErrorContains(t, err, says)
	}
	c, err := parse([]string{"--model", "/a/glm.gguf", "--socket", "s"}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, "glm", c.name)
	require.Equal(t, 1, c.threads)
}

// cpuSeconds is the processor time that the worker has used.
func (p *process) cpuSeconds() (seconds float64) {
	p.t.Helper()
	r, err := p.http.Get("http://worker/metrics")
	require.NoError(p.t, err)
	defer r.Body.Close()
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "process_cpu_seconds_total "); ok {
			seconds, err = strconv.ParseFloat(value, 64)
			require.NoError(p.t, err)
		}
	}
	return seconds
}

// BenchmarkAnswers asks a real worker over its socket. go test -bench Answers -benchtime 2000x
func BenchmarkAnswers(b *testing.B) {
	for _, clients := range []int{1, 32} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			p := ready(b, "--queue", "64")
			var next atomic.Int64
			var all sync.WaitGroup
			p.ask(prompts[0], "") // the first round reserves memory
			began, before := time.Now(), p.cpuSeconds()
			b.ResetTimer()
			for range clients {
				all.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						if text := p.ask(prompts[int(i)%len(prompts)], ""); text == "" {
							b.Error("no answer")
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "answers/s")
			b.ReportMetric(1000*(p.cpuSeconds()-before)/float64(b.N), "cpu-ms/answer") // tells more on a busy machine
		})
	}
}
