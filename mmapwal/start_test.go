package mmapwal_test

import (
	"io"
	"log"
	"testing"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// TestStartAtSnapshot: raft that starts at the snapshot's index, as the doc comment of
// InitialState says, comes back with the members of before, meets no cleared entry, and hands
// out the entries behind the snapshot.
func TestStartAtSnapshot(t *testing.T) {
	dir := t.TempDir()
	n := startAt(t, dir)
	if err := n.raft.Campaign(); err != nil {
		t.Fatal(err)
	}
	n.run(t)
	for range 30 {
		n.propose(t)
	}
	if err := n.wal.CreateSnapshot(20, nil, []byte("the state at entry 20")); err != nil {
		t.Fatal(err)
	}
	if err := n.wal.TruncateEntriesUntil(15); err != nil {
		t.Fatal(err)
	}
	learner := &raftpb.ConfChange{NodeId: new(uint64(2)), Type: raftpb.ConfChangeAddLearnerNode.Enum()}
	if err := n.raft.ProposeConfChange(learner); err != nil {
		t.Fatal(err)
	}
	n.run(t)
	n.propose(t)
	before, last := n.raft.Status(), n.applied[len(n.applied)-1]
	if err := n.wal.Close(); err != nil {
		t.Fatal(err)
	}

	n = startAt(t, dir)
	n.run(t)
	if got, want := n.raft.Status().Config.String(), before.Config.String(); got != want {
		t.Errorf("members after a restart: %s, want %s", got, want)
	}
	if first := n.applied[0]; first != 21 {
		t.Errorf("entries are handed out from %d on, want 21", first)
	}
	// The last commit index needs no sync, but nothing has failed here.
	if got := n.applied[len(n.applied)-1]; got != last {
		t.Errorf("entries are handed out up to %d, want %d", got, last)
	}
	if err := n.wal.Close(); err != nil {
		t.Fatal(err)
	}
}

// loneNode is the only voter of its group.
type loneNode struct {
	wal     *mmapwal.DiskStorage
	raft    *raft.RawNode
	applied []uint64 // indexes of what raft handed out
}

func startAt(t *testing.T, dir string) *loneNode {
	t.Helper()
	wal, err := mmapwal.Open(dir, &mmapwal.Options{RetainEntries: 10})
	if err != nil {
		t.Fatal(err)
	}
	if _, conf, err := wal.InitialState(); err != nil {
		t.Fatal(err)
	} else if len(conf.GetVoters()) == 0 {
		conf := &raftpb.ConfState{Voters: []uint64{1}}
		if err := wal.Save(nil, nil, &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{ConfState: conf}}); err != nil {
			t.Fatal(err)
		}
	}
	snap, err := wal.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	node, err := raft.NewRawNode(&raft.Config{
		ID: 1, Storage: wal, Applied: snap.GetMetadata().GetIndex(),
		ElectionTick: 10, HeartbeatTick: 1, MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 256,
		Logger: &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &loneNode{wal: wal, raft: node}
}

func (n *loneNode) propose(t *testing.T) {
	t.Helper()
	if err := n.raft.Propose([]byte("set x = 1")); err != nil {
		t.Fatal(err)
	}
	n.run(t)
}

// run does what raft wants done.
func (n *loneNode) run(t *testing.T) {
	t.Helper()
	for n.raft.HasReady() {
		ready := n.raft.Ready()
		if err := n.wal.Save(ready.HardState, ready.Entries, ready.Snapshot); err != nil {
			t.Fatal(err)
		}
		for _, e := range ready.CommittedEntries {
			n.applied = append(n.applied, e.GetIndex())
			if e.GetType() == raftpb.EntryConfChange {
				var change raftpb.ConfChange
				if err := proto.Unmarshal(e.GetData(), &change); err != nil {
					t.Fatal(err)
				}
				n.raft.ApplyConfChange(&change)
			}
		}
		n.raft.Advance(ready)
	}
}
