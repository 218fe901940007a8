package portal

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/bulwarkhq/bulwark/event"
	"github.com/bulwarkhq/bulwark/portal/archive"
	"github.com/bulwarkhq/bulwark/portal/detection"
	"github.com/bulwarkhq/bulwark/portal/eventstore"
	"github.com/bulwarkhq/bulwark/portal/export"
	"github.com/bulwarkhq/bulwark/portal/ingest"
	"github.com/bulwarkhq/bulwark/portal/inventory"
)

// metrics are the portal's counters, in a registry of their own.
type metrics struct {
	registry *prometheus.Registry
	batches  prometheus.Counter
	repeated prometheus.Counter
	events   prometheus.Counter
	checkIns prometheus.Counter
	alerts   *prometheus.CounterVec
	lost     *prometheus.CounterVec
	requests *prometheus.HistogramVec
	runs     *prometheus.HistogramVec
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "bulwark_portal", Name: name, Help: help})
	}
	m := &metrics{
		registry: prometheus.NewRegistry(),
		batches:  counter("batches_total", "Batches of agents that were stored."),
		repeated: counter("batches_repeated_total", "Batches that came again and were stored before."),
		events:   counter("events_total", "Events that were stored."),
		checkIns: counter("check_ins_total", "Reports of agents about themselves."),
		alerts:   prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "bulwark_portal", Name: "alerts_total", Help: "Alerts that were stored, by severity."}, []string{"severity"}),
		lost:     prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "bulwark_portal", Name: "events_lost_total", Help: "Events that agents dropped before delivery, by class."}, []string{"class"}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "bulwark_portal", Name: "request_seconds", Help: "Time to answer, by part of the portal.",
			Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5, 30},
		}, []string{"part", "status"}),
	}
	m.runs = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "bulwark_portal", Name: "custom_detection_run_seconds", Help: "Time of a run of a custom detection, by how it went.",
		Buckets: []float64{.01, .05, .1, .5, 1, 5, 30, 60},
	}, []string{"status"})
	m.registry.MustRegister(m.runs, m.batches, m.repeated, m.events, m.checkIns, m.alerts, m.lost, m.requests,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// observeRun counts a run of a custom detection and the alerts that it raised.
func (m *metrics) observeRun(run detection.Run, raised []event.Alert) {
	m.runs.WithLabelValues(run.Status()).Observe(run.Took.Seconds())
	for _, a := range raised {
		m.alerts.WithLabelValues(string(a.Severity)).Inc()
	}
}

func (m *metrics) countLost(class string, n uint64) {
	m.lost.WithLabelValues(eventstore.LossClass(class)).Add(float64(n))
}

// gauges asks the stores when the metrics are read.
type gauges struct {
	inventory *inventory.Service
	events    eventstore.Store
	devices   *prometheus.Desc
	rows      *prometheus.Desc
	segments  *prometheus.Desc
	bytes     *prometheus.Desc
	hotBytes  *prometheus.Desc
	up        *prometheus.Desc
}

func newGauges(inv *inventory.Service, events eventstore.Store) *gauges {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("bulwark_portal_"+name, help, labels, nil)
	}
	return &gauges{
		inv, events, d("devices", "Devices by health status.", "status"), d("stored_events", "Events in the store.", "where"),
		d("segments", "Parquet files of closed hours and days."), d("segment_bytes", "Size of the Parquet files."),
		d("event_store_bytes", "Size of the events on the servers of ClickHouse; 0 with the embedded store."), d("event_store_up", "1 when the event store answers."),
	}
}

// Describe implements prometheus.Collector.
func (g *gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.devices, g.rows, g.segments, g.bytes, g.hotBytes, g.up} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	counts, err := g.inventory.Counts(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(g.devices, err)
	}
	for status, n := range counts {
		ch <- prometheus.MustNewConstMetric(g.devices, prometheus.GaugeValue, float64(n), status)
	}
	st, err := g.events.Stats(ctx)
	up := 1.0
	if err != nil {
		up = 0 // the others are of use while it is away
	}
	ch <- prometheus.MustNewConstMetric(g.up, prometheus.GaugeValue, up)
	if err != nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(g.hotBytes, prometheus.GaugeValue, float64(st.HotBytes))
	ch <- prometheus.MustNewConstMetric(g.rows, prometheus.GaugeValue, float64(st.Hot), "open_hours")
	ch <- prometheus.MustNewConstMetric(g.rows, prometheus.GaugeValue, float64(st.Archived), "closed_hours")
	ch <- prometheus.MustNewConstMetric(g.segments, prometheus.GaugeValue, float64(st.Segments))
	ch <- prometheus.MustNewConstMetric(g.bytes, prometheus.GaugeValue, float64(st.ArchivedBytes))
}

