package stats

import (
	"math"
	"slices"
	"testing"
	"time"
)

func TestSummarize(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   Summary
	}{
		{nil, Summary{}},
		{[]float64{7}, Summary{7, 7, 7}},
		{[]float64{4, 2}, Summary{3, 2.5, 3.5}},
		{[]float64{5, 1, 3}, Summary{3, 2, 4}},
		{[]float64{5, 1, 1000, 2, 3}, Summary{3, 2, 5}},
	} {
		given := slices.Clone(c.values)
		if got := Summarize(c.values); got != c.want {
			t.Errorf("Summarize(%v) = %+v, want %+v", c.values, got, c.want)
		}
		if !slices.Equal(given, c.values) {
			t.Errorf("Summarize changed its argument: %v became %v", given, c.values)
		}
	}
}

func TestRatios(t *testing.T) {
	got := Ratios([]float64{10, 30, 5}, []float64{5, 10, 10})
	if want := []float64{2, 3, 0.5}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := Ratios([]float64{1}, nil); len(got) != 0 {
		t.Errorf("without a base: %v", got)
	}
}

func TestBuckets(t *testing.T) {
	for v := uint64(1); v < math.MaxUint64/2; v += v/7 + 1 {
		k := bucketOf(v)
		top := topOf(k)
		if top < v || float64(top-v) > float64(v)/perPower {
			t.Fatalf("%d is in bucket %d, which ends at %d", v, k, top)
		}
		if bucketOf(top) != k || bucketOf(top+1) != k+1 {
			t.Fatalf("bucket %d: ends at %d, but %d and %d are in %d and %d", k, top, top, top+1, bucketOf(top), bucketOf(top+1))
		}
	}
}

func TestHistogram(t *testing.T) {
	var low, high Histogram
	if low.Quantile(0.5) != 0 {
		t.Error("an empty histogram has a median")
	}
	for k := range 1000 {
		d := time.Duration(k+1) * time.Microsecond
		if k < 500 {
			low.Add(d)
		} else {
			high.Add(d)
		}
	}
	low.Merge(&high)
	if low.Total() != 1000 || low.Max() != time.Millisecond {
		t.Errorf("total %d, max %v", low.Total(), low.Max())
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 500, 0.99: 990, 0.999: 999, 1: 1000} {
		want *= time.Microsecond
		if got := low.Quantile(q); math.Abs(float64(got-want)) > float64(want)/perPower {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
}
