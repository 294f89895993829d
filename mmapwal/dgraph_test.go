package mmapwal_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"sort"
	"testing"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// dgraphEntry is what Dgraph makes of a slot.
type dgraphEntry struct {
	term, index uint64
	typ         int32
	data        []byte
}

// dgraphLog is a directory as Dgraph reads it: by offsets alone, without
// checksums, headers or file numbers.
type dgraphLog struct {
	raftID, groupID, checkpoint uint64
	hard                        raftpb.HardState
	snapshot                    raftpb.Snapshot
	entries                     []dgraphEntry
}

func readAsDgraph(t *testing.T, dir string) *dgraphLog {
	t.Helper()
	meta, err := os.ReadFile(filepath.Join(dir, "wal.meta"))
	if err != nil {
		t.Fatal(err)
	}
	order := binary.BigEndian
	prefixed := func(p []byte, at uint64) []byte { return p[at+4:][:order.Uint32(p[at:])] }
	log := &dgraphLog{raftID: order.Uint64(meta), groupID: order.Uint64(meta[8:]), checkpoint: order.Uint64(meta[16:])}
	if err := proto.Unmarshal(prefixed(meta, 512), &log.hard); err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(prefixed(meta, 1040), &log.snapshot); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil {
		t.Fatal(err)
	}
	var files [][]byte
	for _, name := range names {
		file, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if order.Uint64(file[8:]) != 0 { // Dgraph removes files whose first slot is empty
			files = append(files, file)
		}
	}
	sort.Slice(files, func(i, j int) bool { return order.Uint64(files[i][8:]) < order.Uint64(files[j][8:]) })
	for _, file := range files {
		before := uint64(0)
		for slot := file[:960_000]; len(slot) > 0 && order.Uint64(slot[8:]) != 0; slot = slot[32:] {
			at := order.Uint64(slot[16:])
			if at <= before {
				t.Fatalf("offsets do not rise: %d after %d", at, before)
			}
			before = at
			log.entries = append(log.entries, dgraphEntry{order.Uint64(slot), order.Uint64(slot[8:]), int32(order.Uint64(slot[24:])), prefixed(file, at)})
		}
		if tail := file[1<<20-16 : 1<<20]; !bytes.Equal(tail, make([]byte, 16)) {
			t.Fatalf("Dgraph would take %x for a key", tail)
		}
	}
	return log
}

// A directory that was closed cleanly shows Dgraph what it shows us.
func TestClosedLogReadsInDgraph(t *testing.T) {
	dir := t.TempDir()
	d := testLogOpen(t, dir)
	for _, info := range []mmapwal.MetaInfo{mmapwal.RaftId, mmapwal.GroupId, mmapwal.CheckpointIndex} {
		must(t, d.SetUint(info, uint64(info)+7))
	}
	must(t, d.Save(nil, testLogEntries(1, 3000, 1, 1000), nil)) // over several files
	must(t, d.Save(nil, testLogEntries(1500, 1600, 2, 1000), nil))
	must(t, d.Save(nil, testLogEntries(1550, 3000, 3, 1000), nil))
	must(t, d.Save(nil, []*raftpb.Entry{{Index: new(uint64(3001)), Term: new(uint64(3)), Type: new(raftpb.EntryConfChangeV2)}}, nil))
	must(t, d.CreateSnapshot(700, &raftpb.ConfState{Voters: []uint64{1, 2, 3}}, []byte("inline")))
	must(t, d.Save(&raftpb.HardState{Term: new(uint64(3)), Vote: new(uint64(2)), Commit: new(uint64(2000))}, nil, nil))
	must(t, d.Close())

	d = testLogOpen(t, dir, testLogReadOnly)
	want, err := d.Entries(701, 3002, 1<<40)
	must(t, err)
	got := readAsDgraph(t, dir)
	for len(got.entries) > 0 && got.entries[0].index <= 700 {
		got.entries = got.entries[1:] // Dgraph's first index is behind the snapshot, too
	}
	if len(got.entries) != len(want) {
		t.Fatalf("Dgraph finds %d entries, not %d", len(got.entries), len(want))
	}
	for k, e := range want {
		g := got.entries[k]
		if g.term != e.GetTerm() || g.index != e.GetIndex() || g.typ != int32(e.GetType()) || !bytes.Equal(g.data, e.GetData()) {
			t.Fatalf("Dgraph finds %d/%d, not %d/%d", g.term, g.index, e.GetTerm(), e.GetIndex())
		}
	}
	hard, err := d.HardState()
	must(t, err)
	snap, err := d.Snapshot()
	must(t, err)
	if !proto.Equal(hard, &got.hard) || !proto.Equal(snap, raftpb.EnsureSnapshot(&got.snapshot)) {
		t.Fatalf("Dgraph finds %v and %v, not %v and %v", &got.hard, &got.snapshot, hard, snap)
	}
	if got.raftID != 7 || got.groupID != 8 || got.checkpoint != 9 {
		t.Fatalf("Dgraph finds ids %d, %d and checkpoint %d", got.raftID, got.groupID, got.checkpoint)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
