package realdisk

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// results collects the figures of all tests for the table at the end.
var results = &table{rows: make(map[string]*row)}

type table struct {
	mu   sync.Mutex
	rows map[string]*row
}

// row is what was found in the images of one test on one file system.
type row struct {
	cuts     int
	distinct map[[32]byte]bool
	acked    int // calls acknowledged when the power was cut, of all cuts
	unclean  int // images in which the log was open
	torn     int64
	lost     int // images that were found to lack what was acknowledged
}

// add counts one image.
func (t *table) add(name string, sum [32]byte, acked int, found found) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rows[name]
	if r == nil {
		r = &row{distinct: make(map[[32]byte]bool)}
		t.rows[name] = r
	}
	r.cuts++
	r.distinct[sum] = true
	r.acked += acked
	r.torn += found.torn
	if found.unclean {
		r.unclean++
	}
	if found.lost {
		r.lost++
	}
}

func (t *table) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var names []string
	for name := range t.rows {
		names = append(names, name)
	}
	slices.Sort(names)
	var out strings.Builder
	const format = "%-20s %6v %8v %14v %16v %10v %6v\n"
	fmt.Fprintf(&out, format, "test, file system", "cuts", "distinct", "acked at a cut", "opened unclean", "torn bytes", "lost")
	for _, name := range names {
		r := t.rows[name]
		fmt.Fprintf(&out, format, name, r.cuts, len(r.distinct), fmt.Sprintf("%.1f", float64(r.acked)/float64(r.cuts)), r.unclean, r.torn, r.lost)
	}
	return out.String()
}
