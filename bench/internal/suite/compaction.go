package suite

import (
	"errors"
	"time"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
	"github.com/seed-2fef92ad/raftwal/bench/internal/stats"
)

// compacted is what was found when half of a log was dropped.
type compacted struct {
	tookNs        float64 // of the caller
	before, after *sample // synced saves
}

// CompactionResult is how a contender drops half of its entries.
type CompactionResult struct {
	Contender string        `json:"contender"`
	Entries   int           `json:"entries"` // before it
	TookNs    stats.Summary `json:"took_ns"` // of the caller

	// Of synced saves of one entry of 128 bytes.
	Before Latency `json:"saves_before"`
	After  Latency `json:"saves_after"` // from the first one on
}

// compact fills a log, drops half of it, and looks at the saves before and after.
func (r *runner) compact(c contender.Contender, dir string) error {
	r.source.restart()
	l, err := c.Open(dir, contender.Options{FileBytes: r.cfg.FileBytes})
	if err != nil {
		return err
	}
	found, err := r.compactHalf(l)
	r.compactions[c.Name] = append(r.compactions[c.Name], found)
	return errors.Join(err, l.Close())
}

func (r *runner) compactHalf(l contender.Log) (f compacted, err error) {
	if _, err = r.fill(l, uint64(r.cfg.Entries), growthSize); err != nil {
		return f, err
	}
	w := saves(1, growthSize, false)
	if f.before, err = r.measureSaves(w, l, r.limits(w)); err != nil {
		return f, err
	}
	started := time.Now()
	if err = l.(contender.Compacter).Compact(max(uint64(r.cfg.Entries)/2, 1)); err != nil {
		return f, err
	}
	f.tookNs = float64(time.Since(started))
	f.after, err = r.timeSaves(w, l, r.limits(w))
	return f, err
}

func (r *runner) compactionResults(c contender.Contender) []CompactionResult {
	rounds := r.compactions[c.Name]
	if len(rounds) == 0 {
		return nil
	}
	var before, after []*sample
	for _, f := range rounds {
		before, after = append(before, f.before), append(after, f.after)
	}
	return []CompactionResult{{
		Contender: c.Name, Entries: r.cfg.Entries,
		TookNs: summarize(rounds, func(f compacted) float64 { return f.tookNs }),
		Before: latency(before), After: latency(after),
	}}
}
