// Package telemetry is what the operator sees of a running server: metrics, health, profiles and the log. It owns the
// Prometheus registry and the admin pages, and polls the other packages through functions that cmd hands it. It never
// imports them and never changes anything.
package telemetry

import (
	"fmt"
	"io"
	"net/http"
	"net/http/pprof"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Telemetry holds the metrics and health checks of one server. Safe for concurrent use.
type Telemetry struct {
	registry *prometheus.Registry

	mu     sync.Mutex
	checks []check
}

type check struct {
	name string
	ask  func() error
}

// New returns a Telemetry that knows the Go runtime, the process and the version.
func New(version string) *Telemetry {
	t := &Telemetry{registry: prometheus.NewRegistry()}
	t.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	t.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name:        "callserver_info",
		Help:        "Constant 1, labelled with the version.",
		ConstLabels: prometheus.Labels{"version": version},
	}, func() float64 { return 1 }))
	return t
}

// Kind says how a value moves.
type Kind prometheus.ValueType

// The kinds of values.
const (
	Counter = Kind(prometheus.CounterValue) // only rises
	Gauge   = Kind(prometheus.GaugeValue)   // moves both ways
)

// A Metric is one number of a snapshot S. Name gets the prefix callserver_.
type Metric[S any] struct {
	Name string
	Help string
	Kind Kind
	Of   func(S) float64

	Labels map[string]string // constant; metrics of one name differ in their values only
}

// Poll exports metrics of a snapshot that is taken once per scrape. A name used twice is a programmer's error and panics.
func Poll[S any](t *Telemetry, snapshot func() S, metrics ...Metric[S]) {
	p := &poller[S]{snapshot: snapshot, metrics: metrics, descs: make([]*prometheus.Desc, len(metrics))}
	for i, m := range metrics {
		p.descs[i] = prometheus.NewDesc("callserver_"+m.Name, m.Help, nil, m.Labels)
	}
	t.registry.MustRegister(p)
}

type poller[S any] struct {
	snapshot func() S
	metrics  []Metric[S]
	descs    []*prometheus.Desc
}

func (p *poller[S]) Describe(out chan<- *prometheus.Desc) {
	for _, d := range p.descs {
		out <- d
	}
}

func (p *poller[S]) Collect(out chan<- prometheus.Metric) {
	s := p.snapshot()
	for i, m := range p.metrics {
		out <- prometheus.MustNewConstMetric(p.descs[i], prometheus.ValueType(m.Kind), m.Of(s))
	}
}

// PollEach exports one gauge with a value for each of some names, which come and go: the snapshot bounds how many there are.
func PollEach(t *Telemetry, name, help, label string, snapshot func() map[string]float64) {
	t.registry.MustRegister(&eachPoller{prometheus.NewDesc("callserver_"+name, help, []string{label}, nil), snapshot})
}

// An eachPoller is one gauge, with one label.
type eachPoller struct {
	desc     *prometheus.Desc
	snapshot func() map[string]float64
}

func (p *eachPoller) Describe(out chan<- *prometheus.Desc) { out <- p.desc }

func (p *eachPoller) Collect(out chan<- prometheus.Metric) {
	for name, value := range p.snapshot() {
		out <- prometheus.MustNewConstMetric(p.desc, prometheus.GaugeValue, value, name)
	}
}

// Check adds a condition to /healthz: ask returns what is wrong, or nil, at once.
func (t *Telemetry) Check(name string, ask func() error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.checks = append(t.checks, check{name, ask})
}

// Healthy tells whether every check passes.
func (t *Telemetry) Healthy() bool { return t.wrong() == "" }

// wrong has a line for each check that fails.
func (t *Telemetry) wrong() string {
	t.mu.Lock()
	checks := t.checks[:len(t.checks):len(t.checks)]
	t.mu.Unlock()
	var lines string
	for _, c := range checks {
		if err := c.ask(); err != nil {
			lines += fmt.Sprintf("%s: %v\n", c.name, err)
		}
	}
	return lines
}

// healthz answers 200 "OK", or 503 with what is wrong.
func (t *Telemetry) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if wrong := t.wrong(); wrong != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, wrong) // the prober may be gone
		return
	}
	_, _ = io.WriteString(w, "OK")
}

// Handler serves the admin pages: /metrics, /healthz, /debug/pprof.
func (t *Telemetry) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{Registry: t.registry}))
	mux.HandleFunc("GET /healthz", t.healthz)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "callserver admin: /metrics /healthz /debug/pprof/\n")
	})
	return mux
}
