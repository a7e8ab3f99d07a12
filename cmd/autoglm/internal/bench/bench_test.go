package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
)

// execute runs the command against this test program as a node.
func execute(t *testing.T, args ...string) (out, progress string, err error) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := NewCommand(WithBinary(self))
	var stdout, stderr bytes.Buffer
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(t.Context())
	return stdout.String(), stderr.String(), err
}

// small are flags that keep each benchmark short; what it measures then means nothing.
func small(dir string) []string {
	return []string{"--dir", dir, "--duration", "200ms", "--tasks", "500", "--streams", "2", "--rate", "100", "--rate-time", "200ms",
		"--engine-latency", "5ms", "--waiting", "1000", "--timeout", "1m"}
}

func TestEveryBenchmarkMeasuresAProcess(t *testing.T) {
	dir := t.TempDir()
	out, progress, err := execute(t, append(small(dir), "--repeat", "2", "-o", "json")...)
	require.NoError(t, err, "%s\n%s", progress, out)
	var rep Report
	require.NoError(t, json.Unmarshal([]byte(out), &rep))
	require.Equal(t, 2, rep.Repeats)
	require.Positive(t, rep.Machine.Cores)
	require.Equal(t, datasyncCount, rep.Machine.Datasync.Count)
	var seen []string
	for _, row := range rep.Rows {
		require.Empty(t, row.Error, row.Benchmark)
		if row.Unit != "cores" { // the kernel counts in hundredths of a second
			require.Positive(t, row.Value, "%s: %s", row.Benchmark, row.Figure)
		}
		require.Len(t, row.Runs, 2, "%s: %s", row.Benchmark, row.Figure)
		seen = append(seen, row.Benchmark)
	}
	picked, err := pick(nil, 1)
	require.NoError(t, err)
	require.Len(t, slices.Compact(seen), len(picked))
	for name, figures := range aims {
		if !slices.ContainsFunc(picked, func(b benchmark) bool { return b.name == name }) {
			continue // of a cluster
		}
		for f, a := range figures {
			i := slices.IndexFunc(rep.Rows, func(r Row) bool { return r.Benchmark == name && r.Figure == f })
			require.GreaterOrEqual(t, i, 0, "no benchmark %s gave the figure %q, which has an aim", name, f)
			require.Equal(t, a.value, *rep.Rows[i].Aim)
		}
	}
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left, "the data stays behind")
}

func TestOnlyRunsWhatIsNamed(t *testing.T) {
	out, progress, err := execute(t, append(small(t.TempDir()), "--only", "bulk,submit-1")...)
	require.NoError(t, err)
	require.Contains(t, out, "submit-1")
	require.Contains(t, out, "100,000") // bulk's aim
	require.NotContains(t, out, "drain")
	require.Contains(t, progress, "submit-1, run 1 of 1")
}

func TestFlagsThatCannotWork(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--only", "sumbit-1"}, `--only: there is no benchmark "sumbit-1": use submit-1, submit-32`},
		{[]string{"-o", "xml"}, `--output is "xml": use table or json`},
		{[]string{"--duration", "1ms"}, "--duration is 1ms: use at least 100ms"},
		{[]string{"--tasks", "0"}, "--tasks is 0"},
		{[]string{"--waiting", "-1"}, "--waiting -1"},
		{[]string{"--streams", "0"}, "--streams is 0: use 1 to 64"},
		{[]string{"--rate", "0"}, "--rate is 0: use 0.1 to 100000"},
		{[]string{"--rate", "NaN"}, "--rate is NaN"},
		{[]string{"--rate", "100000", "--rate-time", "1h"}, "are more than 1,000,000 tasks"},
		{[]string{"--rate-time", "0s"}, "--rate-time is 0s"},
		{[]string{"--engine", "gpt"}, `--engine is "gpt": use fixed, embedded or the URL of an engine`},
		{[]string{"--engine-latency", "0s"}, "--engine-latency is 0s"},
		{[]string{"--repeat", "0"}, "--repeat is 0: use 1 to 100"},
		{[]string{"--nodes", "2"}, "--nodes is 2: use 1, or 3 to 16 for a cluster"},
		{[]string{"--nodes", "17"}, "--nodes is 17"},
		{[]string{"--kills", "0"}, "--kills is 0: use 1 to 10000"},
		{[]string{"--idle-time", "1ms"}, "--idle-time is 1ms: use at least 100ms"},
		{[]string{"--only", "failover"}, "failover cannot run on --nodes 1"},
		{[]string{"--timeout", "1ms"}, "--timeout is 1ms: use at least 1s"},
		{[]string{"more"}, "unknown command"},
		{[]string{"--dir", filepath.Join(t.TempDir(), "nowhere")}, "nowhere"},
	} {
		_, _, err := execute(t, c.args...)
		require.ErrorContains(t, err, c.want, "%v", c.args)
		if !strings.Contains(c.want, "nowhere") {
			require.Equal(t, cli.ExitUsage, cli.Code(err), "%v", c.args)
		}
	}
}

