package damage

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// State is what a log holds.
type State struct {
	IDs      [2]uint64 // Raft and group
	Hard     [3]uint64 // term, vote, commit; zeros if none was stored
	Noted    uint64    // the checkpoint, which needs no sync, as the commit index
	Voters   []uint64
	Snap     [2]uint64 // index, term
	SnapData []byte
	Base     [2]uint64 // index, term; entries up to it are compacted
	Entries  []*raftpb.Entry
	blank    map[*raftpb.Entry]bool // those whose data was cleared; shared by clones
}

// Cleared reports whether the data of entry i was cleared.
func (s *State) Cleared(i uint64) bool { return s.blank[s.Entry(i)] }

// Last returns the index of the last entry.
func (s *State) Last() uint64 { return s.Base[0] + uint64(len(s.Entries)) }

// Entry returns entry i, which is behind Base.
func (s *State) Entry(i uint64) *raftpb.Entry { return s.Entries[i-s.Base[0]-1] }

// Clone returns a copy that shares nothing that changes.
func (s *State) Clone() *State {
	c := *s
	c.Entries = slices.Clone(s.Entries)
	return &c
}

// Save stores entries, of which the first continues the log or replaces a suffix.
func (s *State) Save(es []*raftpb.Entry) {
	for _, e := range es {
		s.Entries = append(slices.Clip(s.Entries[:e.GetIndex()-s.Base[0]-1]), e)
	}
}

// Term returns the term of entry i, which is at Base or behind it.
func (s *State) Term(i uint64) uint64 {
	if i == s.Base[0] {
		return s.Base[1]
	}
	return s.Entry(i).GetTerm()
}

// Compact drops the entries up to i.
func (s *State) Compact(i uint64) {
	at := [2]uint64{i, s.Term(i)}
	s.Base, s.Entries = at, slices.Clone(s.Entries[i-s.Base[0]:])
}

// Clear takes the data of the normal entries below an index.
func (s *State) Clear(below uint64) {
	if s.blank == nil {
		s.blank = make(map[*raftpb.Entry]bool)
	}
	for k, e := range s.Entries {
		if e.GetIndex() < below && e.GetType() == raftpb.EntryNormal {
			s.Entries[k] = &raftpb.Entry{Index: e.Index, Term: e.Term}
			s.blank[s.Entries[k]] = true
		}
	}
}

// Reading is what could be read from a log, and what could not.
type Reading struct {
	State           // an entry that could not be read is nil, its term may be known
	Errs    []error // of those that could not be read, and of the snapshot
	Missing []uint64
	SnapErr error
}

// Read reads all that a log holds, in one piece and, where that fails, entry by
// entry. The error says that the log contradicts itself.
func Read(d *mmapwal.DiskStorage) (*Reading, error) {
	r := new(Reading)
	h, cs, err1 := d.InitialState()
	first, err2 := d.FirstIndex()
	last, err3 := d.LastIndex()
	before, err4 := d.Term(first - 1)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	r.IDs = [2]uint64{d.Uint(mmapwal.RaftId), d.Uint(mmapwal.GroupId)}
	r.Noted = d.Uint(mmapwal.CheckpointIndex)
	r.Hard = [3]uint64{h.GetTerm(), h.GetVote(), h.GetCommit()}
	r.Snap = [2]uint64{d.Uint(mmapwal.SnapshotIndex), d.Uint(mmapwal.SnapshotTerm)}
	r.Voters = cs.GetVoters()
	r.Base = [2]uint64{first - 1, before}
	if err := r.readSnapshot(d); err != nil {
		return nil, err
	}
	if last < first {
		return r, nil
	}
	return r, r.readEntries(d, first, last)
}

func (r *Reading) readSnapshot(d *mmapwal.DiskStorage) error {
	snap, err := d.Snapshot()
	if err != nil {
		r.SnapErr = err
		r.Errs = append(r.Errs, err)
		return nil
	}
	m := snap.GetMetadata()
	if m.GetIndex() != r.Snap[0] || m.GetTerm() != r.Snap[1] || !slices.Equal(m.GetConfState().GetVoters(), r.Voters) {
		return fmt.Errorf("the snapshot is %v, but it should be %v of %v", m, r.Snap, r.Voters)
	}
	r.SnapData = snap.GetData()
	return nil
}

func (r *Reading) readEntries(d *mmapwal.DiskStorage, first, last uint64) error {
	es, err := oracle.Entries(d, first, last+1)
	if err == nil && uint64(len(es)) != last-first+1 {
		return fmt.Errorf("%d entries of %d to %d", len(es), first, last)
	}
	if err != nil {
		es = r.readSingly(d, first, last)
		if len(r.Missing) == 0 {
			return fmt.Errorf("each entry can be read, but not all together: %w", err)
		}
	}
	r.Entries = es
	for k, e := range es {
		term, err := d.Term(first + uint64(k))
		if e != nil && err != nil {
			return fmt.Errorf("entry %d was read, but its term: %w", e.GetIndex(), err)
		}
		if e != nil && (e.GetTerm() != term || e.GetIndex() != first+uint64(k)) {
			return fmt.Errorf("entry %d of term %d where %d of term %d belongs", e.GetIndex(), e.GetTerm(), first+uint64(k), term)
		}
	}
	return nil
}

func (r *Reading) readSingly(d *mmapwal.DiskStorage, first, last uint64) []*raftpb.Entry {
	es := make([]*raftpb.Entry, last-first+1)
	for i := first; i <= last; i++ {
		one, err := oracle.Entries(d, i, i+1)
		if err != nil {
			r.Errs = append(r.Errs, err)
			r.Missing = append(r.Missing, i)
			continue
		}
		es[i-first] = one[0]
	}
	return es
}

// Wrong says how what was read differs from s, but for what could not be read,
// and for the entries behind the end of one of them. It is "" if it does not.
func (r *Reading) Wrong(s *State) string {
	switch {
	case r.IDs != s.IDs:
		return fmt.Sprintf("ids %v, want %v", r.IDs, s.IDs)
	case r.Hard[0] != s.Hard[0] || r.Hard[1] != s.Hard[1]:
		return fmt.Sprintf("hard state %v, want %v", r.Hard, s.Hard)
	case r.Snap != s.Snap || !slices.Equal(r.Voters, s.Voters):
		return fmt.Sprintf("snapshot %v of %v, want %v of %v", r.Snap, r.Voters, s.Snap, s.Voters)
	case r.SnapErr == nil && !bytes.Equal(r.SnapData, s.SnapData):
		return fmt.Sprintf("%d bytes of snapshot data, want %d", len(r.SnapData), len(s.SnapData))
	case r.Base != s.Base:
		return fmt.Sprintf("the log begins behind %v, want %v", r.Base, s.Base)
	}
	for k := range min(len(r.Entries), len(s.Entries)) {
		if e := r.Entries[k]; e != nil && !SameEntry(e, s.Entries[k]) {
			return fmt.Sprintf("entry %v, want %v", e, s.Entries[k])
		}
	}
	return ""
}

// SameEntry reports whether two entries are the same to raft.
func SameEntry(a, b *raftpb.Entry) bool {
	return a.GetIndex() == b.GetIndex() && a.GetTerm() == b.GetTerm() && a.GetType() == b.GetType() && bytes.Equal(a.GetData(), b.GetData())
}
