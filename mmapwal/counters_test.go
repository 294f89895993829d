package mmapwal

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// testCounted returns the buckets of h that are not empty, by upper bound.
func testCounted(h Histogram) map[float64]uint64 {
	counted := make(map[float64]uint64)
	for k, n := range h.Counts {
		if n == 0 {
			continue
		}
		bound := math.Inf(1)
		if k < len(h.Bounds) {
			bound = h.Bounds[k]
		}
		counted[bound] = n
	}
	return counted
}

func testHistogram(t *testing.T, what string, h Histogram, sum float64, want map[float64]uint64) {
	t.Helper()
	if got := testCounted(h); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: counted %v, want %v", what, got, want)
	}
	if math.Abs(h.Sum-sum) > 1e-9*sum {
		t.Errorf("%s: sum %v, want %v", what, h.Sum, sum)
	}
	if len(h.Counts) != len(h.Bounds)+1 || !slices.IsSorted(h.Bounds) {
		t.Errorf("%s: bounds %v, %d counts", what, h.Bounds, len(h.Counts))
	}
}

// TestHistogram: a value that equals a bound is in that bound's bucket.
func TestHistogram(t *testing.T) {
	var d times
	for _, ns := range []time.Duration{0, 1, 953, 954, 1907, 1908, 16 * time.Second, 16*time.Second + 1, time.Hour, -5} {
		d.add(ns)
	}
	testHistogram(t, "times", d.histogram(), 32+3600+(1+953+954+1907+1908+1-5)*1e-9,
		map[float64]uint64{1. / (1 << 20): 4, 1. / (1 << 19): 2, 1. / (1 << 18): 1, 16: 1, math.Inf(1): 2})
	if n := d.histogram().Count(); n != 10 {
		t.Errorf("%d times, want 10", n)
	}

	var s sizes
	for _, n := range []uint64{1, 2, 3, 4, 5, 65_536, 65_537, 1 << 40} {
		s.add(n)
	}
	testHistogram(t, "sizes", s.histogram(), 15+65_536+65_537+1<<40,
		map[float64]uint64{1: 1, 2: 1, 4: 2, 8: 1, 65_536: 1, math.Inf(1): 2})

	var empty times
	testHistogram(t, "empty", empty.histogram(), 0, nil)
}

func testEntries(n, size int) []*raftpb.Entry {
	return slices.Repeat([]*raftpb.Entry{{Data: make([]byte, size)}}, n)
}

func (c *counters) testStats() (s Stats) {
	c.fill(&s)
	return s
}

// TestCountersOfSync: a sync has what was appended before it began, and overlapping
// ones count nothing twice.
func TestCountersOfSync(t *testing.T) {
	c := counters{opened: time.Now()}
	c.appended(testEntries(3, 10))
	first := c.beginSync()
	c.appended(testEntries(2, 5))
	second := c.beginSync()
	c.appended(testEntries(1, 7))
	if s := c.testStats(); s.UnsyncedEntries != 6 || s.AppendedEntries != 6 || s.AppendedBytes != 47 {
		t.Errorf("before the syncs: %+v", s)
	}
	c.endSync(second)
	c.endSync(first)
	s := c.testStats()
	if s.UnsyncedEntries != 1 {
		t.Errorf("%d entries unsynced, want 1", s.UnsyncedEntries)
	}
	testHistogram(t, "entries", s.SyncEntries, 5, map[float64]uint64{8: 1})
	testHistogram(t, "saves", s.SyncSaves, 2, map[float64]uint64{2: 1})
	if n := s.SyncTime.Count(); n != 2 {
		t.Errorf("%d syncs, want 2", n)
	}
}

func TestCountersOfErrors(t *testing.T) {
	var c counters
	fault := fmt.Errorf("%w (%w)", ErrCorrupt, ErrFault)
	for _, err := range []error{nil, raft.ErrCompacted, ErrCorrupt, fault} {
		c.failedRead(err)
		c.read(testEntries(2, 3), err)
	}
	c.saved(call{}, ErrNoSpace)
	c.saved(call{}, ErrCorrupt)
	c.saved(call{}, fmt.Errorf("%w: %w", ErrPoisoned, fault))
	s := c.testStats()
	if s.CorruptReads != 5 || s.Faults != 2 || s.ReadEntries != 2 || s.ReadBytes != 6 {
		t.Errorf("reads: %+v", s)
	}
	if s.SaveErrors != 3 || s.NoSpace != 1 || s.SaveTime.Count() != 0 {
		t.Errorf("saves: %+v", s)
	}
}

func TestCountersOfCompactions(t *testing.T) {
	var c counters
	c.rotated()
	c.compacted()
	s := c.testStats()
	if s.Rotations != 1 || s.Compactions != 1 || !s.LastSnapshot.IsZero() {
		t.Errorf("%+v", s)
	}
	at := time.Unix(1000, 5)
	c.snapshotStored(at)
	if s := c.testStats(); !s.LastSnapshot.Equal(at) {
		t.Errorf("last snapshot %v, want %v", s.LastSnapshot, at)
	}
}

