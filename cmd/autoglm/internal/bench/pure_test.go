package bench

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/actors/task"
)

func TestQuantile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	for _, c := range []struct {
		sorted []time.Duration
		q      float64
		want   time.Duration
	}{
		{[]time.Duration{7}, 0.5, 7},
		{[]time.Duration{7}, 0.99, 7},
		{[]time.Duration{1, 2}, 0.5, 1},
		{[]time.Duration{1, 2, 3}, 0.5, 2},
		{hundred, 0, 1},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
		{hundred[:50], 0.99, 50},
	} {
		require.Equal(t, c.want, quantile(c.sorted, c.q), "%v of %v", c.q, c.sorted)
	}
}

func TestLatencyOf(t *testing.T) {
	require.Nil(t, latencyOf(nil))
	require.Equal(t, &Latency{Count: 3, P50: 2, P99: 3, Max: 3},
		latencyOf([]time.Duration{3 * time.Millisecond, time.Millisecond, 2 * time.Millisecond}))
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{[]float64{4}, 4}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		require.Equal(t, c.want, median(c.in))
	}
}

func TestRate(t *testing.T) {
	require.Equal(t, 50.0, rate(100, 2*time.Second))
	require.Zero(t, rate(100, 0))
}

func TestAimRatio(t *testing.T) {
	for _, c := range []struct {
		aim         aim
		value, want float64
	}{
		{aim{100, more}, 50, 0.5}, {aim{100, more}, 200, 2}, {aim{10, less}, 5, 2}, {aim{10, less}, 20, 0.5}, {aim{10, less}, 0, 0},
	} {
		require.Equal(t, c.want, c.aim.ratio(c.value), "%+v of %v", c.aim, c.value)
	}
}

func TestMergeTakesMedianAndRange(t *testing.T) {
	run := func(v, p50 float64) []reading {
		return []reading{
			{figure: figSubmits, value: v, unit: "requests/s", lat: &Latency{Count: 10, P50: p50, P99: 9, Max: 10}, use: &usage{node: v / 100, client: 0.5}},
			{figure: "other", value: 1, unit: "s"},
		}
	}
	rows := merge(Submit32, [][]reading{run(100, 3), run(300, 1), run(200, 2)})
	require.Len(t, rows, 2)
	r := rows[0]
	require.Equal(t, []float64{100, 300, 200}, r.Runs)
	require.Equal(t, []float64{200, 100, 300}, []float64{r.Value, r.Min, r.Max})
	require.Equal(t, &Latency{Count: 30, P50: 2, P99: 9, Max: 10}, r.Latency)
	require.Equal(t, []float64{2, 0.5}, []float64{*r.NodeCores, *r.ClientCores})
	require.Equal(t, []float64{25_000, 200.0 / 25_000}, []float64{*r.Aim, *r.Ratio})
	require.Nil(t, rows[1].Aim)
	require.Nil(t, rows[1].Latency)
	require.InDelta(t, 1e6*2/200, *r.NodeMicros, 1e-9)
	require.Nil(t, rows[1].NodeCores)
	require.Nil(t, rows[1].NodeMicros)
	require.Empty(t, merge(Bulk, nil))
}

func TestFigure(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.1234: "0.123", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 1234: "1,234",
		-1234.5: "-1,234", 999_999: "999,999", 1_000_000: "1,000,000", -0.5: "-0.500"} {
		require.Equal(t, want, figure(v))
	}
}

func TestTable(t *testing.T) {
	aim, ratio, cores := 25_000.0, 0.5, 1.25
	r := &Report{Rows: []Row{
		{Benchmark: "submit-32", Figure: "submits", Value: 12_500, Unit: "requests/s", Runs: []float64{12_000, 13_000}, Min: 12_000, Max: 13_000,
			Aim: &aim, Ratio: &ratio, Latency: &Latency{Count: 1, P50: 1.5, P99: 12}, NodeCores: &cores, ClientCores: &cores},
		{Benchmark: "waiting", Figure: "list", Value: 0.25, Unit: "ms", Runs: []float64{0.25}},
		{Benchmark: "drain", Error: "it fell over"},
	}}
	var b bytes.Buffer
	require.NoError(t, r.writeTable(&b))
	lines := strings.Split(b.String(), "\n")
	require.Equal(t, "benchmark  figure   median  unit                range     aim  ratio  p50 ms  p99 ms  node cores  client cores", lines[0])
	require.Equal(t, "submit-32  submits  12,500  requests/s  12,000–13,000  25,000   0.50    1.50    12.0        1.25          1.25", lines[1])
	require.Equal(t, "waiting    list      0.250  ms", lines[2])
	require.Contains(t, b.String(), "\ndrain: not measured: it fell over\n")

	b.Reset()
	require.NoError(t, (&Report{}).writeTable(&b))
	require.Empty(t, b.String())
}

func TestJSONHasNoMarkup(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, (&Report{Rows: []Row{{Benchmark: "drain", Error: "a < b"}}}).writeJSON(&b))
	require.Contains(t, b.String(), `"error": "a < b"`)
	require.True(t, json.Valid(b.Bytes()))
}

