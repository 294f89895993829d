package diskbench

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Result is what was measured. Times are in microseconds.
type Result struct {
	Dir     string   `json:"dir"`
	System  System   `json:"file_system"`
	Seconds float64  `json:"seconds"`
	Series  []Series `json:"series"` // the reference first
	Verdict Verdict  `json:"verdict"`
	Reason  string   `json:"reason"`
	// Suspicious: faster than a disk can be that keeps what it acknowledged.
	Suspicious bool `json:"suspicious"`
}

// Series is one thing that was measured again and again.
type Series struct {
	Name      string   `json:"name"`
	Count     int      `json:"count"`
	PerSecond float64  `json:"per_second"` // if nothing else were done
	P50       float64  `json:"p50_us"`
	P99       float64  `json:"p99_us"`
	P999      float64  `json:"p99.9_us"`
	Max       float64  `json:"max_us"`
	Ratio     float64  `json:"ratio"` // of the p50 to that of the reference
	Buckets   []Bucket `json:"buckets"`
}

// Bucket counts the samples from a time up to another, in microseconds.
type Bucket struct {
	From  float64 `json:"from_us"`
	To    float64 `json:"to_us"`
	Count int     `json:"count"`
}

// Verdict says whether a disk is good enough.
type Verdict string

// The verdicts.
const (
	Good    Verdict = "good"
	Slow    Verdict = "slow"    // enough with longer timeouts
	Bad     Verdict = "bad"     // not for a Raft log
	Unknown Verdict = "unknown" // what was measured proves nothing
)

// Thresholds, in microseconds; docs/operations.md says why.
const (
	goodP99       = 10_000  // etcd's: 99 of 100 syncs of its log take less than 10 ms
	badP99        = 100_000 // etcd's and most others' time between two heartbeats
	suspiciousP50 = 20      // no disk flushes its cache in less
	fewSamples    = 1000    // p99 is not known from fewer
)

func newResult(dir string, system System, took time.Duration, samples [][]time.Duration) *Result {
	r := &Result{Dir: dir, System: system, Seconds: took.Seconds()}
	for k, s := range samples {
		name := Reference
		if k > 0 {
			name = shapes[k-1].name
		}
		r.Series = append(r.Series, newSeries(name, s))
	}
	reference := r.Series[0]
	for k := range r.Series {
		r.Series[k].Ratio = r.Series[k].P50 / reference.P50
	}
	r.judge()
	return r
}

func newSeries(name string, samples []time.Duration) Series {
	slices.Sort(samples)
	sum := time.Duration(0)
	for _, s := range samples {
		sum += s
	}
	n := len(samples)
	at := func(q float64) float64 { // the nearest rank
		return micros(samples[min(n-1, max(0, int(math.Ceil(q*float64(n)))-1))])
	}
	return Series{
		Name: name, Count: n, PerSecond: float64(n) / max(sum.Seconds(), 1e-9),
		P50: at(0.5), P99: at(0.99), P999: at(0.999), Max: at(1), Buckets: bucketsOf(samples),
	}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// perDecade is how many buckets there are for a factor of ten.
const perDecade = 5

// bucketsOf counts sorted samples in buckets of equal width on a logarithmic scale,
// from the one of the fastest to that of the slowest.
func bucketsOf(samples []time.Duration) (buckets []Bucket) {
	number := func(d time.Duration) int {
		return int(math.Floor(math.Log10(max(micros(d), 0.01)) * perDecade))
	}
	first := number(samples[0])
	for k := first; k <= number(samples[len(samples)-1]); k++ {
		buckets = append(buckets, Bucket{From: edge(k), To: edge(k + 1)})
	}
	for _, s := range samples {
		buckets[number(s)-first].Count++
	}
	return buckets
}

// edge returns where bucket k begins, in microseconds.
func edge(k int) float64 { return math.Pow(10, float64(k)/perDecade) }

// judge says whether the disk is good enough, by the reference: what the log adds is its
// own.
func (r *Result) judge() {
	reference := &r.Series[0]
	r.Suspicious = r.System.Why == "" && reference.P50 < suspiciousP50
	p99 := fmt.Sprintf("99 of 100 syncs take up to %s", Time(reference.P99))
	switch {
	case r.System.Why != "":
		r.Verdict, r.Reason = Unknown, fmt.Sprintf("%s: %s", r.System.Name, r.System.Why)
	case r.Suspicious:
		r.Verdict = Unknown
		r.Reason = fmt.Sprintf("half of the syncs take less than %s: no disk flushes its cache so fast; unless it has a cache that survives a power cut, it acknowledges what it can lose", Time(suspiciousP50))
	case reference.P99 < goodP99:
		r.Verdict, r.Reason = Good, fmt.Sprintf("%s; a Raft log wants less than %s", p99, Time(goodP99))
	case reference.P99 < badP99:
		r.Verdict = Slow
		r.Reason = fmt.Sprintf("%s; a Raft log wants less than %s: give elections at least %s, or a faster disk", p99, Time(goodP99), Time(10*reference.P999))
	default:
		r.Verdict = Bad
		r.Reason = fmt.Sprintf("%s, as long as the time between two heartbeats: nodes would lose their leader while it waits for the disk", p99)
	}
	if r.Verdict != Unknown && reference.Count < fewSamples {
		r.Reason += fmt.Sprintf(" (of %d syncs only: measure longer)", reference.Count)
	}
}

// Time is a number of microseconds for people.
func Time(us float64) string {
	switch {
	case us < 100:
		return fmt.Sprintf("%.1f µs", us)
	case us < 1000:
		return fmt.Sprintf("%.0f µs", us)
	case us < 100_000:
		return fmt.Sprintf("%.1f ms", us/1000)
	case us < 1_000_000:
		return fmt.Sprintf("%.0f ms", us/1000)
	}
	return fmt.Sprintf("%.1f s", us/1_000_000)
}
