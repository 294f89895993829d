package suite

import (
	"errors"
	"fmt"
	"time"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
	"github.com/seed-2fef92ad/raftwal/bench/internal/device"
	"github.com/seed-2fef92ad/raftwal/bench/internal/stats"
	"go.etcd.io/raft/v3/raftpb"
)

const (
	warmUpSaves = 3 // not measured

	// A measurement ends when so many bytes are saved, so that it does not wait for
	// the kernel's writing. Saves that are not synced get more of them, and three times
	// as long: files have to fill up meanwhile.
	maxSaved         = 256 << 20
	maxSavedUnsynced = 1 << 30
	unsyncedTimes    = 3
	rehearsalTimes   = 3 // as long as what is measured

	blockBytes = 1 << 20 // of entries that are made ahead, at about
	blockCalls = 256     // at most; 32 times as many if some are in flight
	recent     = 100     // entries: how far back Workload.Recent reads; our cache holds them by default
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

// measureSaves measures Append of an open log, after a few that are not measured.
func (r *runner) measureSaves(w Workload, l contender.Log, until limits) (*sample, error) {
	if w.Reused {
		err := (&recycler{r: r, l: l}).prepare()
		if err = errors.Join(err, syncFileSystem(r.dir)); err != nil {
			return nil, err
		}
	}
	for range warmUpSaves {
		if err := l.Append(r.source.batch(w.Entries, w.Size)); err != nil {
			return nil, err
		}
	}
	return r.timeSaves(w, l, until)
}

// timeSaves measures Append of an open log. Entries are made outside the time that is
// measured; a log whose files are to be used again is compacted outside of it.
func (r *runner) timeSaves(w Workload, l contender.Log, until limits) (*sample, error) {
	s := &sample{}
	before, err := r.counters()
	if err != nil {
		return nil, err
	}
	recycle := recycler{r: r, l: l}
	for s.elapsed < until.time && s.calls*w.Bytes() < until.bytes {
		if err := r.timeBlock(w, l, s, until.time); err != nil {
			return nil, err
		}
		if w.Reused {
			if err := recycle.after(s.calls * w.Bytes()); err != nil {
				return nil, err
			}
		}
	}
	after, err := r.counters()
	s.device = after.Sub(before)
	return s, err
}

// limits say when a measurement ends.
type limits struct {
	time  time.Duration
	bytes int // saved
}

func (r *runner) limits(w Workload) limits {
	if w.NoSync && w.Saves() {
		return limits{unsyncedTimes * r.cfg.Time, maxSavedUnsynced}
	}
	return limits{r.cfg.Time, maxSaved}
}

// timeBlock makes a block of entries and saves it, or what there is time for.
func (r *runner) timeBlock(w Workload, l contender.Log, s *sample, limit time.Duration) error {
	n := min(max(blockBytes/w.Bytes(), 1), blockCalls)
	a, async := l.(contender.Async)
	if async = async && w.InFlight > 0; async {
		n *= 32
	}
	from, calls := r.source.next, s.calls
	block := r.batches(n, w)
	var err error
	if async {
		err = s.timeAsync(n, limit, w.InFlight, func(k int, done func(error)) { a.AppendAsync(block[k], done) })
	} else {
		err = s.timeCalls(n, limit, func(k int) error { return l.Append(block[k]) })
	}
	r.source.next = from + uint64((s.calls-calls)*w.Entries) // some may not have been saved
	return err
}

// timeAsync is timeCalls for calls that are done later: inFlight of them are under way
// at a time, and all are done when it returns. A call's time is that until it is done.
func (s *sample) timeAsync(n int, limit time.Duration, inFlight int, call func(k int, done func(error))) error {
	results := make(chan error, inFlight)
	took := make([]time.Duration, n)
	begun, ended := 0, 0
	started := time.Now()
	for more := true; more || ended < begun; {
		if more = more && begun < n && s.elapsed+time.Since(started) < limit; more {
			k, from := begun, time.Now()
			begun++
			call(k, func(err error) { took[k] = time.Since(from); results <- err })
		}
		for begun-ended == inFlight || !more && ended < begun {
			if err := <-results; err != nil {
				return err
			}
			ended++
		}
	}
	s.elapsed += time.Since(started)
	s.calls += ended
	for _, d := range took[:ended] {
		s.latency.Add(d)
	}
	return nil
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

// readEntries returns how many entries a log has that w reads: as many bytes whatever
// their size.
func (r *runner) readEntries(w Workload) uint64 { return uint64(r.cfg.ReadEntries * 1024 / w.Size) }

// measureReads measures Read, or Term, of an open log that is filled.
func (r *runner) measureReads(w Workload, l contender.Log, until limits) (*sample, error) {
	s := &sample{}
	call := r.reading(w, l)
	if w.Terms {
		call = r.termsReading(w, l.(contender.Terms))
	}
	for s.elapsed < until.time {
		if err := s.timeCalls(blockCalls, until.time, call); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// reading returns what reads w.Entries entries.
func (r *runner) reading(w Workload, l contender.Log) func(int) error {
	first, last := uint64(1), r.readEntries(w)
	if w.Recent && last > recent {
		first = last - recent + 1
	}
	span := uint64(w.Entries)
	next := first
	return func(int) error {
		lo := next
		if w.Random {
			lo = first + r.rng.Uint64N(last-first+2-span)
		} else if next += span; next+span > last+1 {
			next = first
		}
		return readExactly(l, lo, lo+span, w.Bytes())
	}
}

// termsReading returns what looks up w.Entries terms.
func (r *runner) termsReading(w Workload, l contender.Terms) func(int) error {
	indexes := make([]uint64, 64*w.Entries) // made ahead, outside the time
	for k := range indexes {
		indexes[k] = 1 + r.rng.Uint64N(r.readEntries(w))
	}
	return func(k int) error {
		from := k * w.Entries % len(indexes)
		for _, i := range indexes[from : from+w.Entries] {
			if _, err := l.Term(i); err != nil {
				return err
			}
		}
		return nil
	}
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
