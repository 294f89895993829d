package histories

import (
	"bytes"
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

const (
	batchEntries  = 6
	batchInterval = time.Millisecond

	// minFileBytes is the least size of a file: with small files all happens at their
	// borders, and fast.
	minFileBytes = 16 << 10

	// Data above sparseFrom bytes is zero for the most part, which costs the simulated disk
	// nothing.
	sparseFrom = 10_000
	sparseStep = 64 << 10
)

func masterKey() []byte { return bytes.Repeat([]byte("m"), 32) }

// stuff makes the data of entries and snapshots, and keeps what it made last.
type stuff map[string][]byte

func (m stuff) bytes(name string, size int) []byte {
	key := fmt.Sprint(name, size)
	if p, ok := m[key]; ok {
		return p
	}
	if len(m) > 64 {
		clear(m)
	}
	text := bytes.Repeat([]byte(name+" "), min(size, sparseFrom)/(len(name)+1)+1)
	p := make([]byte, size)
	if size <= sparseFrom {
		copy(p, text)
	} else {
		for at := 0; at < size; at += sparseStep {
			copy(p[at:], text[:200])
		}
		copy(p[size-200:], text)
	}
	m[key] = p
	return p
}

// entry returns entry i.
func (m stuff) entry(i uint64, e Entry) *raftpb.Entry {
	out := &raftpb.Entry{Index: &i, Term: &e.Term, Data: m.bytes(fmt.Sprintf("entry %d of term %d", i, e.Term), e.Size)}
	if e.Type != raftpb.EntryNormal {
		out.Type = &e.Type
	}
	return out
}

func (m stuff) snapshotData(at Position, size int) []byte {
	return m.bytes(fmt.Sprintf("snapshot at %d of term %d", at.Index, at.Term), size)
}

func (m stuff) snapshot(at Position, size int) *raftpb.Snapshot {
	return &raftpb.Snapshot{
		Data:     m.snapshotData(at, size),
		Metadata: &raftpb.SnapshotMetadata{Index: &at.Index, Term: &at.Term, ConfState: confState()},
	}
}

func confState() *raftpb.ConfState { return &raftpb.ConfState{Voters: []uint64{1, 2, 3}} }

func (h Hard) proto() *raftpb.HardState {
	if h == (Hard{}) {
		return nil
	}
	return &raftpb.HardState{Term: &h.Term, Vote: &h.Vote, Commit: &h.Commit}
}
