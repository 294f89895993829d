// Package metrics shows what a log does to Prometheus.
//
// A Collector asks the log for its Stats whenever it is scraped; between scrapes it
// costs nothing. The metrics' names begin with raftwal_; docs/metrics.md says what to
// make of each, and docs has a dashboard and alerts that use them.
package metrics

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// Log is what a Collector asks: a *mmapwal.DiskStorage.
type Log interface{ Stats() mmapwal.Stats }

// Option of NewCollector.
type Option func(*Collector)

// WithLabels gives all metrics these labels, to tell several logs of one process
// apart: each gets other values for the same names.
func WithLabels(labels prometheus.Labels) Option {
	return func(c *Collector) { c.labels = labels }
}

// WithLastBackup has last asked for when the newest backup of the log was made, at
// each scrape. The zero time says that there was none yet, and is shown as 0. The method
// LastBackup of a backup.Scheduler never returns a time ahead of the clock; what else is
// asked should not either, since no alert on the age sees it.
func WithLastBackup(last func() time.Time) Option {
	return func(c *Collector) { c.lastBackup = last }
}

// WithNativeHistograms shows each histogram as a native one: a single series instead of
// one for each bucket, 164 series for a log become 45. The buckets are the same.
// Prometheus has to scrape them: scrape_native_histograms, from version 3.8 on, or
// --enable-feature=native-histograms before.
func WithNativeHistograms() Option {
	return func(c *Collector) { c.native = true }
}

// Collector is a prometheus.Collector for one log, or for the Sum of many. Its methods
// may be called concurrently, and after the log was closed.
type Collector struct {
	figures    func() *figures
	labels     prometheus.Labels
	lastBackup func() time.Time // nil: none is made
	native     bool
	metrics    []metric
}

var _ prometheus.Collector = (*Collector)(nil)

// NewCollector returns a Collector for log. Register it once; unregister it when the
// log is closed for good.
func NewCollector(log Log, options ...Option) *Collector {
	return newCollector(func() *figures { return figuresOf(log) }, options)
}

func newCollector(source func() *figures, options []Option) *Collector {
	c := &Collector{figures: source}
	for _, set := range options {
		set(c)
	}
	c.metrics = c.table()
	return c
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		descs <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	s := c.figures()
	for _, m := range c.metrics {
		m.send(s, m.desc, to)
	}
}

// metric is one name, and how its values are found.
type metric struct {
	desc *prometheus.Desc
	send func(s *figures, desc *prometheus.Desc, to chan<- prometheus.Metric)
}

// count returns a counter.
func (c *Collector) count(name, help string, value func(*figures) uint64) metric {
	return c.single(name, help, prometheus.CounterValue, func(s *figures) (float64, bool) { return float64(value(s)), true })
}

// gauge returns a gauge.
func (c *Collector) gauge(name, help string, value func(*figures) float64) metric {
	return c.single(name, help, prometheus.GaugeValue, func(s *figures) (float64, bool) { return value(s), true })
}

// maybe returns a gauge that is left out while its value is unknown.
func (c *Collector) maybe(name, help string, value func(*figures) (_ float64, known bool)) metric {
	return c.single(name, help, prometheus.GaugeValue, value)
}

func (c *Collector) single(name, help string, kind prometheus.ValueType, value func(*figures) (float64, bool)) metric {
	return metric{c.describe(name, help), func(s *figures, desc *prometheus.Desc, to chan<- prometheus.Metric) {
		if v, known := value(s); known {
			to <- prometheus.MustNewConstMetric(desc, kind, v)
		}
	}}
}

// parts is a number for each value of a label.
type parts map[string]float64

// split returns a metric that has a value for each value of a label.
func (c *Collector) split(name, help, label string, kind prometheus.ValueType, values func(*figures) parts) metric {
	return metric{c.describe(name, help, label), func(s *figures, desc *prometheus.Desc, to chan<- prometheus.Metric) {
		for part, v := range values(s) {
			to <- prometheus.MustNewConstMetric(desc, kind, v, part)
		}
	}}
}

// histogram returns a histogram.
func (c *Collector) histogram(name, help string, value func(*figures) mmapwal.Histogram) metric {
	show := classic
	if c.native {
		show = native
	}
	return metric{c.describe(name, help), func(s *figures, desc *prometheus.Desc, to chan<- prometheus.Metric) {
		to <- show(desc, value(s))
	}}
}

// classic shows h with a series for each bucket.
func classic(desc *prometheus.Desc, h mmapwal.Histogram) prometheus.Metric {
	upTo, count := make(map[float64]uint64, len(h.Bounds)), uint64(0)
	for k, bound := range h.Bounds {
		count += h.Counts[k]
		upTo[bound] = count
	}
	return prometheus.MustNewConstHistogram(desc, h.Count(), h.Sum, upTo)
}

// native shows h as a native histogram of schema 0, whose bucket i ends at 2^i. All
// bounds of a log's histograms are such powers of two.
func native(desc *prometheus.Desc, h mmapwal.Histogram) prometheus.Metric {
	buckets := make(map[int]int64)
	for k, n := range h.Counts {
		if n > 0 {
			buckets[bucketOf(h.Bounds, k)] += int64(n)
		}
	}
	m, err := prometheus.NewConstNativeHistogram(desc, h.Count(), h.Sum, buckets, nil, 0, 0, 0, time.Time{})
	if err != nil {
		return prometheus.NewInvalidMetric(desc, err)
	}
	return m
}

// bucketOf returns the exponent of two at which the k-th bucket ends.
func bucketOf(bounds []float64, k int) int {
	if k == len(bounds) {
		return bucketOf(bounds, k-1) + 1 // what is above all bounds
	}
	return math.Ilogb(bounds[k])
}

func (c *Collector) describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("raftwal_"+name, help, labels, c.labels)
}

func yes(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds returns t as Unix time; unknown if it is zero.
func seconds(t time.Time) (_ float64, known bool) {
	return float64(t.UnixMilli()) / 1000, !t.IsZero()
}
