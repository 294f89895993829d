package etcd

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// scan reads all records, in order.
type scan struct {
	*Log
	sum      uint32 // rolling
	metadata []byte // nil: not seen yet
	snaps    []snapshot
}

// snapshot is a record that names a snapshot.
type snapshot struct {
	index, term uint64
	conf        *raftpb.ConfState // nil: none was stored
	place       place

	elsewhere bool // it came from another node: the log had another entry there
}

// file reads the file of that number.
func (s *scan) file(number int) error {
	p, err := readFile(s.paths[number])
	if err != nil {
		return err
	}
	at := place{file: number}
	for k := 0; ; k++ {
		r, err := decode(p, at.offset)
		if err == nil {
			err = s.check(&r, number == 0 && k == 0)
		}
		if err != nil {
			return s.end(p, at, k, r, err)
		}
		if want := []uint64{typeCRC, typeMetadata}; k < len(want) && r.typ != want[k] {
			return s.damage(at, "record %d of a file is of type %d, not %d", k+1, r.typ, want[k])
		}
		at.before = s.sum
		if err := s.record(&r, at); err != nil {
			return err
		}
		s.sum, at.offset = r.crc, r.end
	}
}

// check compares the checksum of a record.
func (s *scan) check(r *record, first bool) error {
	if first && r.typ == typeCRC {
		s.sum = r.crc // earlier files are gone
	}
	if r.sum(s.sum) != r.crc {
		return errSum
	}
	return nil
}

// end judges what stands behind the last whole record of a file, the count-th;
// cause says what it is.
func (s *scan) end(p []byte, at place, count int, r record, cause error) error {
	left := bytes.TrimRight(p[at.offset:], "\x00")
	header := count < 2 // it is synced before the file gets its name
	switch {
	case cause == errEnd && len(left) == 0 && !header:
		return nil
	case at.file == len(s.paths)-1 && !header && torn(p, at.offset, r, cause, s.sum):
		s.Torn = Torn{File: s.paths[at.file], Offset: int64(at.offset), Bytes: int64(len(left))}
		return nil
	case cause == errEnd:
		cause = errRecord
	}
	return s.damage(at, "%v", cause)
}

// record takes the next record.
func (s *scan) record(r *record, at place) error {
	switch r.typ {
	case typeCRC:
		return nil
	case typeMetadata:
		return s.takeMetadata(r, at)
	case typeEntry:
		return s.takeEntry(r, at)
	case typeState:
		return s.takeState(r, at)
	case typeSnapshot:
		return s.takeSnapshot(r, at)
	}
	return s.damage(at, "there is no record type %d", r.typ)
}

// takeMetadata takes etcdserverpb.Metadata: 1 node ID, 2 cluster ID.
func (s *scan) takeMetadata(r *record, at place) error {
	if s.metadata != nil && !bytes.Equal(s.metadata, r.data) {
		return s.damage(at, "the metadata is not that in front of it")
	}
	s.metadata = append([]byte{}, r.data...)
	err := fields(r.data, func(number protowire.Number, v uint64, data []byte) error {
		switch {
		case number == 1 && data == nil:
			s.RaftID = v
		case number == 2 && data == nil:
			s.GroupID = v
		default:
			return errRecord
		}
		return nil
	})
	if err != nil {
		return s.damage(at, "the metadata is not that of an etcd member")
	}
	return nil
}

