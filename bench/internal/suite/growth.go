package suite

import (
	"errors"
	"runtime"
	"time"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
)

const (
	growthSize  = 128  // bytes of data in an entry
	growthReads = 1000 // of one entry, at random
)

// grown is what was found when a log had so many entries.
type grown struct {
	entries      int
	openNs       float64
	appendNs     float64 // of an entry, since the point before
	readNs       float64 // of an entry at random; 0 if the log cannot
	heapPerEntry float64 // more than with the empty log
}

// growthPoints returns the lengths at which a growing log is looked at.
func growthPoints(entries int) []int {
	var points []int
	for _, part := range []int{64, 16, 4, 1} {
		if n := entries / part; n > 0 {
			points = append(points, n)
		}
	}
	return points
}

// grow fills a new log, not synced, and looks at it at every point.
func (r *runner) grow(c contender.Contender, dir string) ([]grown, error) {
	r.source.restart()
	l, err := c.Open(dir, contender.Options{NoSync: true})
	if err != nil {
		return nil, err
	}
	empty := heap()
	var all []grown
	for _, n := range growthPoints(r.cfg.Entries) {
		g := grown{entries: n}
		if l, err = r.growTo(&g, c, l, dir, empty); err != nil {
			break
		}
		all = append(all, g)
	}
	if l != nil {
		err = errors.Join(err, l.Close())
	}
	return all, err
}

// growTo lets l grow, and opens it anew. It returns the log that is open; nil if
// none is.
func (r *runner) growTo(g *grown, c contender.Contender, l contender.Log, dir string, empty uint64) (contender.Log, error) {
	from := r.source.next
	took, err := r.fill(l, uint64(g.entries), growthSize)
	if err != nil {
		return l, err
	}
	g.appendNs = float64(took) / float64(r.source.next-from)
	if err := l.Close(); err != nil {
		return nil, err
	}
	runtime.GC()
	started := time.Now()
	l, err = c.Open(dir, contender.Options{NoSync: true})
	if err != nil {
		return nil, err
	}
	g.openNs = float64(time.Since(started))
	g.heapPerEntry = (float64(heap()) - float64(empty)) / float64(g.entries)
	if !c.WriteOnly {
		g.readNs, err = r.readAtRandom(l, g.entries)
	}
	return l, err
}

// readAtRandom returns the time that it takes to read one of the log's entries.
func (r *runner) readAtRandom(l contender.Log, entries int) (float64, error) {
	started := time.Now()
	for range growthReads {
		i := r.rng.Uint64N(uint64(entries)) + 1
		if err := readExactly(l, i, i+1, growthSize); err != nil {
			return 0, err
		}
	}
	return float64(time.Since(started)) / growthReads, nil
}

// heap returns how many bytes of the heap are in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what finalizers have let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
