// Package oracle knows what a log must hold: a model of its content, the calls
// that change it, and what each call may leave behind when it is cut short.
//
// The data of an entry is a function of its index and term, so a model can be
// read back from a log.
package oracle

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Model is what a log should hold.
type Model struct {
	Hard       [3]uint64 // term, vote, commit; term 0: none was stored
	Snap       [2]uint64 // index, term
	Base       [2]uint64 // index, term; entries up to it are compacted
	Terms      []uint64  // of the entries behind Base
	Checkpoint uint64
	Cleared    uint64 // entries below it have no data
	Retain     uint64 // Options.RetainEntries
	Data       func(i, term uint64) []byte
}

// Last returns the index of the last entry.
func (m *Model) Last() uint64 { return m.Base[0] + uint64(len(m.Terms)) }

// Term returns the term of entry i, which is Base or behind it.
func (m *Model) Term(i uint64) uint64 {
	if i == m.Base[0] {
		return m.Base[1]
	}
	return m.Terms[i-m.Base[0]-1]
}

// Clone returns a copy that shares nothing.
func (m *Model) Clone() *Model {
	c := *m
	c.Terms = slices.Clone(m.Terms)
	return &c
}

// compact drops the entries up to i.
func (m *Model) compact(i uint64) {
	if i > m.Base[0] {
		term := m.Term(i)
		m.Terms = m.Terms[i-m.Base[0]:]
		m.Base = [2]uint64{i, term}
	}
}

// Same reports whether m and other hold the same, but for the data.
func (m *Model) Same(other *Model) bool {
	return m.Hard == other.Hard && m.Checkpoint == other.Checkpoint && m.SameEntries(other)
}

// SameEntries is Same but for hard state and checkpoint.
func (m *Model) SameEntries(other *Model) bool {
	return m.Snap == other.Snap && m.Base == other.Base && slices.Equal(m.Terms, other.Terms)
}

// Brief describes m in a line.
func (m *Model) Brief() string {
	return fmt.Sprintf("snapshot %v behind %v cleared %d terms %v hard %v checkpoint %d",
		m.Snap, m.Base, m.Cleared, m.Terms, m.Hard, m.Checkpoint)
}

// String describes m as Describe does a log that holds it.
func (m *Model) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "ids 0 0 %d\n", m.Checkpoint)
	snap := &raftpb.Snapshot{}
	if m.Snap[0] > 0 {
		snap = Snapshot(m.Snap[0], m.Snap[1])
	}
	describeState(&out, hardState(m.Hard), snap.GetMetadata().GetConfState(), snap)
	fmt.Fprintf(&out, "entries %d to %d behind term %d\n", m.Base[0]+1, m.Last(), m.Base[1])
	for k, term := range m.Terms {
		i := m.Base[0] + 1 + uint64(k)
		e := &raftpb.Entry{Index: &i, Term: &term, Data: m.data(i, term)}
		describeEntries(&out, []*raftpb.Entry{e})
	}
	return out.String()
}

// data returns the data with which entry i reads.
func (m *Model) data(i, term uint64) []byte {
	if i < m.Cleared {
		return nil
	}
	return m.Data(i, term)
}

// Describe describes all that can be read from a log.
func Describe(d *mmapwal.DiskStorage) (string, error) {
	var out strings.Builder
	first, err1 := d.FirstIndex()
	last, err2 := d.LastIndex()
	h, cs, err3 := d.InitialState()
	snap, err4 := d.Snapshot()
	before, err5 := d.Term(first - 1)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return "", err
	}
	fmt.Fprintf(&out, "ids %d %d %d\n", d.Uint(mmapwal.RaftId), d.Uint(mmapwal.GroupId), d.Uint(mmapwal.CheckpointIndex))
	describeState(&out, h, cs, snap)
	fmt.Fprintf(&out, "entries %d to %d behind term %d\n", first, last, before)
	if last < first {
		return out.String(), nil
	}
	es, err := Entries(d, first, last+1)
	if err != nil {
		return "", err
	}
	describeEntries(&out, es)
	return out.String(), nil
}

// Entries returns the entries [lo, hi) of a log. One whose data was cleared, which cannot be
// read, has its index, its term, and nothing else.
func Entries(d *mmapwal.DiskStorage, lo, hi uint64) ([]*raftpb.Entry, error) {
	es, err := d.Entries(lo, hi, math.MaxUint64)
	if first, _ := d.FirstIndex(); err != raft.ErrCompacted || lo < first {
		return es, err
	}
	for i := lo; i < hi; i++ {
		one, err := d.Entries(i, i+1, math.MaxUint64)
		if err == raft.ErrCompacted {
			var term uint64
			term, err = d.Term(i)
			one = []*raftpb.Entry{{Index: &i, Term: &term}}
		}
		if err != nil {
			return nil, err
		}
		es = append(es, one...)
	}
	return es, nil
}

