package golden

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

// Log is what a log holds. It stands as JSON beside the archive of its files.
type Log struct {
	RaftID     uint64    `json:"raft_id"`
	GroupID    uint64    `json:"group_id"`
	Checkpoint uint64    `json:"checkpoint"`
	HardState  HardState `json:"hard_state"`
	Snapshot   Snapshot  `json:"snapshot"`
	First      uint64    `json:"first"` // index; behind the last one if there are no entries
	Entries    []Entry   `json:"entries"`
}

// HardState is a raftpb.HardState.
type HardState struct {
	Term   uint64 `json:"term"`
	Vote   uint64 `json:"vote"`
	Commit uint64 `json:"commit"`
}

// Snapshot is a raftpb.Snapshot.
type Snapshot struct {
	Index     uint64    `json:"index"`
	Term      uint64    `json:"term"`
	ConfState ConfState `json:"conf_state"`
	Data      string    `json:"data"` // see Text
}

// ConfState is a raftpb.ConfState.
type ConfState struct {
	Voters         []uint64 `json:"voters"`
	Learners       []uint64 `json:"learners"`
	VotersOutgoing []uint64 `json:"voters_outgoing"`
	LearnersNext   []uint64 `json:"learners_next"`
	AutoLeave      bool     `json:"auto_leave"`
}

// Entry is a raftpb.Entry; its index follows from its place.
type Entry struct {
	Term uint64 `json:"term"`
	Type int32  `json:"type"`
	Data string `json:"data"` // see Text
}

// Set takes what raft's messages say. The entries begin at the index first.
func (l *Log) Set(h *raftpb.HardState, s *raftpb.Snapshot, first uint64, es []*raftpb.Entry) {
	l.HardState = HardState{h.GetTerm(), h.GetVote(), h.GetCommit()}
	at := s.GetMetadata()
	l.Snapshot = Snapshot{at.GetIndex(), at.GetTerm(), ConfStateOf(at.GetConfState()), Text(s.GetData())}
	l.First, l.Entries = first, []Entry{}
	for _, e := range es {
		l.Entries = append(l.Entries, Entry{e.GetTerm(), int32(e.GetType()), Text(e.GetData())})
	}
}

// ConfStateOf returns cs as it stands in JSON.
func ConfStateOf(cs *raftpb.ConfState) ConfState {
	return ConfState{cs.GetVoters(), cs.GetLearners(), cs.GetVotersOutgoing(), cs.GetLearnersNext(), cs.GetAutoLeave()}
}

// Text returns data as it stands in JSON: base64 if it is short, else its length and
// hash.
func Text(data []byte) string {
	const short = 500
	if len(data) > short {
		return fmt.Sprintf("%d bytes, SHA-256 %x", len(data), sha256.Sum256(data))
	}
	return base64.StdEncoding.EncodeToString(data)
}

// JSON returns v as it stands in a file.
func JSON(tb testing.TB, v any) string {
	tb.Helper()
	p, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		tb.Fatal(err)
	}
	return string(p) + "\n"
}

// ReadJSON reads a file that holds a T.
func ReadJSON[T any](tb testing.TB, name string) *T {
	tb.Helper()
	p, err := os.ReadFile(name)
	to := new(T)
	if err == nil {
		err = json.Unmarshal(p, to)
	}
	if err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
	return to
}
