package mmapwal_test

import (
	"errors"
	"math"
	"testing"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

func testLogRetain(o *mmapwal.Options) { o.RetainEntries = 20 }

// TestClearedAreCompacted: what a snapshot covers can be cleared, and is read as compacted; its
// terms stay. That holds for a reader, after a kill and a close, and for what was cleared
// without a snapshot by earlier versions.
func TestClearedAreCompacted(t *testing.T) {
	for name, clear := range map[string]func(d *mmapwal.DiskStorage) error{
		"covered":     func(d *mmapwal.DiskStorage) error { return d.TruncateEntriesUntil(11) },
		"not covered": func(d *mmapwal.DiskStorage) error { return d.ClearBelow(15) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := testLogOpen(t, dir, testLogRetain)
			es := testLogEntries(1, 20, 1, 100_000) // two files
			es[6].Type = new(raftpb.EntryConfChange)
			testLogSave(t, d, testLogHard(1, 1, 20), es)
			if err := d.CreateSnapshot(10, testLogConf(1, 2, 3), nil); err != nil {
				t.Fatal(err)
			}
			before := testLogContent(t, d)
			for _, i := range []uint64{12, 20, 21, math.MaxUint64} {
				if err := d.TruncateEntriesUntil(i); !errors.Is(err, mmapwal.ErrInvalid) {
					t.Fatalf("the data below %d: %v", i, err)
				}
			}
			testLogSame(t, "refused", testLogContent(t, d), before)
			if err := clear(d); err != nil {
				t.Fatal(err)
			}
			first := map[string]uint64{"covered": 11, "not covered": 15}[name]
			testLogClearedRead(t, d, first)
			want := testLogContent(t, d)
			d.WaitForBackground()
			testLogHealthy(t, dir, want)
			testLogOpens(t, testLogCopyDir(t, dir), want)
			testLogClose(t, d)
			d = testLogOpen(t, dir, testLogRetain)
			testLogClearedRead(t, d, first)
		})
	}
}

// testLogClearedRead reads a log of entries 1 to 20, of which those below first are cleared, but for
// 7, a conf change.
func testLogClearedRead(t *testing.T, d *mmapwal.DiskStorage, first uint64) {
	t.Helper()
	if i, err := d.FirstIndex(); i != 1 || err != nil {
		t.Fatalf("the first index is %d, %v", i, err)
	}
	for i := uint64(1); i <= 20; i++ {
		if term, err := d.Term(i); term != 1 || err != nil {
			t.Errorf("term %d: %d, %v", i, term, err)
		}
		for _, hi := range []uint64{i + 1, 21} {
			es, err := d.Entries(i, hi, math.MaxUint64)
			if cleared := i < first && (i != 7 || hi > 8); cleared && (err != raft.ErrCompacted || es != nil) {
				t.Errorf("entries %d to %d, cleared: %d of them, %v", i, hi, len(es), err)
			} else if !cleared && (err != nil || uint64(len(es)) != hi-i || len(es[0].Data) == 0) {
				t.Errorf("entries %d to %d: %d of them, %v", i, hi, len(es), err)
			}
		}
	}
}

// TestClearedUnderRaft: a leader sends the snapshot to a follower that needs entries whose data
// was cleared, not blank ones.
func TestClearedUnderRaft(t *testing.T) {
	d := testLogOpen(t, t.TempDir(), testLogRetain)
	testLogSave(t, d, testLogHard(1, 1, 20), testLogEntries(1, 20, 1, 100))
	if err := d.CreateSnapshot(10, testLogConf(1, 2), nil); err != nil {
		t.Fatal(err)
	}
	if err := d.TruncateEntriesUntil(11); err != nil {
		t.Fatal(err)
	}
	node, err := raft.NewRawNode(&raft.Config{ID: 1, Applied: 20, Storage: d, ElectionTick: 10, HeartbeatTick: 1, MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 9})
	if err != nil {
		t.Fatal(err)
	}
	var sent []*raftpb.Message
	ready := func() {
		for node.HasReady() {
			r := node.Ready()
			if err := d.Save(r.HardState, r.Entries, r.Snapshot); err != nil {
				t.Fatal(err)
			}
			sent = append(sent, r.Messages...)
			node.Advance(r)
		}
	}
	step := func(typ raftpb.MessageType, index uint64, reject bool) {
		t.Helper()
		m := &raftpb.Message{Type: &typ, From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(2)), Index: &index, Reject: &reject, RejectHint: new(uint64(0))}
		if err := node.Step(m); err != nil {
			t.Fatal(err)
		}
		ready()
	}
	if err := node.Campaign(); err != nil {
		t.Fatal(err)
	}
	ready()
	step(raftpb.MsgVoteResp, 0, false)
	step(raftpb.MsgAppResp, 20, true) // the follower has nothing
	last := sent[len(sent)-1]
	if last.GetType() != raftpb.MsgSnap || last.GetSnapshot().GetMetadata().GetIndex() != 10 {
		t.Fatalf("sent was %v", last)
	}
}
