package repair

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/inspect"
)

// truth is what can be told of a damaged log about the entries that it had.
type truth struct {
	// lost is the first entry that cannot be read, or was replaced by one that cannot.
	lost uint64 // math.MaxUint64: none
	// reached is up to where the log went at the least; 0: not known.
	reached uint64
	// doubt are entries that can be read, and may have been replaced by what cannot.
	doubt span
	// retained: entries that the snapshot covers may have been replaced by what cannot be read.
	retained bool
	// more: behind the last entry that is known there may have been others.
	more bool
}

// add takes in what was found besides.
func (t *truth) add(o truth) {
	if t.lost == 0 { // nothing is known yet
		t.lost = math.MaxUint64
	}
	t.lost, t.reached = min(t.lost, o.lost), max(t.reached, o.reached)
	t.doubt.add(o.doubt)
	t.more = t.more || o.more
}

// span is a range of indexes; first 0: none.
type span struct{ first, last uint64 }

func (s *span) add(o span) {
	switch {
	case o.first == 0 || o.first > o.last:
	case s.first == 0:
		*s = o
	default:
		s.first, s.last = min(s.first, o.first), max(s.last, o.last)
	}
}

func (s span) holds(i uint64) bool { return s.first != 0 && s.first <= i && i <= s.last }

// place is where something stands in the order in which the log was written.
type place struct {
	file   uint64 // its number
	offset int64
}

func (p place) before(o place) bool {
	return cmp.Or(cmp.Compare(p.file, o.file), cmp.Compare(p.offset, o.offset)) < 0
}

// hole is a place where records may have stood that cannot be read. What stands in front
// of it may have been replaced by them, from index low on.
type hole struct {
	at  place
	low uint64 // math.MaxUint64: from none
	// end: nothing says which entries the last ones of them were.
	end bool
}

// run is entries that can be read, of one term and file, with no hole between them.
type run struct {
	first, last, term uint64
	at                place // of the last
	exact             bool  // last is the last of all that its file holds, and held when the log was closed
}

// seek finds out what can be told of l.
func (w *work) seek(ctx context.Context, l *inspect.Log) (truth, error) {
	t := truth{lost: math.MaxUint64}
	if !l.Damaged() {
		return t, nil
	}
	says, err := w.testimonies(l)
	if err != nil {
		return t, err
	}
	k := &seeking{l: l, says: says, t: &t, strange: strangers(l), files: make(map[string]*inspect.File), older: make(map[string]bool),
		low: max(l.Meta.Snapshot.Index, l.Meta.Compacted.Index) + 1}
	k.findHoles()
	for _, p := range l.Problems { // what was cleared, though wal.meta does not say so
		if f := k.files[p.File]; p.Kind == inspect.KindForeign && p.First != 0 && f != nil && !k.strange[f] {
			t.lost = min(t.lost, p.First)
		}
	}
	if err := l.Each(ctx, l.First, l.Last, k.visit); err != nil {
		return t, err
	}
	for n := range slices.Backward(k.holes) {
		k.judge(&k.holes[n])
	}
	k.judgeEnd()
	return t, nil
}

// seeking is the state of seek.
type seeking struct {
	l       *inspect.Log
	says    map[string]*testimony
	strange map[*inspect.File]bool
	older   map[string]bool // files that are themselves as they were at an earlier time
	files   map[string]*inspect.File
	t       *truth
	low     uint64 // the first entry that the snapshot does not cover
	holes   []hole // in their order
	runs    []run
	next    int // in holes: the first one that no entry visited stands behind
}

// findHoles lists the holes of the log.
func (k *seeking) findHoles() {
	for _, p := range k.l.Problems {
		if p.Kind == inspect.KindChain && p.Severity == inspect.Damage {
			k.older[p.File] = true
		}
	}
	for _, f := range k.l.Files {
		k.files[f.Name] = f
		switch {
		case k.strange[f]:
			k.addFile(f.Number)
		case f.Role == inspect.RoleLive:
			k.findHolesIn(f)
		}
	}
	for _, n := range missing(k.l) {
		k.addFile(n)
	}
	slices.SortFunc(k.holes, func(a, b hole) int {
		return cmp.Or(cmp.Compare(a.at.file, b.at.file), cmp.Compare(a.at.offset, b.at.offset))
	})
}

// addFile adds a file of which nothing is known.
func (k *seeking) addFile(number uint64) {
	k.holes = append(k.holes, hole{at: place{number, 0}, low: k.low, end: true})
}

