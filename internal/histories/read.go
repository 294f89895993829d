package histories

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// read reads what a log holds, but for sizes, types and data.
func read(d *mmapwal.DiskStorage) (*State, error) {
	h, _, err1 := d.InitialState()
	first, err2 := d.FirstIndex()
	last, err3 := d.LastIndex()
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	s := &State{
		Hard:       Hard{h.GetTerm(), h.GetVote(), h.GetCommit()},
		Snap:       Position{d.Uint(mmapwal.SnapshotIndex), d.Uint(mmapwal.SnapshotTerm)},
		Base:       Position{Index: first - 1},
		Checkpoint: d.Uint(mmapwal.CheckpointIndex),
	}
	for i := first - 1; i <= last; i++ {
		term, err := d.Term(i)
		if err != nil {
			return nil, fmt.Errorf("term of %d, of %d to %d: %w", i, first, last, err)
		}
		if i < first {
			s.Base.Term = term
		} else {
			s.Entries = append(s.Entries, Entry{Term: term})
		}
	}
	s.Cleared, err1 = cleared(d, first, last)
	return s, err1
}

// cleared returns the first entry from which on all can be read.
func cleared(d *mmapwal.DiskStorage, first, last uint64) (uint64, error) {
	for i := last; i >= first; i-- {
		_, err := d.Entries(i, i+1, 0)
		if errors.Is(err, raft.ErrCompacted) {
			return i + 1, nil
		}
		if err != nil {
			return 0, fmt.Errorf("entry %d, of %d to %d: %w", i, first, last, err)
		}
	}
	return first, nil
}

// holds compares a log with a state, entry by entry and byte by byte, through all that
// can be read.
func holds(d *mmapwal.DiskStorage, s *State, data stuff, r *rand.Rand) error {
	got, err := read(d)
	if err != nil {
		return err
	}
	if got.Hard != s.Hard || got.Checkpoint != s.Checkpoint || !got.sameLog(s) {
		return fmt.Errorf("the log holds\n\t%v\nnot\n\t%v", got, s)
	}
	return holdsData(d, s, data, r)
}

// holdsData is holds of snapshot, entries and their limits.
func holdsData(d *mmapwal.DiskStorage, s *State, data stuff, r *rand.Rand) error {
	if err := holdsSnapshot(d, s, data); err != nil {
		return err
	}
	if n := d.NumEntries(); n != len(s.Entries) {
		return fmt.Errorf("NumEntries is %d, not %d", n, len(s.Entries))
	}
	if err := refusesOutside(d, s); err != nil {
		return err
	}
	first, last := s.firstWithData(), s.Last()
	if last < first {
		return nil
	}
	if err := holdsEntries(d, s, data, first, last+1, math.MaxUint64); err != nil {
		return err
	}
	lo := first + r.Uint64N(last-first+1)
	return holdsEntries(d, s, data, lo, lo+1+r.Uint64N(last-lo+1), uint64(r.IntN(1<<(1+r.IntN(21)))))
}

func holdsSnapshot(d *mmapwal.DiskStorage, s *State, data stuff) error {
	snap, err := d.Snapshot()
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	want := &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{}}
	if s.Snap != (Position{}) {
		want = data.snapshot(s.Snap, s.SnapBytes)
	}
	got := Position{snap.GetMetadata().GetIndex(), snap.GetMetadata().GetTerm()}
	if got != s.Snap || !bytes.Equal(snap.GetData(), want.Data) || len(snap.GetMetadata().GetConfState().GetVoters()) != len(want.Metadata.GetConfState().GetVoters()) {
		return fmt.Errorf("the snapshot is %v with %d bytes and conf state %v, not %v with %d", got, len(snap.GetData()), snap.GetMetadata().GetConfState(), s.Snap, s.SnapBytes)
	}
	return nil
}

// refusesOutside: what is not in the log is raft.ErrCompacted or raft.ErrUnavailable.
func refusesOutside(d *mmapwal.DiskStorage, s *State) error {
	first, last := s.Base.Index+1, s.Last()
	if first > 1 {
		if _, err := d.Term(first - 2); !errors.Is(err, raft.ErrCompacted) {
			return fmt.Errorf("term of %d in front of the log: %v", first-2, err)
		}
	}
	if _, err := d.Term(last + 1); !errors.Is(err, raft.ErrUnavailable) {
		return fmt.Errorf("term of %d behind the log: %v", last+1, err)
	}
	if _, err := d.Entries(first-1, last+1, 1); !errors.Is(err, raft.ErrCompacted) {
		return fmt.Errorf("entry %d in front of the log: %v", first-1, err)
	}
	if _, err := d.Entries(last+1, last+2, 1); !errors.Is(err, raft.ErrUnavailable) {
		return fmt.Errorf("entry %d behind the log: %v", last+1, err)
	}
	return nil
}

// holdsEntries compares the entries [lo, hi), as many as raft wants of so many bytes.
func holdsEntries(d *mmapwal.DiskStorage, s *State, data stuff, lo, hi, limit uint64) error {
	es, err := d.Entries(lo, hi, limit)
	if err != nil {
		return fmt.Errorf("entries %d to %d: %w", lo, hi-1, err)
	}
	size := uint64(0)
	for i := lo; i < hi; i++ {
		want := data.entry(i, s.At(i))
		if size += uint64(proto.Size(want)); size > limit && i > lo {
			hi = i
			break
		}
		if int(i-lo) >= len(es) {
			return fmt.Errorf("entries %d to %d within %d bytes: only %d", lo, hi-1, limit, len(es))
		}
		if got := es[i-lo]; got.GetIndex() != i || got.GetTerm() != want.GetTerm() || got.GetType() != want.GetType() || !bytes.Equal(got.GetData(), want.GetData()) {
			return fmt.Errorf("entry %d of term %d, %v with %d bytes %.30q stands where that of term %d, %v with %d bytes %.30q belongs", got.GetIndex(), got.GetTerm(),
				got.GetType(), len(got.GetData()), got.GetData(), want.GetTerm(), want.GetType(), len(want.GetData()), want.GetData())
		}
	}
	if uint64(len(es)) != hi-lo {
		return fmt.Errorf("entries from %d on within %d bytes: %d, not %d", lo, limit, len(es), hi-lo)
	}
	return nil
}
