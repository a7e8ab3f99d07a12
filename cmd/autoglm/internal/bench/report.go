package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// reading is one figure of one run of a benchmark.
type reading struct {
	figure string
	value  float64
	unit   string
	lat    *Latency // of the requests behind the figure; nil when there were none
	use    *usage   // processor time meanwhile; nil when the figure is no stretch of time
	note   string
}

// usage is processor time over a stretch of time, in cores: 1 is one core all the time.
type usage struct {
	node, client float64
}

// Row is one figure of the report: the median of its repeats.
type Row struct {
	Benchmark string    `json:"benchmark"`
	Figure    string    `json:"figure"`
	Value     float64   `json:"value"`
	Unit      string    `json:"unit"`
	Runs      []float64 `json:"runs"` // each repeat, in order
	Min       float64   `json:"min"`
	Max       float64   `json:"max"`

	Aim   *float64 `json:"aim,omitempty"`   // in Unit
	Ratio *float64 `json:"ratio,omitempty"` // 1 and more meets the aim, whichever direction is better

	Latency     *Latency `json:"latency,omitempty"` // medians of the repeats; Count is all of them
	NodeCores   *float64 `json:"node_cores,omitempty"`
	ClientCores *float64 `json:"client_cores,omitempty"`
	NodeMicros  *float64 `json:"node_cpu_us_each,omitempty"` // node's processor time for each request, task or answer: other work on the machine moves it least
	Note        string   `json:"note,omitempty"`
	Error       string   `json:"error,omitempty"` // the benchmark could not be measured; the figures are zero
}

// Report is everything that a run of the command found.
type Report struct {
	StartedAt time.Time `json:"started_at"`
	Machine   Machine   `json:"machine"`
	Setting   string    `json:"setting,omitempty"` // of a cluster: what its nodes share
	Repeats   int       `json:"repeats"`
	Rows      []Row     `json:"rows"`
}

// merge makes rows of the readings of all repeats of one benchmark. The first repeat sets the figures and their order.
func merge(name string, runs [][]reading) []Row {
	if len(runs) == 0 {
		return nil
	}
	rows := make([]Row, 0, len(runs[0]))
	for _, first := range runs[0] {
		var same []reading
		for _, run := range runs {
			for _, r := range run {
				if r.figure == first.figure {
					same = append(same, r)
				}
			}
		}
		rows = append(rows, rowOf(name, same))
	}
	return rows
}

// rowOf sums up the repeats of one figure; there is at least one.
func rowOf(name string, same []reading) Row {
	row := Row{Benchmark: name, Figure: same[0].figure, Unit: same[0].unit, Note: same[len(same)-1].note}
	row.Min, row.Max = same[0].value, same[0].value
	var p50, p99, most, node, client []float64
	count := 0
	for _, r := range same {
		row.Runs = append(row.Runs, r.value)
		row.Min, row.Max = min(row.Min, r.value), max(row.Max, r.value)
		if r.lat != nil {
			count += r.lat.Count
			p50, p99, most = append(p50, r.lat.P50), append(p99, r.lat.P99), append(most, r.lat.Max)
		}
		if r.use != nil {
			node, client = append(node, r.use.node), append(client, r.use.client)
		}
	}
	row.Value = median(row.Runs)
	if count > 0 {
		row.Latency = &Latency{Count: count, P50: median(p50), P99: median(p99), Max: median(most)}
	}
	if len(node) > 0 {
		n, c := median(node), median(client)
		row.NodeCores, row.ClientCores = &n, &c
		if strings.HasSuffix(row.Unit, "/s") && row.Value > 0 {
			us := 1e6 * n / row.Value
			row.NodeMicros = &us
		}
	}
	if a, ok := aims[name][row.Figure]; ok {
		ratio := a.ratio(row.Value)
		row.Aim, row.Ratio = &a.value, &ratio
	}
	return row
}

// ratio tells how far value meets the aim: 1 just does, 2 is twice as good, whichever direction is better.
func (a aim) ratio(value float64) float64 {
	switch {
	case a.better == more:
		return value / a.value
	case value <= 0:
		return 0
	}
	return a.value / value
}

// writeJSON writes the report as one indented object.
func (r *Report) writeJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return fmt.Errorf("bench.report: %w", err)
	}
	return nil
}
