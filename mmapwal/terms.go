package mmapwal

import (
	"slices"
	"sort"

	"github.com/seed-2fef92ad/raftwal/entryfile"
)

// terms are those of the entries in files that take no more records, as far as they are
// in memory. They are found without a lock: a terms is never changed, only replaced.
type terms struct {
	first, last uint64          // the entries that are covered
	runs        []entryfile.Run // the newest first; term 0: not in memory
}

// maxRuns bounds what is in memory; only the newest entries are covered if there are more.
const maxRuns = 4096

// newTerms returns the terms of the entries of segments, from index first on.
func newTerms(first uint64, segments []segment) *terms {
	t := &terms{first: first}
	for _, s := range slices.Backward(segments) {
		runs := s.terms()
		if len(t.runs)+len(runs) > maxRuns {
			break
		}
		t.last = max(t.last, s.last)
		for _, r := range slices.Backward(runs) {
			switch n := len(t.runs); {
			case r.First > s.last: // superseded
			case n > 0 && t.runs[n-1].Term == r.Term:
				t.runs[n-1].First = r.First
			default:
				t.runs = append(t.runs, r)
			}
		}
	}
	if n := len(t.runs); n > 0 {
		t.first = max(first, t.runs[n-1].First)
	}
	return t
}

// terms returns the terms of the segment's entries.
func (s *segment) terms() []entryfile.Run {
	var runs []entryfile.Run
	if s.index != nil {
		runs = s.index.Terms()
	} else {
		runs = s.file.Terms()
	}
	if len(runs) == 0 {
		return []entryfile.Run{{First: s.first}}
	}
	return runs
}

// term returns the term of entry i if it is in memory; t may be nil.
func (t *terms) term(i uint64) (term uint64, ok bool) {
	if t == nil || i < t.first || i > t.last {
		return 0, false
	}
	k := 0
	if i < t.runs[0].First {
		k = sort.Search(len(t.runs), func(k int) bool { return t.runs[k].First <= i })
	}
	return t.runs[k].Term, t.runs[k].Term != 0
}
