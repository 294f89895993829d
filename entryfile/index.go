package entryfile

import "sort"

// Index says where the live entries of a file are. It is kept for the file that
// is being appended to, and for one whose slots are damaged.
//
// An Index is a value that can be copied and then read without a lock while the
// original grows: add never changes what a copy sees, and truncate makes new
// slices.
type Index struct {
	first   uint64   // index of the first entry; 0 while there is none
	records []uint32 // offsets of the records, in units of 8 bytes
	terms   []Run
	others  []Other
}

// Len returns the number of live entries.
func (x *Index) Len() uint64 { return uint64(len(x.records)) }

// First returns the index of the first live entry, 0 if there is none.
func (x *Index) First() uint64 {
	if len(x.records) == 0 {
		return 0
	}
	return x.first
}

// Last returns the index of the last live entry, 0 if there is none.
func (x *Index) Last() uint64 {
	if len(x.records) == 0 {
		return 0
	}
	return x.first + x.Len() - 1
}

// Has reports whether the entry is live.
func (x *Index) Has(i uint64) bool { return len(x.records) > 0 && i >= x.first && i-x.first < x.Len() }

// Record returns the offset of the record of entry i, which must be live.
func (x *Index) Record(i uint64) int64 { return int64(x.records[i-x.first]) * recordAlign }

// Term returns the term of entry i, which must be live.
func (x *Index) Term(i uint64) uint64 { return termIn(x.terms, i) }

// Terms returns the runs of live entries that share a term, which must not be changed.
func (x *Index) Terms() []Run { return x.terms }

// termIn finds the term of entry i, most often that of the last run.
func termIn(terms []Run, i uint64) uint64 {
	if n := len(terms); i >= terms[n-1].First {
		return terms[n-1].Term
	}
	after := sort.Search(len(terms), func(k int) bool { return terms[k].First > i })
	return terms[after-1].Term
}

// Type returns the entry type of entry i, which must be live.
func (x *Index) Type(i uint64) uint32 {
	k := sort.Search(len(x.others), func(k int) bool { return x.others[k].Index >= i })
	if k < len(x.others) && x.others[k].Index == i {
		return x.others[k].Type
	}
	return 0
}

// add appends the entry at x.Last()+1, or the very first one.
func (x *Index) add(i, term uint64, typ uint32, record int64) {
	if len(x.records) == 0 {
		x.first = i
	}
	x.records = append(x.records, uint32(record/recordAlign))
	if n := len(x.terms); n == 0 || x.terms[n-1].Term != term {
		x.terms = append(x.terms, Run{First: i, Term: term})
	}
	if typ != 0 {
		x.others = append(x.others, Other{Index: i, Record: record, Type: typ})
	}
}

// truncate drops the entries from i on.
func (x *Index) truncate(i uint64) {
	if i > x.Last() {
		return
	}
	keep := 0
	if i > x.first {
		keep = int(i - x.first)
	}
	x.records = append(make([]uint32, 0, keep+keep/4+16), x.records[:keep]...)
	terms := sort.Search(len(x.terms), func(k int) bool { return x.terms[k].First >= i })
	others := sort.Search(len(x.others), func(k int) bool { return x.others[k].Index >= i })
	x.terms = append([]Run(nil), x.terms[:terms]...)
	x.others = append([]Other(nil), x.others[:others]...)
}

// slot returns the slot of entry i, which must be live.
func (x *Index) slot(i uint64) slot {
	return slot{term: x.Term(i), index: i, data: x.Record(i) + dataOffset, typ: x.Type(i)}
}
