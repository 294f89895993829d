package rulestest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/seed-2fef92ad/raftwal/metrics"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// A history is what Prometheus has scraped from a log in eight hours, once a
// minute.
type history struct {
	series []*promql.Series
	byName map[string]*promql.Series
}

const (
	minutes = 8 * 60
	start   = 1_800_000_000 // Unix time in seconds
)

func at(minute int) time.Time { return time.Unix(start+60*int64(minute), 0) }

// log is a log whose figures the test sets.
type log struct{ stats mmapwal.Stats }

func (l *log) Stats() mmapwal.Stats { return l.stats }

// collect returns a collector for a log, of one of the kinds that there are.
type collect func(l metrics.Log, options ...metrics.Option) prometheus.Collector

// kinds are those; dashboard and alerts serve all of them.
var kinds = map[string]collect{
	"one log": func(l metrics.Log, options ...metrics.Option) prometheus.Collector {
		return metrics.NewCollector(l, options...)
	},
	"native histograms": func(l metrics.Log, options ...metrics.Option) prometheus.Collector {
		return metrics.NewCollector(l, append(options, metrics.WithNativeHistograms())...)
	},
	"a sum": func(l metrics.Log, options ...metrics.Option) prometheus.Collector {
		s := metrics.NewSum(options...)
		s.Add(l)
		return s
	},
}

// record scrapes a log whose figures are healthy but for what change does to them.
func record(t *testing.T, collector collect, change func(s *mmapwal.Stats, minute int, backup *time.Time)) *history {
	t.Helper()
	var l log
	var backup time.Time
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector(&l, metrics.WithLabels(prometheus.Labels{"instance": "a"}),
		metrics.WithLastBackup(func() time.Time { return backup })))
	h := &history{byName: make(map[string]*promql.Series)}
	for minute := range minutes + 1 {
		l.stats, backup = healthy(minute)
		change(&l.stats, minute, &backup)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		families = h.addNative(families, at(minute))
		samples, err := expfmt.ExtractSamples(&expfmt.DecodeOptions{}, families...)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range samples {
			h.add(s.Metric, at(minute), float64(s.Value))
		}
	}
	return h
}

// healthy returns the figures of a busy log and a good disk, and when the last
// backup was.
func healthy(minute int) (mmapwal.Stats, time.Time) {
	n := uint64(minute) * 1000
	return mmapwal.Stats{
		Opened: at(-60), FirstIndex: 1, LastIndex: n + 1, SnapshotIndex: n, LastSnapshot: at(minute), OldestFile: at(minute),
		SaveTime: took(n, 0), WaitTime: took(n, 0), SyncTime: took(n, 0), SyncEntries: took(n, 0), SyncSaves: took(n, 0),
		AppendedEntries: n, AppendedBytes: 100 * n, UnsyncedEntries: n % 7, UnsyncedBytes: n % 7 * 100,
		Files: 2, RetainedFiles: 1, SaveErrors: n, // a caller's own fault
		FreeBytes: 50<<30 - int64(minute), TotalBytes: 100 << 30,
		Recovery: mmapwal.Recovery{Clean: true},
	}, at(minute - minute%60)
}

// took returns a histogram of n values of 1 ms and slow ones of 2 s, or of others.
func took(n, slow uint64) mmapwal.Histogram {
	return mmapwal.Histogram{Bounds: []float64{1. / 1024, 2}, Counts: []uint64{n, slow, 0}, Sum: float64(n)/1024 + 2*float64(slow)}
}

// addNative adds the native histograms, and returns what is left.
func (h *history) addNative(families []*dto.MetricFamily, when time.Time) (left []*dto.MetricFamily) {
	for _, f := range families {
		if f.GetType() != dto.MetricType_HISTOGRAM || f.Metric[0].Histogram.Schema == nil {
			left = append(left, f)
			continue
		}
		name := model.Metric{model.MetricNameLabel: model.LabelValue(f.GetName()), "instance": "a"}
		d := f.Metric[0].Histogram
		native := histogram.Histogram{Schema: d.GetSchema(), Count: d.GetSampleCount(), Sum: d.GetSampleSum(), PositiveBuckets: d.PositiveDelta}
		for _, span := range d.PositiveSpan {
			native.PositiveSpans = append(native.PositiveSpans, histogram.Span{Offset: span.GetOffset(), Length: span.GetLength()})
		}
		s := h.named(name)
		s.Histograms = append(s.Histograms, promql.HPoint{T: when.UnixMilli(), H: native.ToFloat(nil)})
	}
	return left
}

func (h *history) add(metric model.Metric, when time.Time, value float64) {
	s := h.named(metric)
	s.Floats = append(s.Floats, promql.FPoint{T: when.UnixMilli(), F: value})
}

// named returns the series with that name and labels.
func (h *history) named(metric model.Metric) *promql.Series {
	key := metric.String()
	s := h.byName[key]
	if s == nil {
		pairs := make(map[string]string, len(metric))
		for name, v := range metric {
			pairs[string(name)] = string(v)
		}
		s = &promql.Series{Metric: labels.FromMap(pairs)}
		h.byName[key] = s
		h.series = append(h.series, s)
	}
	return s
}

// query evaluates an expression.
func (h *history) query(t *testing.T, expr string, when time.Time) promql.Vector {
	t.Helper()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: parser.NewParser(parser.Options{})})
	defer engine.Close()
	q, err := engine.NewInstantQuery(context.Background(), h, nil, expr, when)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	defer q.Close()
	result := q.Exec(context.Background())
	vector, err := result.Vector()
	if err != nil || len(result.Warnings) > 0 {
		t.Fatalf("%s: %v, warnings %v", expr, err, result.Warnings)
	}
	return slices.Clone(vector)
}

// Querier implements storage.Queryable.
func (h *history) Querier(int64, int64) (storage.Querier, error) {
	return &storage.MockQuerier{SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
		found := &seriesSet{}
		for _, s := range h.series {
			if matches(s.Metric, matchers) {
				found.series = append(found.series, *s)
			}
		}
		return found
	}}, nil
}

func matches(metric labels.Labels, matchers []*labels.Matcher) bool {
	return !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(metric.Get(m.Name)) })
}

// seriesSet is a storage.SeriesSet.
type seriesSet struct {
	series []promql.Series
	next   int
}

func (s *seriesSet) Next() bool                        { s.next++; return s.next <= len(s.series) }
func (s *seriesSet) At() storage.Series                { return promql.NewStorageSeries(s.series[s.next-1]) }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }
