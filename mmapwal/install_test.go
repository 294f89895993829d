package mmapwal_test

import (
	"fmt"
	"testing"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// TestInstall: a snapshot in a Save leaves what raft's MemoryStorage has after ApplySnapshot and
// Append, wherever it lies; and a killed log holds that, too.
func TestInstall(t *testing.T) {
	for _, at := range [][2]uint64{{2, 1}, {2, 2}, {5, 1}, {5, 3}, {8, 2}, {8, 3}, {9, 2}, {20, 4}} { // index, term
		for _, behind := range []uint64{0, 2} {
			t.Run(fmt.Sprintf("%d of term %d, %d entries", at[0], at[1], behind), func(t *testing.T) {
				dir := t.TempDir()
				d, mem := testLogOpen(t, dir), raft.NewMemoryStorage()
				es := append(testLogEntries(1, 4, 1, 300_000), testLogEntries(5, 8, 2, 300_000)...)
				testLogSave(t, d, testLogHard(2, 1, 1), es)
				snap := testLogSnapshot(at[0], at[1], []byte("state"))
				es = testLogEntries(at[0]+1, at[0]+behind, 4, 20)
				hard := testLogHard(4, 1, at[0])
				if err := d.Save(hard, es, snap); err != nil {
					t.Fatal(err)
				}
				if err := mem.ApplySnapshot(snap); err != nil {
					t.Fatal(err)
				}
				if err := mem.Append(es); err != nil {
					t.Fatal(err)
				}
				testLogSameAs(t, d, mem)
				d.WaitForBackground()
				want := testLogContent(t, d)
				testLogHealthy(t, dir, want)
				testLogOpens(t, testLogCopyDir(t, dir), want)
			})
		}
	}
}

// testLogSameAs fails the test unless d has the entries and terms of mem.
func testLogSameAs(t *testing.T, d *mmapwal.DiskStorage, mem *raft.MemoryStorage) {
	t.Helper()
	first, _ := mem.FirstIndex()
	last, _ := mem.LastIndex()
	if _, err := d.Term(first - 2); err != raft.ErrCompacted {
		t.Fatalf("term %d: %v", first-2, err)
	}
	testLogRange(t, d, first, last)
	for i := first - 1; i <= last; i++ {
		want, _ := mem.Term(i)
		if got, err := d.Term(i); got != want || err != nil {
			t.Fatalf("term %d is %d, %v; want %d", i, got, err, want)
		}
	}
}

// TestInstallUnderRaft: raft drops a suffix that it has not handed out yet for a snapshot, and
// counts on nothing being behind that.
func TestInstallUnderRaft(t *testing.T) {
	d := testLogOpen(t, t.TempDir())
	if err := d.Save(testLogHard(2, 0, 5), testLogEntries(2, 15, 2, 20), testLogSnapshot(1, 1, nil)); err != nil {
		t.Fatal(err)
	}
	node, err := raft.NewRawNode(&raft.Config{ID: 1, Storage: d, ElectionTick: 10, HeartbeatTick: 1, MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 9})
	if err != nil {
		t.Fatal(err)
	}
	step := func(m *raftpb.Message) {
		t.Helper()
		if m.To = new(uint64(1)); m.LogTerm == nil {
			m.LogTerm = new(uint64(2))
		}
		if err := node.Step(m); err != nil {
			t.Fatal(err)
		}
	}
	app, sent := raftpb.MsgApp, raftpb.MsgSnap
	step(&raftpb.Message{Type: &app, From: new(uint64(2)), Term: new(uint64(3)), Index: new(uint64(7)), Entries: testLogEntries(8, 9, 3, 20)})
	step(&raftpb.Message{Type: &sent, From: new(uint64(3)), Term: new(uint64(4)), Snapshot: testLogSnapshot(10, 2, nil)})
	ready := node.Ready()
	if err := d.Save(ready.HardState, ready.Entries, ready.Snapshot); err != nil {
		t.Fatal(err)
	}
	node.Advance(ready)
	if last, err := d.LastIndex(); last != 10 || err != nil {
		t.Fatalf("the log ends at %d, %v; want 10", last, err)
	}
	es := append(testLogEntries(11, 15, 2, 20), testLogEntries(16, 16, 4, 20)...)
	step(&raftpb.Message{Type: &app, From: new(uint64(3)), Term: new(uint64(4)), Index: new(uint64(10)), Entries: es})
}
