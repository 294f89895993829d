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
	Machine   Machine    `json:"machine"`
	Seed      uint64     `json:"seed"`
	Rounds    int        `json:"rounds"`
	TimeMs    float64    `json:"time_ms"` // of one measurement
	Workloads []Workload `json:"workloads"`
	Results   []Result   `json:"results"`

	Growth      []GrowthResult     `json:"growth,omitempty"`
	Reopens     []ReopenResult     `json:"reopens,omitempty"`
	Compactions []CompactionResult `json:"compactions,omitempty"`
	Idle        []IdleResult       `json:"idle,omitempty"`
}

// Result is how a contender did a workload.
type Result struct {
	Workload    string        `json:"workload"`
	Contender   string        `json:"contender"`
	NsPerCall   stats.Summary `json:"ns_per_call"`
	Ratio       stats.Summary `json:"ratio_to_reference"`
	MBPerSecond float64       `json:"mb_per_second"`
	PerSecond   float64       `json:"entries_per_second"`
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
	for _, c := range r.cfg.Contenders {
		res.Growth = append(res.Growth, r.growthResults(c)...)
		res.Reopens = append(res.Reopens, r.reopenResults(c)...)
		res.Compactions = append(res.Compactions, r.compactionResults(c)...)
		res.Idle = append(res.Idle, r.idleResults(c)...)
	}
	return res
}

func (r *runner) result(w Workload, name string) Result {
	samples := r.samples[[2]string{w.Name, name}]
	times := nsPerCall(samples)
	ns := stats.Summarize(times)
	res := Result{
		Workload: w.Name, Contender: name, NsPerCall: ns,
		Ratio:       stats.Summarize(stats.Ratios(times, nsPerCall(r.samples[[2]string{w.Name, contender.Reference}]))),
		MBPerSecond: float64(w.Bytes()) / ns.Median * 1e3,
		PerSecond:   float64(w.Entries) / ns.Median * 1e9,
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

// summarize condenses one figure of what each round found.
func summarize[T any](rounds []T, value func(T) float64) stats.Summary {
	values := make([]float64, len(rounds))
	for k, round := range rounds {
		values[k] = value(round)
	}
	return stats.Summarize(values)
}

// at returns the k-th of what each round found.
func at[T any](rounds [][]T, k int) []T {
	var all []T
	for _, round := range rounds {
		all = append(all, round[k])
	}
	return all
}