func TestABenchmarkThatFailsIsARow(t *testing.T) {
	args := append(small(t.TempDir()), "--only", "utilisation,submit-1", "--engine", "embedded")
	out, _, err := execute(t, args...)
	require.ErrorContains(t, err, "1 of the benchmarks could not be measured")
	require.Contains(t, out, "utilisation: not measured: --engine embedded needs --prompts FILE")
	require.Contains(t, out, "submits")
}

func TestInterruptKeepsWhatWasMeasured(t *testing.T) {
	r := newRunner(t)
	r.o.only, r.o.duration = []string{Submit1}, time.Hour
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupt signal received"))
	rep, err := r.run(ctx)
	require.Equal(t, cli.ExitInterrupted, cli.Code(err))
	require.NotNil(t, rep)
	require.Zero(t, rep.failures())
}

func newRunner(t *testing.T) *runner {
	self, err := os.Executable()
	require.NoError(t, err)
	return &runner{binary: self, dir: t.TempDir(), say: &bytes.Buffer{},
		o: options{duration: time.Second, tasks: 100, waiting: 100, streams: 1, rate: 10, rateTime: time.Second, repeat: 1, timeout: time.Minute, nodes: 1, kills: 1, idleTime: time.Second}}
}

func TestANodeThatDoesNotStartSaysWhy(t *testing.T) {
	r := newRunner(t)
	n, err := newNode(r.binary, filepath.Join(r.dir, "n"), "--engine", "broken")
	require.NoError(t, err)
	_, err = n.start(t.Context())
	require.ErrorContains(t, err, "the node ended before it was ready (exit status 1)")
	require.ErrorContains(t, err, `engine "broken"`)
	n.kill()
	require.Zero(t, n.stop())
}

func TestANodeThatNeverStartedCanBeStopped(t *testing.T) {
	n, err := newNode(filepath.Join(t.TempDir(), "no-such-program"), filepath.Join(t.TempDir(), "n"))
	require.NoError(t, err)
	n.kill()
	_, err = n.start(t.Context())
	require.ErrorContains(t, err, "no such file")
	n.kill()
	require.Zero(t, n.stop())
}

func TestInterruptEndsTheNode(t *testing.T) {
	r := newRunner(t)
	r.o.duration = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	var child *exec.Cmd
	_, err := r.onNode(func(ctx context.Context, n *node) ([]reading, error) {
		child = n.cmd
		cancel()
		return r.submitBench(2)(ctx, n)
	})(ctx, filepath.Join(r.dir, "n"))
	require.ErrorIs(t, err, context.Canceled)
	require.NotNil(t, child.ProcessState, "it was waited for")
	require.Equal(t, "signal: killed", child.ProcessState.String())
}

func TestTimeoutIsNamed(t *testing.T) {
	r := newRunner(t)
	r.o.duration, r.o.timeout = time.Hour, 3*time.Second
	_, err := r.once(t.Context(), Submit1, 1)
	require.ErrorIs(t, err, errTimeout)
	require.NoDirExists(t, filepath.Join(r.dir, Submit1+"-1"))
}

func TestARateTooHighIsNamed(t *testing.T) {
	slow := slowServer(t)
	_, err := openLoop(t.Context(), &node{addr: slow}, newTemplate("o", false), 50_000, time.Second)
	require.ErrorContains(t, err, "256 requests wait for their answers: the node is too slow for 50,000/s")
}
