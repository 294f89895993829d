package suite

import (
	"errors"
	"runtime"
	"time"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
	"github.com/seed-2fef92ad/raftwal/bench/internal/stats"
)

const (
	growthSize  = 128  // bytes of data in an entry
	growthReads = 1000 // of one entry, at random
	growthTerms = 10_000
)

// grown is what was found when a log had so many entries.
type grown struct {
	entries      int
	openNs       float64
	appendNs     float64 // of an entry, since the point before
	readNs       float64 // of an entry at random; 0 if the log cannot
	termNs       float64 // of a term at random; likewise
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
func (r *runner) grow(c contender.Contender, dir string) error {
	r.source.restart()
	l, err := c.Open(dir, contender.Options{NoSync: true})
	if err != nil {
		return err
	}
	empty := heap()
	var all []grown
	for _, n := range growthPoints(r.cfg.Grow) {
		g := grown{entries: n}
		if l, err = r.growTo(&g, c, l, dir, empty); err != nil {
			break
		}
		all = append(all, g)
	}
	if l != nil {
		err = errors.Join(err, l.Close())
	}
	r.growths[c.Name] = append(r.growths[c.Name], all)
	return err
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
	if t, ok := l.(contender.Terms); ok && err == nil && c.Terms {
		g.termNs, err = r.termAtRandom(t, g.entries)
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

// termAtRandom returns the time that it takes to look up the term of an entry.
func (r *runner) termAtRandom(l contender.Terms, entries int) (float64, error) {
	indexes := make([]uint64, growthTerms)
	for k := range indexes {
		indexes[k] = r.rng.Uint64N(uint64(entries)) + 1
	}
	started := time.Now()
	for _, i := range indexes {
		if _, err := l.Term(i); err != nil {
			return 0, err
		}
	}
	return float64(time.Since(started)) / growthTerms, nil
}

// GrowthResult is how a contender did when its log had so many entries.
type GrowthResult struct {
	Contender           string         `json:"contender"`
	Entries             int            `json:"entries"`
	OpenNs              stats.Summary  `json:"open_ns"`
	AppendNsPerEntry    stats.Summary  `json:"append_ns_per_entry"`
	ReadNs              *stats.Summary `json:"read_ns,omitempty"`
	TermNs              *stats.Summary `json:"term_ns,omitempty"`
	HeapBytesPerMillion float64        `json:"heap_bytes_per_million_entries"`
}

func (r *runner) growthResults(c contender.Contender) []GrowthResult {
	var all []GrowthResult
	rounds := r.growths[c.Name]
	if len(rounds) == 0 {
		return nil
	}
	for k, n := range growthPoints(r.cfg.Grow) {
		found := at(rounds, k)
		g := GrowthResult{
			Contender: c.Name, Entries: n,
			OpenNs:              summarize(found, func(g grown) float64 { return g.openNs }),
			AppendNsPerEntry:    summarize(found, func(g grown) float64 { return g.appendNs }),
			HeapBytesPerMillion: summarize(found, func(g grown) float64 { return g.heapPerEntry }).Median * 1e6,
		}
		if !c.WriteOnly {
			g.ReadNs = new(summarize(found, func(g grown) float64 { return g.readNs }))
		}
		if c.Terms {
			g.TermNs = new(summarize(found, func(g grown) float64 { return g.termNs }))
		}
		all = append(all, g)
	}
	return all
}
