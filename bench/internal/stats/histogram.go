package stats

import (
	"math"
	"math/bits"
	"time"
)

// A histogram has 64 buckets for each power of two: a percentile is off by 1.6 %
// at most.
const (
	bucketBits = 6
	perPower   = 1 << bucketBits
)

// Histogram counts durations. The zero value is empty.
type Histogram struct {
	counts [(64 - bucketBits + 1) * perPower]uint64
	total  uint64
	max    time.Duration
}

// Add counts d.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	h.counts[bucketOf(uint64(d))]++
	h.total++
	h.max = max(h.max, d)
}

// Merge counts what other has counted.
func (h *Histogram) Merge(other *Histogram) {
	for k, n := range other.counts {
		h.counts[k] += n
	}
	h.total += other.total
	h.max = max(h.max, other.max)
}

// Total returns how many durations were counted.
func (h *Histogram) Total() uint64 { return h.total }

// Max returns the longest duration.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile returns the duration that the share q of all does not exceed; 0 if
// there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	want := max(uint64(math.Ceil(q*float64(h.total))), 1)
	seen := uint64(0)
	for k, n := range h.counts {
		if seen += n; seen >= want {
			return min(time.Duration(topOf(k)), h.max)
		}
	}
	return h.max
}

// bucketOf returns the bucket of v: its highest bit, and the six below that.
func bucketOf(v uint64) int {
	shift := max(bits.Len64(v)-bucketBits-1, 0)
	return shift*perPower + int(v>>shift)
}

// topOf returns the largest value in bucket k.
func topOf(k int) uint64 {
	shift := max(k/perPower-1, 0)
	return uint64(k-shift*perPower+1)<<shift - 1
}
