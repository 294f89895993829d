package chain_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/chain"
)

type ranges = []chain.Range

func gap(file int, first, last uint64) chain.Gap {
	return chain.Gap{File: file, Missing: chain.Range{First: first, Last: last}}
}

func TestChain(t *testing.T) {
	for name, test := range map[string]struct {
		compacted uint64
		held      ranges
		counting  ranges
		gaps      []chain.Gap
	}{
		"none":                            {},
		"one":                             {held: ranges{{1, 9}}, counting: ranges{{1, 9}}},
		"the first is compacted in part":  {5, ranges{{3, 9}, {10, 12}}, ranges{{3, 9}, {10, 12}}, nil},
		"the first is compacted":          {9, ranges{{3, 6}, {10, 12}}, ranges{{3, 6}, {10, 12}}, nil},
		"files without entries":           {0, ranges{{}, {1, 2}, {}, {3, 4}}, ranges{{}, {1, 2}, {}, {3, 4}}, nil},
		"a suffix is replaced":            {0, ranges{{1, 9}, {5, 6}}, ranges{{1, 4}, {5, 6}}, nil},
		"more than a file is":             {0, ranges{{1, 9}, {10, 20}, {5, 6}}, ranges{{1, 4}, {}, {5, 6}}, nil},
		"again, and deeper":               {0, ranges{{1, 17}, {18, 20}, {11, 12}, {9, 12}}, ranges{{1, 8}, {}, {}, {9, 12}}, nil},
		"and the file in front is gone":   {9, ranges{{18, 20}, {11, 12}, {9, 12}}, ranges{{}, {}, {9, 12}}, nil},
		"all of them are":                 {0, ranges{{1, 9}, {10, 12}, {1, 3}}, ranges{{}, {}, {1, 3}}, nil},
		"a file is lost":                  {0, ranges{{1, 9}, {15, 20}}, ranges{{1, 9}, {15, 20}}, []chain.Gap{gap(1, 10, 14)}},
		"two are lost":                    {0, ranges{{2, 9}, {15, 20}}, ranges{{2, 9}, {15, 20}}, []chain.Gap{gap(0, 1, 1), gap(1, 10, 14)}},
		"the first is lost":               {3, ranges{{15, 20}}, ranges{{15, 20}}, []chain.Gap{gap(0, 4, 14)}},
		"what is behind replaces the gap": {0, ranges{{1, 9}, {15, 20}, {10, 11}}, ranges{{1, 9}, {}, {10, 11}}, nil},
		"what is behind begins in it":     {0, ranges{{1, 9}, {15, 20}, {12, 30}}, ranges{{1, 9}, {}, {12, 30}}, []chain.Gap{gap(2, 10, 11)}},
		"the last index there is":         {1<<64 - 3, ranges{{1<<64 - 2, 1<<64 - 2}}, ranges{{1<<64 - 2, 1<<64 - 2}}, nil},
	} {
		c := chain.New(test.compacted)
		for _, held := range test.held {
			c.Add(held)
		}
		if got := c.Counting(); !slices.Equal(got, test.counting) {
			t.Errorf("%s: %v count, want %v", name, got, test.counting)
		}
		if gaps := c.Gaps(); !slices.Equal(gaps, test.gaps) || c.Whole() != (len(gaps) == 0) {
			t.Errorf("%s: gaps %v, whole: %v; want %v", name, gaps, c.Whole(), test.gaps)
		}
	}
}

// TestChainAgainstEntries: the rule is what comes out if each entry of each file is
// stored in turn, as a replacement of all that is there from its index on.
func TestChainAgainstEntries(t *testing.T) {
	const seed = 1
	r := rand.New(rand.NewPCG(seed, 0))
	for range 20_000 {
		compacted := r.Uint64N(8)
		c := chain.New(compacted)
		var held ranges
		for range 1 + r.IntN(6) {
			h := chain.Range{First: 1 + r.Uint64N(12)}
			h.Last = h.First + r.Uint64N(6)
			if r.IntN(6) == 0 {
				h = chain.Range{}
			}
			held = append(held, h)
			c.Add(h)
			checkChain(t, c, held, compacted)
		}
	}
}

func checkChain(t *testing.T, c *chain.Chain, held ranges, compacted uint64) {
	t.Helper()
	var owner [32]int // of each index, the number of the file plus 1
	for k, h := range held {
		if h.Empty() {
			continue
		}
		clear(owner[h.First:])
		for i := h.First; i <= h.Last; i++ {
			owner[i] = k + 1
		}
	}
	for k, counts := range c.Counting() {
		for i := range owner {
			if in := counts.First <= uint64(i) && uint64(i) <= counts.Last && !counts.Empty(); in != (owner[i] == k+1) {
				t.Fatalf("seed 1: %v: entry %d of file %d counts: %v", held, i, k, in)
			}
		}
	}
	last := compacted
	for i := range owner {
		if owner[i] != 0 {
			last = max(last, uint64(i))
		}
	}
	for i := compacted + 1; i <= last; i++ {
		in := slices.ContainsFunc(c.Gaps(), func(g chain.Gap) bool { return g.Missing.First <= i && i <= g.Missing.Last })
		if in != (owner[i] == 0) {
			t.Fatalf("seed 1: %v behind %d: entry %d is missing: %v, but the gaps are %v", held, compacted, i, owner[i] == 0, c.Gaps())
		}
	}
	if c.Whole() != (len(c.Gaps()) == 0) {
		t.Fatalf("seed 1: %v behind %d: whole: %v, but the gaps are %v", held, compacted, c.Whole(), c.Gaps())
	}
}