func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	return mux
}

// exportGauges are the states of the export destinations, by name.
type exportGauges struct {
	exports                                     *export.Service
	waiting, failures, success, delivered, left *prometheus.Desc
}

func newExportGauges(e *export.Service) *exportGauges {
	d := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("bulwark_portal_export_"+name, help, []string{"destination", "type"}, nil)
	}
	return &exportGauges{
		e, d("waiting", "Records that a destination has yet to get; counted up to 100,000."), d("failures", "Failed deliveries in a row."),
		d("last_success_timestamp_seconds", "Time of the last delivery, 0 for none."), d("delivered_total", "Records that were delivered."),
		d("refused_total", "Records that the receiver refused and that were left out."),
	}
}

// Describe implements prometheus.Collector.
func (g *exportGauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.waiting, g.failures, g.success, g.delivered, g.left} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *exportGauges) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	list, err := g.exports.List(ctx)
	if err != nil {
		ch <- prometheus.NewInvalidMetric(g.waiting, err)
		return
	}
	for i := range list {
		d := &list[i]
		n, err := g.exports.Waiting(ctx, d)
		if err != nil {
			ch <- prometheus.NewInvalidMetric(g.waiting, err)
			return
		}
		ch <- prometheus.MustNewConstMetric(g.waiting, prometheus.GaugeValue, float64(n), d.Name, d.Kind)
		ch <- prometheus.MustNewConstMetric(g.failures, prometheus.GaugeValue, float64(d.Failures), d.Name, d.Kind)
		ch <- prometheus.MustNewConstMetric(g.success, prometheus.GaugeValue, seconds(d.LastSuccess), d.Name, d.Kind)
		ch <- prometheus.MustNewConstMetric(g.delivered, prometheus.CounterValue, float64(d.Delivered), d.Name, d.Kind)
		ch <- prometheus.MustNewConstMetric(g.left, prometheus.CounterValue, float64(d.Refused), d.Name, d.Kind)
	}
}

// archiveGauges are the state of the archive of events.
type archiveGauges struct {
	archive                         *archive.Service
	files, bytes, archived, success *prometheus.Desc
}

func newArchiveGauges(a *archive.Service) *archiveGauges {
	d := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("bulwark_portal_archive_"+name, help, nil, nil)
	}
	return &archiveGauges{
		a, d("waiting_files", "Event files that wait for the archive since the last try."), d("waiting_bytes", "Size of these files."),
		d("files_total", "Event files that were archived since the start."), d("last_success_timestamp_seconds", "Time at which nothing waited any more, 0 for never."),
	}
}

// Describe implements prometheus.Collector.
func (g *archiveGauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.files, g.bytes, g.archived, g.success} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g *archiveGauges) Collect(ch chan<- prometheus.Metric) {
	st := g.archive.Status()
	ch <- prometheus.MustNewConstMetric(g.files, prometheus.GaugeValue, float64(st.Files))
	ch <- prometheus.MustNewConstMetric(g.bytes, prometheus.GaugeValue, float64(st.Bytes))
	ch <- prometheus.MustNewConstMetric(g.archived, prometheus.CounterValue, float64(st.Archived))
	ch <- prometheus.MustNewConstMetric(g.success, prometheus.GaugeValue, seconds(st.Success))
}

// seconds since 1970; 0 for the zero time.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMicro()) / 1e6
}

// refusedCounters are the batches that were not stored.
type refusedCounters struct {
	ingest  *ingest.Service
	refused *prometheus.Desc
	limited *prometheus.Desc
}

func newRefusedCounters(s *ingest.Service) *refusedCounters {
	return &refusedCounters{
		s, prometheus.NewDesc("bulwark_portal_batches_refused_total", "Batches that devices were told to deliver later, by reason.", []string{"reason"}, nil),
		prometheus.NewDesc("bulwark_portal_devices_limited", "Devices that had delivered more events than they may within the last ten minutes.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *refusedCounters) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.refused
	ch <- c.limited
}

// Collect implements prometheus.Collector.
func (c *refusedCounters) Collect(ch chan<- prometheus.Metric) {
	n := c.ingest.Refused()
	for reason, n := range map[string]int64{"quota": n.Quota, "busy": n.Busy, "failed": n.Failed} {
		ch <- prometheus.MustNewConstMetric(c.refused, prometheus.CounterValue, float64(n), reason)
	}
	ch <- prometheus.MustNewConstMetric(c.limited, prometheus.GaugeValue, float64(n.Limited))
}
