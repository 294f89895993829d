package metrics_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/seed-2fef92ad/raftwal/metrics"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// gather returns the values of all series by name and labels; of a histogram those of its
// buckets, as they are counted.
func gather(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				values[name] = m.Counter.GetValue()
			case dto.MetricType_GAUGE:
				values[name] = m.Gauge.GetValue()
			case dto.MetricType_HISTOGRAM:
				values[name+" sum"] = m.Histogram.GetSampleSum()
				values[name+" count"] = float64(m.Histogram.GetSampleCount())
				for _, b := range m.Histogram.Bucket {
					values[fmt.Sprint(name, " ", b.GetUpperBound())] = float64(b.GetCumulativeCount())
				}
			}
		}
	}
	return values
}

// left are the metrics that a Sum leaves out.
var left = []string{"raftwal_first_index", "raftwal_last_index", "raftwal_snapshot_index"}

// same are those that do not add up, but are the worst of all logs.
func same(name string) bool {
	return strings.HasSuffix(name, "_timestamp_seconds") || strings.HasPrefix(name, "raftwal_filesystem_") ||
		name == "raftwal_encrypted" || name == "raftwal_recovery_clean"
}

// TestSum: of one log it shows what a Collector does, of two like ones twice as much.
func TestSum(t *testing.T) {
	one := gather(t, metrics.NewCollector(example()))
	for _, name := range left {
		delete(one, name)
	}
	sum := metrics.NewSum()
	if got := gather(t, sum); got["raftwal_logs"] != 0 || got["raftwal_poisoned"] != 0 || got["raftwal_save_duration_seconds count"] != 0 {
		t.Errorf("of no logs: %v", got)
	}
	for n := 1.; n <= 3; n++ {
		log := example()
		sum.Add(log)
		sum.Add(log) // it counts once
		got := gather(t, sum)
		for name, v := range one {
			if want := v * n; !same(name) && got[name] != want || same(name) && got[name] != v {
				t.Errorf("%s of %v logs: %v, of one %v", name, n, got[name], v)
			}
		}
		if len(got) != len(one) {
			t.Errorf("%d values of %v logs, %d of one", len(got), n, len(one))
		}
	}
}

// TestSumRemove: counters do not fall when a log is taken out, gauges do.
func TestSumRemove(t *testing.T) {
	a, b, sum := example(), example(), metrics.NewSum()
	sum.Add(a)
	sum.Add(b)
	before := gather(t, sum)
	sum.Remove(a)
	sum.Remove(a) // it was taken out once
	after := gather(t, sum)
	for name, want := range map[string]float64{
		"raftwal_appended_entries_total":      before["raftwal_appended_entries_total"],
		"raftwal_save_errors_total other":     before["raftwal_save_errors_total other"],
		"raftwal_save_duration_seconds count": before["raftwal_save_duration_seconds count"],
		"raftwal_files live":                  before["raftwal_files live"] / 2,
		"raftwal_poisoned":                    1,
		"raftwal_logs":                        1,
	} {
		if after[name] != want {
			t.Errorf("%s is %v, want %v", name, after[name], want)
		}
	}
}

// TestSumShowsTheWorst of what does not add up.
func TestSumShowsTheWorst(t *testing.T) {
	good, bad, sum := example(), example(), metrics.NewSum()
	good.Recovery.Clean, good.FreeBytes, good.TotalBytes, good.Poisoned = true, 1000, 2000, nil
	bad.Encrypted, bad.LastSnapshot, bad.OldestFile, bad.FreeBytes = false, time.Unix(7, 0), time.Unix(8, 0), 5
	bad.Opened = time.Unix(2000, 0)
	for _, log := range []*fixed{good, bad} {
		sum.Add(log)
	}
	got := gather(t, sum)
	for name, want := range map[string]float64{
		"raftwal_encrypted": 0, "raftwal_recovery_clean": 0, "raftwal_poisoned": 1, "raftwal_filesystem_free_bytes": 5,
		"raftwal_filesystem_size_bytes": 39, "raftwal_last_snapshot_timestamp_seconds": 7, "raftwal_oldest_file_timestamp_seconds": 8,
		"raftwal_open_timestamp_seconds": 2000,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

// TestSeries: docs/metrics.md says how many series there are.
func TestSeries(t *testing.T) {
	count := func(c prometheus.Collector) (n int) {
		registry := prometheus.NewRegistry()
		registry.MustRegister(c)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.Metric {
				if m.Histogram == nil || m.Histogram.Schema != nil {
					n++
				} else {
					n += len(m.Histogram.Bucket) + 3 // +Inf, sum, count
				}
			}
		}
		return n
	}
	d := open(t)
	save(t, d, 1)
	sum := metrics.NewSum()
	for range 3 {
		sum.Add(d)
		sum.Add(example())
	}
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	classic, native := count(metrics.NewCollector(d)), count(metrics.NewCollector(d, metrics.WithNativeHistograms()))
	for _, want := range []string{fmt.Sprintf("has %d series", classic), fmt.Sprintf("%d for a log", native)} {
		if !strings.Contains(string(text), want) {
			t.Errorf("docs/metrics.md does not say %q", want)
		}
	}
	if n := count(sum); n > classic+10 {
		t.Errorf("a Sum has %d series, a log %d", n, classic)
	}
}

// TestNativeHistograms have the buckets of the classic ones.
func TestNativeHistograms(t *testing.T) {
	log := example()
	log.SyncTime = mmapwal.Histogram{Bounds: []float64{1. / (1 << 20), 1. / (1 << 19), 1. / (1 << 18)}, Counts: []uint64{3, 0, 5, 7}, Sum: 1}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.NewCollector(log, metrics.WithNativeHistograms()))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "raftwal_sync_duration_seconds" {
			continue
		}
		h := f.Metric[0].Histogram
		got := fmt.Sprint(h.GetSchema(), h.GetSampleCount(), h.GetSampleSum(), h.PositiveSpan, h.PositiveDelta, len(h.Bucket))
		// Buckets that end at 2^-20, 2^-18 and, for what is above, 2^-17 seconds.
		want := fmt.Sprint(0, 15, 1., []*dto.BucketSpan{{Offset: new(int32(-20)), Length: new(uint32(4))}}, []int64{3, -3, 5, 2}, 0)
		if got != want {
			t.Errorf("it is %s, want %s", got, want)
		}
		return
	}
	t.Fatal("it is not there")
}