// TestSlowSyncs: the first is logged, and then none until the pause is over; the
// next line tells of all that were not.
func TestSlowSyncs(t *testing.T) {
	var s slowSyncs
	for k, step := range []struct {
		now, took time.Duration
		n         uint64
		worst     time.Duration
	}{
		{0, 2, 1, 2},
		{1, 9, 0, 0},
		{slowSyncPause - 1, 3, 0, 0},
		{slowSyncPause, 4, 3, 9},
		{slowSyncPause + 1, 5, 0, 0},
		{3 * slowSyncPause, 1, 2, 5},
	} {
		if n, worst := s.add(step.now, step.took); n != step.n || worst != step.worst {
			t.Errorf("step %d: %d, worst %v; want %d, worst %v", k, n, worst, step.n, step.worst)
		}
	}
	if s.count() != 6 {
		t.Errorf("%d slow syncs, want 6", s.count())
	}
}

// TestCountersConcurrently: what is read while others count is never more than
// there is.
func TestCountersConcurrently(t *testing.T) {
	const workers, each = 4, 2000
	c := counters{opened: time.Now()}
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			es := testEntries(1, 1)
			for k := range each {
				c.appended(es)
				c.saved(call{began: c.now()}, []error{nil, ErrNoSpace, errors.New("other")}[k%3])
				if k%10 == 0 {
					c.endSync(c.beginSync())
				}
				if s := c.testStats(); s.UnsyncedEntries > workers*each || s.NoSpace > s.SaveErrors {
					t.Errorf("%d entries unsynced; %d errors, %d no space", s.UnsyncedEntries, s.SaveErrors, s.NoSpace)
					return
				}
			}
		})
	}
	wg.Wait()
	c.endSync(c.beginSync())
	s := c.testStats()
	if s.AppendedEntries != workers*each || s.UnsyncedEntries != 0 {
		t.Errorf("%d entries, %d unsynced", s.AppendedEntries, s.UnsyncedEntries)
	}
	if s.SyncEntries.Sum != workers*each || s.SyncSaves.Sum != workers*each {
		t.Errorf("syncs of %v entries, %v saves; want %d", s.SyncEntries.Sum, s.SyncSaves.Sum, workers*each)
	}
}

// testCountSave counts a Save of es under NoSync that did not have to wait.
func testCountSave(c *counters, es []*raftpb.Entry) {
	began := c.now()
	c.appended(es)
	c.saved(call{began: began}, nil)
}

func BenchmarkCounting(b *testing.B) {
	c := counters{opened: time.Now()}
	es := testEntries(1, 1)
	for b.Loop() {
		testCountSave(&c, es)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	c := counters{opened: time.Now()}
	es := testEntries(1, 1)
	if n := testing.AllocsPerRun(100, func() {
		testCountSave(&c, es)
		c.endSync(c.beginSync())
		c.read(es, nil)
		c.failedRead(raft.ErrUnavailable)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestPinnedFiles: a dead file counts as long as a read has it in use.
func TestPinnedFiles(t *testing.T) {
	d := testOpen(t)
	for i := range uint64(3) {
		if err := d.Save(nil, testOne(i+1, 800_000), nil); err != nil {
			t.Fatal(err)
		}
	}
	f := d.files[0].file
	if !f.Pin() {
		t.Fatal("the file is gone")
	}
	if err := d.CreateSnapshot(2, nil, nil); err != nil {
		t.Fatal(err)
	}
	d.WaitForBackground()
	if n := d.Stats().PinnedFiles; n != 1 {
		t.Errorf("%d files pinned, want 1", n)
	}
	if err := f.Release(); err != nil {
		t.Fatal(err)
	}
	if n := d.Stats().PinnedFiles; n != 0 || len(d.count.files.dead) != 0 {
		t.Errorf("%d files pinned, want none", n)
	}
}

func testOpen(t *testing.T) *DiskStorage {
	t.Helper()
	d, err := Open(t.TempDir(), &Options{FileDataSize: 1 << 20, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func testOne(i uint64, size int) []*raftpb.Entry {
	return []*raftpb.Entry{{Index: &i, Term: new(uint64(1)), Data: make([]byte, size)}}
}

// TestWaitIsCounted: a Save that finds the log in use waits, and says how long.
func TestWaitIsCounted(t *testing.T) {
	d := testOpen(t)
	i := uint64(0)
	for pause := time.Millisecond; d.Stats().WaitTime.Sum == 0; pause *= 2 {
		if pause > time.Minute {
			t.Fatal("no Save has waited")
		}
		d.writing.Lock()
		i++
		var save sync.WaitGroup
		save.Go(func() {
			if err := d.Save(nil, testOne(i, 1), nil); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(pause) // by then it has found the lock taken, most likely
		d.writing.Unlock()
		save.Wait()
	}
	if s := d.Stats(); s.WaitTime.Count() != i || s.WaitTime.Sum > s.SaveTime.Sum {
		t.Errorf("%d waits of %d Saves, %v s of %v s", s.WaitTime.Count(), i, s.WaitTime.Sum, s.SaveTime.Sum)
	}
}
