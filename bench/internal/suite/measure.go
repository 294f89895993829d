package suite

import (
	"fmt"
	"time"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
	"github.com/seed-2fef92ad/raftwal/bench/internal/device"
	"github.com/seed-2fef92ad/raftwal/bench/internal/stats"
	"go.etcd.io/raft/v3/raftpb"
)

const (
	warmUpSaves = 3         // not measured
	maxSaved    = 256 << 20 // bytes: a measurement ends there, so that it does not wait for the kernel's writing
	blockBytes  = 1 << 20   // of entries that are made ahead, at about
	blockCalls  = 256       // at most
)

// sample is what one measurement found.
type sample struct {
	calls   int
	elapsed time.Duration
	latency stats.Histogram
	device  device.Counters // zero if there are none
}

func (s *sample) nsPerCall() float64 { return float64(s.elapsed) / float64(s.calls) }

// timeCalls times up to n calls, fewer if the limit is reached. Each call's time
// includes one reading of the clock.
func (s *sample) timeCalls(n int, limit time.Duration, call func(k int) error) error {
	took := make([]time.Duration, 0, n)
	started := time.Now()
	last := started
	for k := 0; k < n && s.elapsed+last.Sub(started) < limit; k++ {
		if err := call(k); err != nil {
			return err
		}
		now := time.Now()
		took = append(took, now.Sub(last))
		last = now
	}
	s.elapsed += last.Sub(started)
	s.calls += len(took)
	for _, d := range took {
		s.latency.Add(d)
	}
	return nil
}

// measureSaves measures Append of an open log. Entries are made outside the time
// that is measured.
func (r *runner) measureSaves(w Workload, l contender.Log) (*sample, error) {
	s := &sample{}
	for range warmUpSaves {
		if err := l.Append(r.source.batch(w.Entries, w.Size)); err != nil {
			return nil, err
		}
	}
	before, err := r.counters()
	if err != nil {
		return nil, err
	}
	n := min(max(blockBytes/w.Bytes(), 1), blockCalls)
	for s.elapsed < r.cfg.Time && s.calls*w.Bytes() < maxSaved {
		block := r.batches(n, w)
		if err := s.timeCalls(n, r.cfg.Time, func(k int) error { return l.Append(block[k]) }); err != nil {
			return nil, err
		}
		r.source.next = uint64((s.calls+warmUpSaves)*w.Entries) + 1 // some may not have been saved
	}
	after, err := r.counters()
	s.device = after.Sub(before)
	return s, err
}

// batches returns n batches for the workload.
func (r *runner) batches(n int, w Workload) [][]*raftpb.Entry {
	bs := make([][]*raftpb.Entry, n)
	for k := range bs {
		bs[k] = r.source.batch(w.Entries, w.Size)
	}
	return bs
}

// counters returns what the device has counted; zeros if it cannot be found.
func (r *runner) counters() (device.Counters, error) {
	if r.device == nil {
		return device.Counters{}, nil
	}
	return r.device.Read()
}

// measureReads fills an open log and measures Read.
func (r *runner) measureReads(w Workload, l contender.Log) (*sample, error) {
	count := uint64(r.cfg.ReadEntries)
	if _, err := r.fill(l, count, w.Size); err != nil {
		return nil, err
	}
	s, want := &sample{}, w.Bytes()
	next := uint64(1)
	span := uint64(w.Entries)
	for s.elapsed < r.cfg.Time {
		err := s.timeCalls(blockCalls, r.cfg.Time, func(int) error {
			lo := next
			if w.Random {
				lo = r.rng.Uint64N(count-span+1) + 1
			} else if next += span; next+span > count+1 {
				next = 1
			}
			return readExactly(l, lo, lo+span, want)
		})
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// readExactly reads entries [lo, hi), which have want bytes.
func readExactly(l contender.Log, lo, hi uint64, want int) error {
	got := 0
	if err := l.Read(lo, hi, func(data []byte) { got += len(data) }); err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("entries [%d, %d) have %d bytes; %d were saved", lo, hi, got, want)
	}
	return nil
}

// fill appends entries until the log has count of them, and returns how long the
// appending took.
func (r *runner) fill(l contender.Log, count uint64, size int) (took time.Duration, err error) {
	const perSave = 256
	for r.source.next <= count {
		es := r.source.batch(int(min(perSave, count+1-r.source.next)), size)
		started := time.Now()
		if err := l.Append(es); err != nil {
			return took, err
		}
		took += time.Since(started)
	}
	return took, nil
}
