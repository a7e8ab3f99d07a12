// Package meter is the actors' Prometheus metrics: one place for their names,
// labels and buckets. Names follow the Prometheus conventions: base units, _total for
// counters. What can be read off the journal exactly (tasks by state, queue depth)
// is not counted here but collected by package node.
package meter

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Phases of a task's life, for the phase histogram.
const (
	PhaseQueue    = "queue"    // visible → claimed
	PhaseRun      = "run"      // request sent → answered
	PhaseFetch    = "fetch"    // data_url
	PhaseTotal    = "total"    // submitted → final
	PhaseCallback = "callback" // final → acknowledged
)

// Meter holds the metrics. Make one with New.
type Meter struct {
	Attempts    *prometheus.CounterVec   // engine, outcome: answered or a fault kind
	Finished    *prometheus.CounterVec   // outcome: completed, failed, cancelled
	Callbacks   *prometheus.CounterVec   // outcome: delivered, failed, gave_up
	Tokens      *prometheus.CounterVec   // engine, direction: prompt, output
	BatchSize   prometheus.Histogram     // works
	Batches     *prometheus.CounterVec   // cause
	InFlight    *prometheus.GaugeVec     // engine
	Limit       *prometheus.GaugeVec     // engine
	Opened      *prometheus.CounterVec   // engine
	Phase       *prometheus.HistogramVec // phase, seconds
	Commit      prometheus.Histogram     // seconds of one group append
	CommitGroup prometheus.Histogram     // writes of one group append
	Actors      *prometheus.GaugeVec     // kind
	Entity      *prometheus.CounterVec   // kind, event: activated, passivated, committed, refused, crashed
	Failures    *prometheus.CounterVec   // kind, action: actors that panicked
	Held        prometheus.Counter       // retries that wait longer because their model's are over the budget
	Hedges      *prometheus.CounterVec   // outcome: started, then won or lost
	Late        prometheus.Counter       // answers that came after their attempt was given up
	BulkLines   *prometheus.CounterVec   // outcome: completed, failed, never_run
	BulkEnded   *prometheus.CounterVec   // status: as OpenAI has it
	SinkFailed  prometheus.Counter       // tries to write a batch that failed
	Deleted     *prometheus.CounterVec   // what: task, batch, file, audit
	Newer       *prometheus.CounterVec   // what: op, message, letter, gossip, event
}

// New makes the metrics and registers them.
func New(r prometheus.Registerer) *Meter {
	seconds := prometheus.ExponentialBuckets(0.0005, 2, 22) // 0.5 ms to 17 min
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "autoglm_" + name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "autoglm_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "autoglm_" + name, Help: help, Buckets: buckets})
	}
	m := &Meter{
		Attempts:    counter("attempts_total", "Attempts that ended, by engine and outcome.", "engine", "outcome"),
		Finished:    counter("tasks_finished_total", "Tasks that became final on this node, by outcome.", "outcome"),
		Callbacks:   counter("callbacks_total", "Tries to call back, by outcome.", "outcome"),
		Tokens:      counter("tokens_total", "Tokens as reported by engines.", "engine", "direction"),
		BatchSize:   histogram("batch_size_tasks", "Tasks of one batch.", prometheus.ExponentialBuckets(1, 2, 10)),
		Batches:     counter("batches_total", "Batches sent to engines, by what made them ripe.", "cause"),
		InFlight:    gauge("inflight_requests", "Requests under way, by engine.", "engine"),
		Limit:       gauge("engine_concurrency_limit", "Requests allowed at once, by engine.", "engine"),
		Opened:      counter("engine_circuit_opened_total", "Times that an engine got nothing for a while because it kept failing.", "engine"),
		Phase:       prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "autoglm_phase_duration_seconds", Help: "Time tasks spend in a phase.", Buckets: seconds}, []string{"phase"}),
		Commit:      histogram("commit_duration_seconds", "From a group append's oldest write to durable.", prometheus.ExponentialBuckets(0.00025, 2, 16)),
		CommitGroup: histogram("commit_group_writes", "Writes of one group append.", prometheus.ExponentialBuckets(1, 2, 13)),
		Actors:      gauge("actors", "Actors awake, by kind.", "kind"),
		Entity:      counter("entity_events_total", "What entities did, by kind and event.", "kind", "event"),
		Failures:    counter("actor_failures_total", "Actors that panicked, by kind of failure and what the supervisor did.", "kind", "action"),
		Held:        prometheus.NewCounter(prometheus.CounterOpts{Name: "autoglm_retries_held_total", Help: "Retries that wait longer than their backoff because their model's are over task.retry_percent."}),
		Hedges:      counter("hedges_total", "Second runs of attempts that took far longer than others like them: begun, and then first with an answer or not.", "outcome"),
		Late:        prometheus.NewCounter(prometheus.CounterOpts{Name: "autoglm_late_answers_total", Help: "Answers dropped because their attempt had been given up."}),
		BulkLines:   counter("bulk_lines_total", "Lines of OpenAI batches that ended, as the nodes that drive the batches count them, by outcome.", "outcome"),
		BulkEnded:   counter("bulk_ended_total", "OpenAI batches that ended, by status.", "status"),
		SinkFailed:  prometheus.NewCounter(prometheus.CounterOpts{Name: "autoglm_sink_failures_total", Help: "Tries to write to the destination of a sink that failed."}),
		Deleted:     counter("deleted_total", "What was deleted because it was kept for as long as the settings say, by what it was.", "what"),
		Newer:       counter("newer_total", "Things that only a newer version knows, refused or skipped, by what they were.", "what"),
	}
	r.MustRegister(m.Attempts, m.Finished, m.Callbacks, m.Tokens, m.BatchSize, m.Batches, m.InFlight, m.Limit, m.Opened, m.Phase, m.Commit, m.CommitGroup, m.Actors, m.Entity, m.Failures, m.Held, m.Hedges, m.Late, m.BulkLines, m.BulkEnded, m.SinkFailed, m.Deleted, m.Newer)
	return m
}

// Observe adds one phase.
func (m *Meter) Observe(phase string, d time.Duration) {
	m.Phase.WithLabelValues(phase).Observe(max(0, d.Seconds()))
}