func describeState(out *strings.Builder, h *raftpb.HardState, cs *raftpb.ConfState, snap *raftpb.Snapshot) {
	fmt.Fprintf(out, "hard %d %d %d\n", h.GetTerm(), h.GetVote(), h.GetCommit())
	fmt.Fprintf(out, "conf %v %v\n", cs.GetVoters(), snap.GetMetadata().GetConfState().GetVoters())
	fmt.Fprintf(out, "snapshot %d %d %x\n", snap.GetMetadata().GetIndex(), snap.GetMetadata().GetTerm(), sha256.Sum256(snap.GetData()))
}

func describeEntries(out *strings.Builder, es []*raftpb.Entry) {
	for _, e := range es {
		fmt.Fprintf(out, "%d %d %v %x\n", e.GetIndex(), e.GetTerm(), e.GetType(), sha256.Sum224(e.GetData()))
	}
}

// Read reads the model back from a log, but for what is cleared, and for Retain
// and Data, which the log does not tell.
func Read(d *mmapwal.DiskStorage) (*Model, error) {
	m := &Model{
		Checkpoint: d.Uint(mmapwal.CheckpointIndex),
		Snap:       [2]uint64{d.Uint(mmapwal.SnapshotIndex), d.Uint(mmapwal.SnapshotTerm)},
	}
	var err error
	if m.Hard, err = HardState(d); err != nil {
		return nil, err
	}
	first, err1 := d.FirstIndex()
	last, err2 := d.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	for i := first - 1; i <= last; i++ {
		term, err := d.Term(i)
		if err != nil {
			return nil, fmt.Errorf("term %d of %d to %d: %w", i, first, last, err)
		}
		m.Terms = append(m.Terms, term)
	}
	m.Base, m.Terms = [2]uint64{first - 1, m.Terms[0]}, m.Terms[1:]
	return m, nil
}

// HardState reads the hard state of a log.
func HardState(d *mmapwal.DiskStorage) ([3]uint64, error) {
	h, _, err := d.InitialState()
	return [3]uint64{h.GetTerm(), h.GetVote(), h.GetCommit()}, err
}

// CheckContent reads snapshot and entries of a log and compares them with m,
// byte by byte.
func (m *Model) CheckContent(d *mmapwal.DiskStorage) error {
	snap, err := d.Snapshot()
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if m.Snap[0] > 0 && !bytes.Equal(snap.GetData(), SnapshotData(m.Snap[0], m.Snap[1])) {
		return fmt.Errorf("snapshot %v has wrong data", m.Snap)
	}
	if len(m.Terms) == 0 {
		return nil
	}
	es, err := Entries(d, m.Base[0]+1, m.Last()+1)
	if err != nil {
		return fmt.Errorf("entries: %w", err)
	}
	if len(es) != len(m.Terms) {
		return fmt.Errorf("%d entries, want %d", len(es), len(m.Terms))
	}
	for k, e := range es {
		if err := m.checkEntry(e, m.Base[0]+1+uint64(k)); err != nil {
			return err
		}
	}
	return nil
}

func (m *Model) checkEntry(e *raftpb.Entry, i uint64) error {
	if e.GetIndex() != i || e.GetTerm() != m.Term(i) {
		return fmt.Errorf("entry %d of term %d where %d of %d belongs", e.GetIndex(), e.GetTerm(), i, m.Term(i))
	}
	if want := m.data(i, m.Term(i)); !bytes.Equal(e.GetData(), want) {
		return fmt.Errorf("entry %d of term %d has %d bytes of data, want %d, or they differ", i, m.Term(i), len(e.GetData()), len(want))
	}
	return nil
}

// Data returns size bytes of data for an entry, a function of index and term.
func Data(i, term uint64, size int) []byte {
	data := bytes.Repeat(fmt.Appendf(nil, "%d/%d ", i, term), size/4+1)
	return data[:size]
}

// SnapshotData returns the data of the snapshot at i: inline if i is even, in a
// file of its own if it is odd.
func SnapshotData(i, term uint64) []byte { return Data(i, term, int(i%2*4000)) }

// Snapshot returns the snapshot at i, of a group with three members.
func Snapshot(i, term uint64) *raftpb.Snapshot {
	return &raftpb.Snapshot{
		Data:     SnapshotData(i, term),
		Metadata: &raftpb.SnapshotMetadata{Index: &i, Term: &term, ConfState: confState()},
	}
}

func confState() *raftpb.ConfState { return &raftpb.ConfState{Voters: []uint64{1, 2, 3}} }

func hardState(h [3]uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: &h[0], Vote: &h[1], Commit: &h[2]}
}
