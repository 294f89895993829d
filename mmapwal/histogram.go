package mmapwal

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Histogram is how often values of each size were seen since Open.
type Histogram struct {
	// Bounds are the upper bounds of the buckets, rising: powers of two, each twice the
	// one before it, and the same in every run.
	Bounds []float64
	// Counts has a number for each bucket, those in front of it not included, and
	// one more for what is above all bounds.
	Counts []uint64
	// Sum is that of all values.
	Sum float64
}

// Count returns how many values there were.
func (h Histogram) Count() (n uint64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// The buckets: 2^-20 s (about 1 µs), 2^-19 s … 16 s for times, 1, 2, 4 … 65,536 for sizes.
const (
	timeDoublings = 24
	sizeDoublings = 16

	shortest = 1.0 / (1 << 20)  // the first bound of times, in seconds
	longest  = 64 * time.Second // above all bounds
)

// times is a Histogram of times in the making; its zero value is empty.
type times struct {
	counts [timeDoublings + 2]atomic.Uint64
	sum    atomic.Int64 // nanoseconds
}

func (t *times) add(d time.Duration) {
	var above uint64 // whole units of shortest that lie below d
	if d > 0 {
		above = (uint64(min(d, longest))<<20 - 1) / uint64(time.Second)
	}
	t.counts[bucket(above, len(t.counts))].Add(1)
	if d != 0 { // most waits
		t.sum.Add(int64(d))
	}
}

// histogram returns the times in seconds.
func (t *times) histogram() Histogram {
	return histogram(t.counts[:], shortest, time.Duration(t.sum.Load()).Seconds())
}

// sizes is a Histogram of numbers from 1 on in the making; its zero value is empty.
type sizes struct {
	counts [sizeDoublings + 2]atomic.Uint64
	sum    atomic.Uint64
}

func (s *sizes) add(n uint64) {
	s.counts[bucket(n-1, len(s.counts))].Add(1)
	s.sum.Add(n)
}

func (s *sizes) histogram() Histogram {
	return histogram(s.counts[:], 1, float64(s.sum.Load()))
}

// bucket returns which of n buckets takes the value v+1, in units of the first.
func bucket(v uint64, n int) int { return min(bits.Len64(v), n-1) }

func histogram(counts []atomic.Uint64, first, sum float64) Histogram {
	h := Histogram{Bounds: make([]float64, len(counts)-1), Counts: make([]uint64, len(counts)), Sum: sum}
	for k := range h.Bounds {
		h.Bounds[k] = first * float64(uint64(1)<<k)
	}
	for k := range counts {
		h.Counts[k] = counts[k].Load()
	}
	return h
}
