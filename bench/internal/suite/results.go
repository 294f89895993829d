package suite

import (
	"math"
	"time"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
	"github.com/seed-2fef92ad/raftwal/bench/internal/device"
	"github.com/seed-2fef92ad/raftwal/bench/internal/stats"
)

// Results are the figures of a run.
type Results struct {
	Machine   Machine        `json:"machine"`
	Seed      uint64         `json:"seed"`
	Rounds    int            `json:"rounds"`
	TimeMs    float64        `json:"time_ms"` // of one measurement
	Workloads []Workload     `json:"workloads"`
	Results   []Result       `json:"results"`
	Growth    []GrowthResult `json:"growth"`
}

// Result is how a contender did a workload.
type Result struct {
	Workload    string        `json:"workload"`
	Contender   string        `json:"contender"`
	NsPerCall   stats.Summary `json:"ns_per_call"`
	Ratio       stats.Summary `json:"ratio_to_floor"`
	MBPerSecond float64       `json:"mb_per_second"`
	Latency     Latency       `json:"latency"`
	Device      *PerCall      `json:"device_per_call,omitempty"` // of synced saves, if it can be found
}

// Latency is how long single calls took, those of all rounds together.
type Latency struct {
	P50Ns  int64   `json:"p50_ns"`
	P99Ns  int64   `json:"p99_ns"`
	P999Ns int64   `json:"p999_ns"`
	MaxNs  int64   `json:"max_ns"`
	Calls  uint64  `json:"calls"`
	Curve  []Point `json:"curve"`
}

// Point says that a share of all calls took no longer than that.
type Point struct {
	Share float64 `json:"share"`
	Ns    int64   `json:"ns"`
}

// PerCall is what the device did for a call.
type PerCall struct {
	Writes  float64 `json:"writes"`
	Bytes   float64 `json:"bytes"`
	Flushes float64 `json:"flushes"`
}

// GrowthResult is how a contender did when its log had so many entries.
type GrowthResult struct {
	Contender           string         `json:"contender"`
	Entries             int            `json:"entries"`
	OpenNs              stats.Summary  `json:"open_ns"`
	AppendNsPerEntry    stats.Summary  `json:"append_ns_per_entry"`
	ReadNs              *stats.Summary `json:"read_ns,omitempty"`
	HeapBytesPerMillion float64        `json:"heap_bytes_per_million_entries"`
}

func (r *runner) results(m Machine) *Results {
	res := &Results{
		Machine: m, Seed: r.cfg.Seed, Rounds: r.cfg.Rounds,
		TimeMs: float64(r.cfg.Time) / float64(time.Millisecond), Workloads: r.cfg.Workloads,
	}
	for _, w := range r.cfg.Workloads {
		for _, c := range r.cfg.running(w) {
			res.Results = append(res.Results, r.result(w, c.Name))
		}
	}
	if r.cfg.Growth {
		for _, c := range r.cfg.growing() {
			res.Growth = append(res.Growth, r.growthResults(c)...)
		}
	}
	return res
}

func (r *runner) result(w Workload, name string) Result {
	samples := r.samples[[2]string{w.Name, name}]
	times := nsPerCall(samples)
	ns := stats.Summarize(times)
	res := Result{
		Workload: w.Name, Contender: name, NsPerCall: ns,
		Ratio:       stats.Summarize(stats.Ratios(times, nsPerCall(r.samples[[2]string{w.Name, contender.Floor}]))),
		MBPerSecond: float64(w.Bytes()) / ns.Median * 1e3,
		Latency:     latency(samples),
	}
	if r.device != nil && !w.NoSync {
		res.Device = perCall(samples)
	}
	return res
}

func nsPerCall(samples []*sample) []float64 {
	times := make([]float64, len(samples))
	for k, s := range samples {
		times[k] = s.nsPerCall()
	}
	return times
}

func latency(samples []*sample) Latency {
	var all stats.Histogram
	for _, s := range samples {
		all.Merge(&s.latency)
	}
	return Latency{
		P50Ns: int64(all.Quantile(0.5)), P99Ns: int64(all.Quantile(0.99)), P999Ns: int64(all.Quantile(0.999)),
		MaxNs: int64(all.Max()), Calls: all.Total(), Curve: curve(&all),
	}
}

// curve returns points that lie ever closer as the share approaches 1: eight for
// each further nine, as far as there are calls to tell them apart.
func curve(h *stats.Histogram) []Point {
	var points []Point
	for k := 0; ; k++ {
		beyond := math.Pow(10, -float64(k)/8)
		if beyond*float64(h.Total()) < 1 {
			return points
		}
		points = append(points, Point{Share: 1 - beyond, Ns: int64(h.Quantile(1 - beyond))})
	}
}

func perCall(samples []*sample) *PerCall {
	var sum device.Counters
	calls := 0.0
	for _, s := range samples {
		sum = sum.Add(s.device)
		calls += float64(s.calls)
	}
	return &PerCall{
		Writes: float64(sum.Writes) / calls, Bytes: float64(sum.Bytes) / calls, Flushes: float64(sum.Flushes) / calls,
	}
}

func (r *runner) growthResults(c contender.Contender) []GrowthResult {
	var all []GrowthResult
	for k, n := range growthPoints(r.cfg.Entries) {
		summary := func(value func(grown) float64) stats.Summary {
			var values []float64
			for _, round := range r.growths[c.Name] {
				values = append(values, value(round[k]))
			}
			return stats.Summarize(values)
		}
		g := GrowthResult{
			Contender: c.Name, Entries: n,
			OpenNs:              summary(func(g grown) float64 { return g.openNs }),
			AppendNsPerEntry:    summary(func(g grown) float64 { return g.appendNs }),
			HeapBytesPerMillion: summary(func(g grown) float64 { return g.heapPerEntry }).Median * 1e6,
		}
		if !c.WriteOnly {
			g.ReadNs = new(summary(func(g grown) float64 { return g.readNs }))
		}
		all = append(all, g)
	}
	return all
}