func TestPick(t *testing.T) {
	namesOn := func(nodes int, only ...string) (out []string) {
		picked, err := pick(only, nodes)
		require.NoError(t, err)
		for _, b := range picked {
			out = append(out, b.name)
		}
		return out
	}
	require.Equal(t, []string{Submit1, Submit32, Bulk, Drain, StartLatency, Utilisation, Waiting}, namesOn(1))
	require.Equal(t, []string{Submit1, Submit32, Bulk, Drain, StartLatency, Utilisation, Failover, Grow, Idle}, namesOn(3))
	require.Equal(t, []string{Submit1, Waiting}, namesOn(1, Waiting, Submit1, Submit1))
	require.Equal(t, []string{Drain, Grow}, namesOn(3, Grow, Drain))
	for _, c := range []struct {
		nodes      int
		only, want string
	}{
		{1, "", "there is no benchmark"},
		{1, Failover, "failover cannot run on --nodes 1 (only with --nodes 3 or more)"},
		{3, Waiting, "waiting cannot run on --nodes 3 (only without --nodes)"},
	} {
		_, err := pick([]string{c.only}, c.nodes)
		require.ErrorContains(t, err, c.want)
	}
}

func TestEveryBenchmarkHasABody(t *testing.T) {
	r := &runner{}
	for _, b := range catalog {
		require.NotNil(t, r.body(b.name), b.name)
		require.NotEmpty(t, b.about)
	}
	require.Nil(t, r.body("other"))
	for name := range aims {
		require.Contains(t, names(), name)
	}
}

func TestTemplateMakesTasks(t *testing.T) {
	for _, waiting := range []bool{false, true} {
		var s task.Spec
		require.NoError(t, json.Unmarshal(newTemplate("a", waiting).line(nil, 42), &s))
		require.NoError(t, s.Validate())
		require.Equal(t, "a-42", s.ID)
		require.Equal(t, waiting, s.NotBefore != nil)
	}
}

func TestPromptLine(t *testing.T) {
	line, err := promptLine("u", "", []prompt{{Text: "one \"quoted\"\nline", MaxTokens: 7}, {Text: "two"}})
	require.NoError(t, err)
	var got []task.Spec
	for i := range 3 {
		var s task.Spec
		require.NoError(t, json.Unmarshal(line(nil, i), &s))
		got = append(got, s)
	}
	named, err := promptLine("u", "fixed", []prompt{{Text: "one"}})
	require.NoError(t, err)
	require.JSONEq(t, `{"task_id":"u-7","model":"fixed","prompt":"one"}`, string(named(nil, 7)))
	require.Equal(t, []task.Spec{{ID: "u-0", Prompt: "one \"quoted\"\nline", MaxTokens: 7}, {ID: "u-1", Prompt: "two"},
		{ID: "u-2", Prompt: "one \"quoted\"\nline", MaxTokens: 7}}, got)
}

func TestParsePrompts(t *testing.T) {
	got, err := parsePrompts([]byte("{\"task_id\":\"x\",\"prompt\":\"one\",\"max_tokens\":3}\n\n{\"prompt\":\"two\"}"))
	require.NoError(t, err)
	require.Equal(t, []prompt{{"one", 3}, {"two", 0}}, got)
	for in, want := range map[string]string{"": "there are none", "{}": "line 1 has no prompt", "\n{": "line 2:"} {
		_, err := parsePrompts([]byte(in))
		require.ErrorContains(t, err, want)
	}
}

func TestParseStat(t *testing.T) {
	d, err := parseStat([]byte("12 (a b) c) S 1 12 12 0 -1 4194560 900 0 0 0 150 25 9 9 20 0 7 0 1 2 3"))
	require.NoError(t, err)
	require.Equal(t, 1750*time.Millisecond, d)
	_, err = parseStat([]byte("12 (a) S 1"))
	require.Error(t, err)
	_, err = parseStat([]byte("12 (a) S 1 12 12 0 -1 4194560 900 0 0 0 x 25"))
	require.Error(t, err)
}

func TestParseMemory(t *testing.T) {
	m, err := parseMemory([]byte("Name:\ta\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n"))
	require.NoError(t, err)
	require.Equal(t, memory{rss: 1 << 20, peak: 2 << 20}, m)
	_, err = parseMemory([]byte("VmRSS:\t1 kB\n"))
	require.ErrorContains(t, err, "VmHWM")
	_, err = parseMemory([]byte("VmRSS:\tmuch\n"))
	require.Error(t, err)
}

func TestParseMachine(t *testing.T) {
	require.Equal(t, "Some CPU @ 2 GHz", parseProcessor([]byte("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: other\n")))
	require.NotEmpty(t, parseProcessor(nil))
	v, err := parseLoad([]byte("1.25 0.5 0.1 1/2 3\n"))
	require.NoError(t, err)
	require.Equal(t, 1.25, v)
	_, err = parseLoad(nil)
	require.Error(t, err)
}

func TestBusyMachineIsNamed(t *testing.T) {
	var b bytes.Buffer
	(&Machine{Cores: 2, Processor: "p", Load: 3, Busy: true}).write(&b)
	require.Contains(t, b.String(), "WARNING: other work")
	b.Reset()
	(&Machine{Cores: 2, Processor: "p"}).write(&b)
	require.NotContains(t, b.String(), "WARNING")
}

func TestBacklogOutlastsTheMeasurement(t *testing.T) {
	for _, perSecond := range []float64{0, 1, 320, 5000} {
		require.Greater(t, float64(backlog(perSecond, 12*time.Second)), perSecond*14)
	}
	require.Equal(t, 320.0, ceiling(16, 50*time.Millisecond))
}
