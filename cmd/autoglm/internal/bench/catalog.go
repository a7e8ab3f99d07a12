package bench

import (
	"slices"
	"strings"

	"github.com/open-autoglm/autoglm/cmd/autoglm/internal/cli"
)

// Names of the benchmarks, in the order in which they run.
const (
	Submit1      = "submit-1"
	Submit32     = "submit-32"
	Bulk         = "bulk"
	Drain        = "drain"
	StartLatency = "start-latency"
	Utilisation  = "utilisation"
	Waiting      = "waiting"
)

// benchmark is one entry of --only.
type benchmark struct {
	name  string
	about string
}

var catalog = []benchmark{
	{Submit1, "durable submit, one client: a POST for each task"},
	{Submit32, "durable submit, 32 clients: a POST for each task"},
	{Bulk, "durable submit of an NDJSON stream, one or more at once"},
	{Drain, "no-op drain: from the first submit until an engine that answers at once has completed all"},
	{StartLatency, "submit to start at a steady rate, from the tasks' own histories"},
	{Utilisation, "answers per second through the node against the same engine driven directly"},
	{Waiting, "a backlog of waiting tasks: memory, restart, submit and list with it in place"},
}

// better tells in which direction a figure improves.
type better uint8

const (
	more better = iota + 1
	less
)

// aim is what the design asks of a figure.
type aim struct {
	value  float64 // in the figure's unit
	better better
}

// aims has the design's numbers, by benchmark and figure. They are meant for 2 cores; the ones of waiting for
// 1,000,000 tasks.
var aims = map[string]map[string]aim{
	Submit32: {figSubmits: {25_000, more}},
	Bulk:     {figTasks: {100_000, more}},
	Drain:    {figTasks: {30_000, more}},
	StartLatency: {
		figStartedP50: {2, less},
		figStartedP99: {10, less},
	},
	Utilisation: {figBusy: {97, more}},
	Waiting: {
		figRSS:         {500, less},
		figRestartTerm: {5, less},
		figRestartKill: {5, less},
	},
}

// Figures that aims or tests name.
const (
	figSubmits     = "submits"
	figTasks       = "tasks"
	figStartedP50  = "submit to started, p50"
	figStartedP99  = "submit to started, p99"
	figBusy        = "as busy as driven directly"
	figRSS         = "memory (RSS) with the backlog"
	figRestartTerm = "restart after SIGTERM"
	figRestartKill = "restart after kill -9"
)

// pick returns the benchmarks named in only, in the catalog's order; all when it is empty.
func pick(only []string) ([]benchmark, error) {
	if len(only) == 0 {
		return catalog, nil
	}
	var picked []benchmark
	for _, b := range catalog {
		if slices.Contains(only, b.name) {
			picked = append(picked, b)
		}
	}
	for _, name := range only {
		if !slices.ContainsFunc(catalog, func(b benchmark) bool { return b.name == name }) {
			return nil, cli.Usage("--only: there is no benchmark %q: use %s", name, strings.Join(names(), ", "))
		}
	}
	return picked, nil
}

func names() []string {
	out := make([]string, len(catalog))
	for i, b := range catalog {
		out[i] = b.name
	}
	return out
}