// findHolesIn adds the holes of a file that can be read. Records in it replace only what
// stands in front of them in the file, and what other files hold from its first one on.
func (k *seeking) findHolesIn(f *inspect.File) {
	if f.Held.HidesFirst {
		k.holes = append(k.holes, hole{at: place{f.Number, entryfile.DataStart - 1}, low: k.low})
	}
	if t := k.says[f.Name]; t != nil {
		for _, at := range t.gaps {
			k.holes = append(k.holes, hole{at: place{f.Number, at}, low: math.MaxUint64})
		}
	}
	if f.Held.HidesEnd || k.older[f.Name] {
		low := max(f.Held.First, k.low)
		k.holes = append(k.holes, hole{at: place{f.Number, f.Size}, low: low, end: true})
	}
}

// visit notes an entry of the log.
func (k *seeking) visit(e inspect.Entry) error {
	replaced, known := k.says[e.File].on(e)
	f := k.files[e.File]
	if e.Err != nil || replaced || k.strange[f] {
		k.t.lost = min(k.t.lost, e.Index)
		return nil
	}
	at := place{f.Number, e.Offset}
	crossed := false
	for k.next < len(k.holes) && k.holes[k.next].at.before(at) {
		k.next, crossed = k.next+1, true
	}
	for n := k.next; n < len(k.holes) && !known && k.holes[n].at.file == f.Number; n++ {
		k.holes[n].low = min(k.holes[n].low, max(e.Index, k.low))
	}
	exact := k.l.Meta.Clean && e.Index == f.Held.Last && !f.IndexDamaged
	if n := len(k.runs); n > 0 && !crossed && k.runs[n-1].at.file == f.Number && k.runs[n-1].term == e.Term && k.runs[n-1].last+1 == e.Index {
		r := &k.runs[n-1]
		r.last, r.at, r.exact = e.Index, at, exact
		return nil
	}
	k.runs = append(k.runs, run{first: e.Index, last: e.Index, term: e.Term, at: at, exact: exact})
	return nil
}

// judge finds out which entries in front of a hole may have been replaced by what was in
// it. Those behind the hole were judged before.
//
// None was if the last one in front of it and one behind it are of the same term: what the
// leader of a term has appended it does not replace, and an entry with a term that follows one
// with the same term follows all that its leader had in front of it (Raft's log matching).
// Nor was any if the log was closed, and the file in front ends with the last entry that
// still counted then.
func (k *seeking) judge(h *hole) {
	before, behind := -1, -1
	for n, r := range k.runs {
		switch {
		case r.at.before(h.at):
			before = n
		case behind < 0 && !k.t.doubt.holds(r.first):
			behind = n
		}
	}
	if behind < 0 && h.end {
		k.t.more = true
	}
	if before < 0 {
		return
	}
	last := &k.runs[before]
	if last.exact && last.at.file < h.at.file || behind >= 0 && k.runs[behind].term == last.term {
		return
	}
	if h.low == k.low && k.runs[0].first < k.low {
		k.t.retained = true
	}
	k.t.doubt.add(span{h.low, last.last})
}

// judgeEnd says what is known of entries that are lost at the end.
func (k *seeking) judgeEnd() {
	m := k.l.Meta
	if k.t.more && m.HardState != nil && m.HardState.Commit > k.l.Last && (m.Clean || m.SyncPolicy != "NoSync") {
		k.t.lost, k.t.reached = min(k.t.lost, k.l.Last+1), m.HardState.Commit
	}
	if k.t.more && m.Clean && k.lastUnread() && m.Durable.Offset > entryfile.DataStart+entryfile.RecordBytes(16) {
		k.t.lost, k.t.reached = min(k.t.lost, k.l.Last+1), max(k.t.reached, k.l.Last+1)
	}
	if k.t.lost <= k.l.Last {
		k.t.reached = max(k.t.reached, k.l.Last)
	}
	if k.t.doubt.first >= k.t.lost {
		k.t.doubt = span{}
	}
	k.t.doubt.last = min(k.t.doubt.last, k.t.lost-1)
}

// lastUnread: nothing of the file that the log ended in is known.
func (k *seeking) lastUnread() bool {
	for _, f := range k.l.Files {
		if f.Number == k.l.Meta.Durable.File {
			return k.strange[f]
		}
	}
	return true
}

// missing returns the numbers of files that must have been there, and are not.
func missing(l *inspect.Log) (numbers []uint64) {
	for _, p := range l.Problems {
		if n, ok := entryfile.ParseName(p.File); ok && p.Kind == inspect.KindMissing && !emptyAtClose(l, n) {
			numbers = append(numbers, n)
		}
	}
	return numbers
}

// emptyAtClose: the log was closed, and the file held no record then.
func emptyAtClose(l *inspect.Log, number uint64) bool {
	m := l.Meta
	return m.Clean && m.Durable.File == number && m.Durable.Offset <= entryfile.DataStart
}
