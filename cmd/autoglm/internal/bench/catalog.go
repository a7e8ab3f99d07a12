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
	Failover     = "failover"
	Grow         = "grow"
	Idle         = "idle"
)

// benchmark is one entry of --only.
type benchmark struct {
	name  string
	about string
	needs needs
}

// needs tells what a benchmark can run on.
type needs uint8

const (
	anyNodes needs = iota // a node alone or a cluster
	aloneOnly
	clusterOnly
)

// met tells whether so many nodes will do.
func (n needs) met(nodes int) bool { return n == anyNodes || (n == clusterOnly) == (nodes > 1) }

func (n needs) remark() string {
	return [...]string{anyNodes: "", aloneOnly: " (only without --nodes)", clusterOnly: " (only with --nodes 3 or more)"}[n]
}

var catalog = []benchmark{
	{Submit1, "durable submit, one client: a POST for each task", anyNodes},
	{Submit32, "durable submit, 32 clients: a POST for each task", anyNodes},
	{Bulk, "durable submit of an NDJSON stream, one or more at once", anyNodes},
	{Drain, "no-op drain: from the first submit until an engine that answers at once has completed all", anyNodes},
	{StartLatency, "submit to start at a steady rate, from the tasks' own histories", anyNodes},
	{Utilisation, "answers per second through the node against the same engine driven directly, and one at a time", anyNodes},
	{Waiting, "a backlog of waiting tasks: memory, restart, submit and list with it in place", aloneOnly},
	{Failover, "kill -9 of one node after another: until its shards commit and its tasks run elsewhere", clusterOnly},
	{Grow, "two nodes join under load, drain and leave again: time, throughput, failed requests", clusterOnly},
	{Idle, "processor time and memory of each node with nothing to do, before and after load", clusterOnly},
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
	Failover: {
		figCommitP99: {2, less},
		figRerunP99:  {5, less},
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
	figFailed      = "failed requests"
	figCommitP99   = "kill to first commit on a shard, p99"
	figRerunP99    = "kill to a running task's next attempt, p99"
)

// pick returns the benchmarks named in only, in the catalog's order; all that so many nodes will do for when it is empty.
func pick(only []string, nodes int) ([]benchmark, error) {
	var picked []benchmark
	for _, b := range catalog {
		switch named := slices.Contains(only, b.name); {
		case named && !b.needs.met(nodes):
			return nil, cli.Usage("--only: %s cannot run on --nodes %d%s", b.name, nodes, b.needs.remark())
		case named, len(only) == 0 && b.needs.met(nodes):
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
