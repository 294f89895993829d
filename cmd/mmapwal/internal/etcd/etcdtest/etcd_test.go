package etcdtest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/etcd"
	"github.com/seed-2fef92ad/raftwal/internal/golden"
	"go.etcd.io/raft/v3/raftpb"
)

// members are histories of a member.
var members = map[string]func(m *member){
	"new": func(*member) {},
	"small": func(m *member) {
		m.save(1, 20, 1, 15)
		m.save(21, 25, 2, 25)
		m.saveEntries(nil, 3, 25) // a vote
	},
	"rotated": func(m *member) {
		m.save(1, 40, 1, 38)
		m.save(41, 90, 1, 90)
		m.restart()
		m.save(91, 140, 4, 139)
	},
	"replaced": func(m *member) { // suffixes, in one file and over several
		m.save(1, 30, 1, 10)
		m.save(25, 28, 2, 20)
		m.save(29, 90, 2, 22)
		m.save(23, 95, 3, 40)
		m.restart()
		m.save(90, 91, 5, 91)
	},
	"snapshot": func(m *member) { // and orphans of its file names
		m.save(1, 60, 1, 55)
		m.snapshot(20, 1)
		m.save(61, 70, 2, 66)
		m.snapshot(65, 2)
		m.save(71, 75, 2, 74)
	},
	"purged": func(m *member) {
		m.save(1, 200, 1, 200)
		m.snapshot(150, 1)
		m.save(201, 220, 1, 220)
		must(m.t, m.Release(snapshotAt(150)))
		m.save(221, 300, 1, 300)
		m.snapshot(290, 1)
		m.save(301, 310, 1, 310)
		m.purge(2)
	},
	"from-leader": func(m *member) { // the snapshot is beyond the log, and the log goes on behind it
		m.save(1, 30, 1, 25)
		m.snapshot(500, 7)
		m.saveEntries(nil, 7, 500)
		m.save(501, 520, 7, 515)
	},
	"from-leader-only": func(m *member) {
		m.save(1, 30, 1, 25)
		m.snapshot(500, 7)
		m.saveEntries(nil, 7, 500)
	},
	"unfinished-snapshot": func(m *member) { // the hard state that goes with it was not written
		m.save(1, 30, 1, 25)
		m.snapshot(20, 1)
		m.saveEntries(nil, 1, 26)
		m.snapshot(500, 7)
	},
	"without-snap-file": func(m *member) {
		m.save(1, 60, 1, 55)
		m.snapshot(50, 1)
		must(m.t, os.Remove(filepath.Join(m.dir, "snap", "0000000000000001-0000000000000032.snap")))
	},
	"older-snap-file": func(m *member) { // the file of the newest snapshot is not there
		m.save(1, 60, 1, 55)
		m.snapshot(20, 1)
		m.snapshot(50, 1)
		must(m.t, os.Remove(filepath.Join(m.dir, "snap", "0000000000000001-0000000000000032.snap")))
	},
	"purged-without-snap-file": func(m *member) { // and neither is the first entry
		m.save(1, 200, 1, 200)
		m.snapshot(190, 1)
		must(m.t, m.Release(snapshotAt(190)))
		m.save(201, 220, 1, 220)
		m.purge(2)
		must(m.t, os.Remove(filepath.Join(m.dir, "snap", "0000000000000001-00000000000000be.snap")))
	},
	"torn": func(m *member) {
		m.save(1, 60, 1, 55)
		m.save(61, 61, 1, 61)
		large := entry(62, 1)
		large.Data = make([]byte, 2000)
		for k := range large.Data {
			large.Data[k] = byte(k) | 1
		}
		m.saveEntries([]*raftpb.Entry{large}, 1, 61)
		m.tear(1500)
	},
}

func snapshotAt(i uint64) *raftpb.Snapshot {
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: &i}}
}

// TestMembers: what etcd reads from what it wrote, package etcd reads as well.
func TestMembers(t *testing.T) {
	for name, history := range members {
		t.Run(name, func(t *testing.T) {
			m := newMember(t)
			history(m)
			must(t, m.Close())
			check(t, m.dir)
			archive := filepath.Join("..", "testdata", name)
			if os.Getenv("UPDATE") != "" {
				must(t, os.MkdirAll(filepath.Dir(archive), 0o700))
				golden.Pack(t, archive+".tar.gz", m.dir)
				must(t, os.WriteFile(archive+".json", []byte(golden.JSON(t, readByEtcd(t, m.dir))), 0o644))
			}
			sample := t.TempDir()
			golden.Unpack(t, archive+".tar.gz", sample)
			if got, want := golden.JSON(t, readByEtcd(t, sample)), golden.JSON(t, golden.ReadJSON[golden.Log](t, archive+".json")); got != want {
				t.Errorf("etcd reads from the sample\n%s, not\n%s", got, want)
			}
		})
	}
}

// check compares what etcd reads from dir with what package etcd does.
func check(t *testing.T, dir string) {
	t.Helper()
	want := golden.JSON(t, readByEtcd(t, dir))
	l, err := etcd.Open(dir)
	must(t, err)
	got := golden.Log{RaftID: l.RaftID, GroupID: l.GroupID}
	var es []*raftpb.Entry
	for e, err := range l.Entries {
		must(t, err)
		es = append(es, e)
	}
	got.Set(l.HardState, l.Snapshot, l.First, es)
	if got := golden.JSON(t, got); got != want {
		t.Errorf("read\n%s\nwant\n%s", got, want)
	}
}

func readByEtcd(t *testing.T, dir string) *golden.Log {
	t.Helper()
	h, s, es, meta, err := read(dir)
	must(t, err)
	l := &golden.Log{RaftID: meta.GetNodeID(), GroupID: meta.GetClusterID()}
	l.Set(h, s, s.GetMetadata().GetIndex()+1, es)
	return l
}
