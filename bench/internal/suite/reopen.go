package suite

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
	"github.com/seed-2fef92ad/raftwal/bench/internal/stats"
)

// reopened is what was found when a log of so many entries, saved with a sync each 256
// of them, was opened again.
type reopened struct {
	entries  int
	cleanNs  float64 // after Close
	killedNs float64 // after SIGKILL
	filled   Usage   // of the log that was filled
	opened   Usage   // of the one that was opened again
}

// ReopenResult is how long a contender takes to open a log, and what that takes.
type ReopenResult struct {
	Contender string        `json:"contender"`
	Entries   int           `json:"entries"`
	CleanNs   stats.Summary `json:"after_close_ns"`
	KilledNs  stats.Summary `json:"after_kill_ns"`
	Filled    Usage         `json:"usage_when_filled"`
	Opened    Usage         `json:"usage_when_reopened"`
}

// reopenPoints returns the lengths at which a log is opened again.
func reopenPoints(entries int) []int { return []int{max(entries/100, 1), entries} }

// reopen opens logs of different lengths again.
func (r *runner) reopen(c contender.Contender, dir string) error {
	var all []reopened
	for _, n := range reopenPoints(r.cfg.Entries) {
		f := reopened{entries: n}
		err := r.inside(dir, func(dir string) error { return r.reopenClean(&f, c, dir) })
		if err == nil {
			err = r.inside(dir, func(dir string) error { return r.reopenKilled(&f, c, dir) })
		}
		if err != nil {
			return err
		}
		all = append(all, f)
	}
	r.reopens[c.Name] = append(r.reopens[c.Name], all)
	return nil
}

// inside calls do with an empty directory in dir, and removes it.
func (r *runner) inside(dir string, do func(dir string) error) error {
	sub := filepath.Join(dir, "inside")
	if err := os.Mkdir(sub, 0o700); err != nil {
		return err
	}
	return errors.Join(do(sub), os.RemoveAll(sub))
}

func (r *runner) reopenClean(f *reopened, c contender.Contender, dir string) error {
	r.source.restart()
	before := usage(dir)
	l, err := c.Open(dir, contender.Options{FileBytes: r.cfg.FileBytes})
	if err != nil {
		return err
	}
	if _, err := r.fill(l, uint64(f.entries), growthSize); err != nil {
		return errors.Join(err, l.Close())
	}
	f.filled = usage(dir).since(before, 1)
	if err := l.Close(); err != nil {
		return err
	}
	before = usage(dir)
	before.DiskBytes = 0
	f.cleanNs, err = r.open(c, dir, f.entries, func() { f.opened = usage(dir).since(before, 1) })
	return err
}

func (r *runner) reopenKilled(f *reopened, c contender.Contender, dir string) error {
	if err := r.fillKilled(c, dir, f.entries); err != nil {
		return err
	}
	var err error
	f.killedNs, err = r.open(c, dir, f.entries, func() {})
	return err
}

// open returns how long it takes to open a log, which must have so many entries, and
// calls look before it closes it.
func (r *runner) open(c contender.Contender, dir string, entries int, look func()) (float64, error) {
	runtime.GC()
	started := time.Now()
	l, err := c.Open(dir, contender.Options{FileBytes: r.cfg.FileBytes})
	took := float64(time.Since(started))
	if err != nil {
		return 0, err
	}
	look()
	if !c.WriteOnly {
		last := uint64(entries)
		err = readExactly(l, last, last+1, growthSize)
	}
	return took, errors.Join(err, l.Close())
}

func (r *runner) reopenResults(c contender.Contender) []ReopenResult {
	var all []ReopenResult
	rounds := r.reopens[c.Name]
	if len(rounds) == 0 {
		return nil
	}
	for k, n := range reopenPoints(r.cfg.Entries) {
		found := at(rounds, k)
		all = append(all, ReopenResult{
			Contender: c.Name, Entries: n,
			CleanNs:  summarize(found, func(f reopened) float64 { return f.cleanNs }),
			KilledNs: summarize(found, func(f reopened) float64 { return f.killedNs }),
			Filled:   medianUsage(found, func(f reopened) Usage { return f.filled }),
			Opened:   medianUsage(found, func(f reopened) Usage { return f.opened }),
		})
	}
	return all
}

// medianUsage returns the median of each figure.
func medianUsage[T any](rounds []T, of func(T) Usage) Usage {
	median := func(figure func(Usage) float64) float64 {
		return summarize(rounds, func(t T) float64 { return figure(of(t)) }).Median
	}
	return Usage{
		HeapBytes:     median(func(u Usage) float64 { return u.HeapBytes }),
		ResidentBytes: median(func(u Usage) float64 { return u.ResidentBytes }),
		DiskBytes:     median(func(u Usage) float64 { return u.DiskBytes }),
		Descriptors:   median(func(u Usage) float64 { return u.Descriptors }),
		Mappings:      median(func(u Usage) float64 { return u.Mappings }),
		Goroutines:    median(func(u Usage) float64 { return u.Goroutines }),
	}
}
