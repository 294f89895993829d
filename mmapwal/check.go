package mmapwal

import (
	"math"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// check judges the arguments of a Save against the log and notes in p what is to
// be done. It changes nothing.
func (d *DiskStorage) check(p *plan, es []*raftpb.Entry, snap *raftpb.Snapshot) error {
	v := &d.view
	compacted, last := v.meta.Compacted, v.last
	if !isBlank(snap) {
		at := metafile.Position{Index: snap.GetMetadata().GetIndex(), Term: snap.GetMetadata().GetTerm()}
		if at.Index == math.MaxUint64 {
			return invalidf("the snapshot has the highest index there is; nothing could follow it")
		}
		if at.Index > 0 && at.Term == 0 {
			return invalidf("the snapshot at %d has term 0; terms start at 1", at.Index)
		}
		begun := v.last > 0 || v.hard.Stored
		if at.Index <= v.meta.Snapshot.Index && begun {
			return outOfDate(at.Index, v.meta.Snapshot.Index)
		}
		fits, err := d.endsAt(v, at)
		if err != nil {
			return err
		}
		p.snap, p.empties = snap, !fits
		compacted, last = at, at.Index
	}
	if err := checkEntries(es); err != nil || len(es) == 0 {
		return err
	}
	if first := es[0].GetIndex(); first > last+1 {
		return invalidf("entry %d leaves a gap: the log ends at %d", first, last)
	}
	for len(es) > 0 && es[0].GetIndex() <= compacted.Index {
		es = es[1:] // as raft's MemoryStorage: what is compacted is not stored again
	}
	if len(es) == 0 {
		return nil
	}
	p.entries = es
	if err := d.checkCovered(p, es); err != nil {
		return err
	}
	return d.checkTerm(v, es[0], compacted)
}

// checkCovered: entries that the snapshot covers, and that were retained, may be
// stored once more, but must go on leading up to it.
func (d *DiskStorage) checkCovered(p *plan, es []*raftpb.Entry) error {
	snapshot := d.view.meta.Snapshot
	first, last := es[0].GetIndex(), es[len(es)-1].GetIndex()
	if p.snap != nil || first > snapshot.Index {
		return nil
	}
	if last < snapshot.Index || es[snapshot.Index-first].GetTerm() != snapshot.Term {
		return invalidf("entries %d to %d replace some that the snapshot at %d of term %d covers, and do not lead up to it", first, last, snapshot.Index, snapshot.Term)
	}
	return nil
}

// isBlank: nothing to store. A snapshot of index 0 may carry the conf state that
// a group starts with.
func isBlank(s *raftpb.Snapshot) bool {
	cs := s.GetMetadata().GetConfState()
	members := len(cs.GetVoters()) + len(cs.GetLearners()) + len(cs.GetVotersOutgoing()) + len(cs.GetLearnersNext())
	return raft.IsEmptySnap(s) && members == 0 && len(s.GetData()) == 0
}

// endsAt reports whether the log ends with the entry at p, of that term: then a snapshot of
// it leaves nothing behind itself, and what follows can go on in the same file.
func (d *DiskStorage) endsAt(v *view, p metafile.Position) (bool, error) {
	if p.Index != v.last {
		return false, nil
	}
	term, err := d.term(v, p.Index)
	return term == p.Term, err
}

func checkEntries(es []*raftpb.Entry) error {
	var before, termBefore uint64 // of the entry in front
	for k, e := range es {
		index, term := e.GetIndex(), e.GetTerm()
		switch {
		case e == nil:
			return invalidf("entry number %d of the slice is nil", k)
		case index == 0:
			return invalidf("entry number %d of the slice has index 0; indexes start at 1", k)
		case index == math.MaxUint64:
			return invalidf("entry number %d of the slice has the highest index there is; nothing could follow it", k)
		case term == 0:
			return invalidf("entry %d has term 0; terms start at 1", index)
		case e.GetType() < 0 || e.GetType() > math.MaxUint8:
			return invalidf("entry %d has type %d; types are 0 to 255", index, e.GetType())
		case len(e.GetData()) > entryfile.MaxEntryBytes:
			return invalidf("entry %d has %d bytes of data; at most %d fit", index, len(e.GetData()), entryfile.MaxEntryBytes)
		case k > 0 && index != before+1:
			return invalidf("entry %d follows entry %d in the slice; indexes must be consecutive", index, before)
		case term < termBefore:
			return invalidf("entry %d has term %d, below %d, that of the entry before it", index, term, termBefore)
		}
		before, termBefore = index, term
	}
	return nil
}

// checkTerm compares e's term with that of the entry before it, which is in the
// log or at its compacted end.
func (d *DiskStorage) checkTerm(v *view, e *raftpb.Entry, compacted metafile.Position) error {
	before := compacted.Term
	if i := e.GetIndex() - 1; i != compacted.Index {
		var err error
		if before, err = d.term(v, i); err != nil {
			return err
		}
	}
	if e.GetTerm() < before {
		return invalidf("entry %d has term %d, below %d, that of the entry before it", e.GetIndex(), e.GetTerm(), before)
	}
	return nil
}