// takeEntry takes an entry. It replaces those from its index on.
func (s *scan) takeEntry(r *record, at place) error {
	var e raftpb.Entry
	if err := unmarshal(r.data, &e); err != nil {
		return s.damage(at, "the entry cannot be read: %v", err)
	}
	at.index, at.term = e.GetIndex(), e.GetTerm()
	switch {
	case at.index == 0 || at.index == math.MaxUint64 || at.term == 0:
		return s.damage(at, "there is no entry %d of term %d", at.index, at.term)
	case e.GetType() < 0 || e.GetType() > raftpb.EntryConfChangeV2:
		return s.damage(at, "there is no entry type %d", e.GetType())
	case at.index <= s.HardState.GetCommit():
		return s.damage(at, "the entry is committed already, up to %d", s.HardState.GetCommit())
	}
	keep := 0 // none, if there is a gap: then a snapshot has to cover it
	if n := len(s.live); n > 0 && at.index > s.live[0].index && at.index <= s.live[n-1].index+1 {
		keep = int(at.index - s.live[0].index)
	}
	if keep > 0 && at.term < s.live[keep-1].term {
		return s.damage(at, "it has term %d, below %d, that of the entry before it", at.term, s.live[keep-1].term)
	}
	if keep < len(s.live) && at.index <= s.live[len(s.live)-1].index {
		s.Replaced += len(s.live) - keep
	} else {
		s.LeftOut += len(s.live) - keep
	}
	s.live = append(s.live[:keep], at)
	return nil
}

// takeState takes a hard state.
func (s *scan) takeState(r *record, at place) error {
	h := new(raftpb.HardState)
	if err := unmarshal(r.data, h); err != nil {
		return s.damage(at, "the hard state cannot be read: %v", err)
	}
	if h.GetTerm() < s.HardState.GetTerm() || h.GetCommit() < s.HardState.GetCommit() {
		return s.damage(at, "the hard state has term %d and commit index %d, below %d and %d, those in front of it",
			h.GetTerm(), h.GetCommit(), s.HardState.GetTerm(), s.HardState.GetCommit())
	}
	s.HardState, s.state = h, at
	return nil
}

// takeSnapshot takes walpb.Snapshot: 1 index, 2 term, 3 conf state.
func (s *scan) takeSnapshot(r *record, at place) error {
	snap := snapshot{place: at}
	err := fields(r.data, func(number protowire.Number, v uint64, data []byte) error {
		switch {
		case number == 1 && data == nil:
			snap.index = v
		case number == 2 && data == nil:
			snap.term = v
		case number == 3 && data != nil:
			snap.conf = new(raftpb.ConfState)
			return unmarshal(data, snap.conf)
		default:
			return errRecord
		}
		return nil
	})
	if err != nil || snap.index == math.MaxUint64 {
		return s.damage(at, "the name of the snapshot cannot be read")
	}
	if n := len(s.live); n > 0 && snap.index >= s.live[0].index && snap.index <= s.live[n-1].index {
		snap.elsewhere = s.live[snap.index-s.live[0].index].term != snap.term
	}
	s.snaps = append(s.snaps, snap)
	return nil
}

// finish chooses the snapshot, as etcd does: the last one that is committed, since one that
// is not was being stored in a crash; or an older one, if the file with its data is not there.
func (s *scan) finish(snaps string) error {
	var named []snapshot // newest first
	for _, snap := range slices.Backward(s.snaps) {
		if snap.index <= s.HardState.GetCommit() {
			named = append(named, snap)
		}
	}
	if len(named) == 0 {
		named = []snapshot{{}}
	}
	err := s.start(&named[0], snaps)
	if !errors.Is(err, errNoData) {
		return err
	}
	missing := snapPath(&named[0], snaps)
	for k := range named[1:] {
		if named[k].elsewhere { // the entries that lead up to it are not those that it covers
			break
		}
		older := *s.Log // the attempt changes it
		attempt := scan{Log: &older}
		if attempt.start(&named[1+k], snaps) == nil {
			*s.Log = older
			s.MissingSnap, s.Older = missing, true
			return nil
		}
	}
	if named[0].conf == nil {
		return fmt.Errorf("the data of the snapshot at %d: %w: is snap beside wal?", named[0].index, err)
	}
	s.MissingSnap = missing
	s.Snapshot = bare(&named[0])
	return s.settle(&named[0])
}

// start has the log begin with a snapshot.
func (s *scan) start(snap *snapshot, dir string) error {
	if err := s.load(snap, dir); err != nil {
		return err
	}
	return s.settle(snap)
}
