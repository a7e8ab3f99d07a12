package openai

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/open-autoglm/autoglm/cmd/glm-worker/engine"
)

// metrics are the worker's numbers in Prometheus' form. The engine's are read when asked for, so that counting costs
// the decode loop nothing but atomic additions.
type metrics struct {
	server   *Server
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

// reading is one of the engine's numbers.
type reading struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(engine.Stats) float64
}

func newReading(kind prometheus.ValueType, name, help string, of func(engine.Stats) float64) reading {
	return reading{prometheus.NewDesc("glm_worker_"+name, help, nil, nil), kind, of}
}

var readings = []reading{
	newReading(prometheus.GaugeValue, "slots", "Answers that can be made at once.", func(s engine.Stats) float64 { return float64(s.Slots) }),
	newReading(prometheus.GaugeValue, "requests_running", "Answers being made.", func(s engine.Stats) float64 { return float64(s.Running) }),
	newReading(prometheus.GaugeValue, "requests_waiting", "Requests waiting for a slot.", func(s engine.Stats) float64 { return float64(s.Waiting) }),
	newReading(prometheus.CounterValue, "decode_steps_total", "Batches computed.", func(s engine.Stats) float64 { return float64(s.Rounds) }),
	newReading(prometheus.CounterValue, "prompt_tokens_total", "Prompt tokens computed.", func(s engine.Stats) float64 { return float64(s.TokensPrompt) }),
	newReading(prometheus.CounterValue, "prompt_tokens_cached_total", "Prompt tokens taken from an earlier prompt.", func(s engine.Stats) float64 { return float64(s.TokensCached) }),
	newReading(prometheus.CounterValue, "generation_tokens_total", "Answer tokens made.", func(s engine.Stats) float64 { return float64(s.TokensAnswer) }),
	newReading(prometheus.CounterValue, "embedded_tokens_total", "Tokens turned into vectors.", func(s engine.Stats) float64 { return float64(s.TokensEmbedded) }),
	newReading(prometheus.CounterValue, "answers_total", "Answers finished.", func(s engine.Stats) float64 { return float64(s.Finished) }),
	newReading(prometheus.CounterValue, "answers_failed_total", "Requests given up, cancelled ones among them.", func(s engine.Stats) float64 { return float64(s.Failed) }),
	newReading(prometheus.CounterValue, "answers_parked_total", "Times an answer made room in the cache and started over.", func(s engine.Stats) float64 { return float64(s.Parked) }),
}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		server:   s,
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "glm_worker_http_requests_total", Help: "Requests by route and status."}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "glm_worker_http_request_seconds", Help: "Time to answer by route.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 9)}, []string{"route"}),
	}
	m.registry.MustRegister(m, m.requests, m.seconds, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

func (m *metrics) served(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(route).Observe(took.Seconds())
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	for _, r := range readings {
		out <- r.desc
	}
}

// Collect implements prometheus.Collector; there is nothing to read before the model is there.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	model := m.server.model.Load()
	if model == nil {
		return
	}
	stats := model.Engine.Stats()
	for _, r := range readings {
		out <- prometheus.MustNewConstMetric(r.desc, r.kind, r.of(stats))
	}
}
