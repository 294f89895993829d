package demo

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
)

// machine is the state machine: it says at which entry each write was applied.
type machine struct {
	session uint64
	at      []uint64 // at[i] is the index of the entry that applied write i+1
}

// last returns the number of the last write applied.
func (m *machine) last() uint64 { return uint64(len(m.at)) }

// apply applies a committed entry, if it is the write that comes next, and
// returns the number of the write, which is 0 for an entry that a leader begins
// its term with.
func (m *machine) apply(e *raftpb.Entry) (seq uint64, applied bool, err error) {
	if e.GetType() != raftpb.EntryNormal {
		return 0, false, fmt.Errorf("entry %d: type %v is not written here", e.GetIndex(), e.GetType())
	}
	if len(e.GetData()) == 0 {
		return 0, false, nil
	}
	id, seq, err := parsePayload(e.GetData())
	if err != nil {
		return 0, false, fmt.Errorf("entry %d: %w", e.GetIndex(), err)
	}
	if id != m.session || seq == 0 {
		return 0, false, fmt.Errorf("entry %d: write %d of session %x is not of session %x", e.GetIndex(), seq, id, m.session)
	}
	if seq != m.last()+1 {
		return seq, false, nil
	}
	m.at = append(m.at, e.GetIndex())
	return seq, true, nil
}
