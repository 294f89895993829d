package etcdtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/storage"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

const (
	nodeID    = 0x8e9e05c52164694d
	clusterID = 0xcdf818194e3a8c32

	segmentBytes = 4096 // so that a few entries fill a file
)

// member writes the directory of a member, as etcd does.
type member struct {
	t   *testing.T
	dir string
	wal *wal.WAL
	storage.Storage
}

func newMember(t *testing.T) *member {
	t.Helper()
	wal.SegmentSizeBytes = segmentBytes
	m := &member{t: t, dir: t.TempDir()}
	must(t, os.Mkdir(filepath.Join(m.dir, "snap"), 0o700))
	metadata, err := proto.Marshal(&etcdserverpb.Metadata{NodeID: new(uint64(nodeID)), ClusterID: new(uint64(clusterID))})
	must(t, err)
	m.wal, err = wal.Create(zap.NewNop(), filepath.Join(m.dir, "wal"), metadata)
	must(t, err)
	m.use()
	return m
}

func (m *member) use() {
	m.Storage = storage.NewStorage(zap.NewNop(), m.wal, snap.New(zap.NewNop(), filepath.Join(m.dir, "snap")))
}

// save saves the entries from first to last, a few at a time, and a hard state.
func (m *member) save(first, last, term, commit uint64) {
	m.t.Helper()
	var es []*raftpb.Entry
	for i := first; i <= last; i++ {
		if es = append(es, entry(i, term)); len(es) == 10 || i == last {
			m.saveEntries(es, term, min(i, commit))
			es = nil
		}
	}
}

func (m *member) saveEntries(es []*raftpb.Entry, term, commit uint64) {
	m.t.Helper()
	h := &raftpb.HardState{Term: &term, Vote: new(uint64(nodeID)), Commit: &commit}
	must(m.t, m.Save(h, es))
}

// entry returns an entry: some are conf changes, some have no data.
func entry(i, term uint64) *raftpb.Entry {
	e := &raftpb.Entry{Index: &i, Term: &term, Type: raftpb.EntryNormal.Enum()}
	switch {
	case i%11 == 3:
		data, err := proto.Marshal(&raftpb.ConfChange{
			Type: raftpb.ConfChangeAddLearnerNode.Enum(), NodeId: &i, Context: []byte("context"),
		})
		if err != nil {
			panic(err)
		}
		e.Type, e.Data = raftpb.EntryConfChange.Enum(), data
	case i%7 != 0:
		e.Data = bytes.Repeat(fmt.Appendf(nil, "entry %d of term %d. ", i, term), int(i%5)+1)
	}
	return e
}

// snapshot stores a snapshot, as etcd does with its own and with the leader's.
func (m *member) snapshot(i, term uint64) {
	m.t.Helper()
	must(m.t, m.SaveSnap(&raftpb.Snapshot{
		Data: fmt.Appendf(nil, `{"snapshot":%d}`, i),
		Metadata: &raftpb.SnapshotMetadata{
			Index: &i, Term: &term, ConfState: &raftpb.ConfState{Voters: []uint64{1, nodeID}, Learners: []uint64{5}, AutoLeave: new(false)},
		},
	}))
}

// restart ends the process of the member and starts it again.
func (m *member) restart() {
	m.t.Helper()
	must(m.t, m.Close())
	at, _, err := last(m.dir)
	must(m.t, err)
	m.wal, err = wal.Open(zap.NewNop(), filepath.Join(m.dir, "wal"), at)
	must(m.t, err)
	_, _, _, err = m.wal.ReadAll()
	must(m.t, err)
	m.use()
}

// files returns the paths of the files of the WAL.
func (m *member) files() []string {
	m.t.Helper()
	names, err := filepath.Glob(filepath.Join(m.dir, "wal", "*.wal"))
	must(m.t, err)
	return names
}

// purge removes files of the WAL, as etcd does with those that are released.
func (m *member) purge(keep int) {
	m.t.Helper()
	names := m.files()
	for _, name := range names[:len(names)-keep] {
		must(m.t, os.Remove(name))
	}
}

// tear zeros the last n bytes in use of the last file.
func (m *member) tear(n int) {
	m.t.Helper()
	names := m.files()
	name := names[len(names)-1]
	p, err := os.ReadFile(name)
	must(m.t, err)
	used := len(bytes.TrimRight(p, "\x00"))
	clear(p[used-n:])
	must(m.t, os.WriteFile(name, p, 0o600))
}

// last returns the snapshot that etcd starts from: the newest whose file is there. If none
// is, it starts from the first entry; and where that is gone, a newer etcd does with what
// the WAL says of the newest snapshot.
func last(dir string) (at *walpb.Snapshot, s *raftpb.Snapshot, err error) {
	snaps, err := wal.ValidSnapshotEntries(zap.NewNop(), filepath.Join(dir, "wal"))
	if err != nil || len(snaps) == 0 {
		return new(walpb.Snapshot), &raftpb.Snapshot{}, err
	}
	s, err = snap.New(zap.NewNop(), filepath.Join(dir, "snap")).LoadNewestAvailable(snaps)
	if err == nil {
		return &walpb.Snapshot{Index: s.Metadata.Index, Term: s.Metadata.Term}, s, nil
	}
	if !errors.Is(err, snap.ErrNoSnapshot) {
		return nil, nil, err
	}
	if w, err := wal.OpenForRead(zap.NewNop(), filepath.Join(dir, "wal"), new(walpb.Snapshot)); err == nil {
		_ = w.Close() // it was opened for reading, and closes nothing of its own
		return new(walpb.Snapshot), &raftpb.Snapshot{}, nil
	}
	at = snaps[len(snaps)-1]
	return at, &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: at.Index, Term: at.Term, ConfState: at.ConfState}}, nil
}

// read returns what etcd reads from a member's directory.
func read(dir string) (h *raftpb.HardState, s *raftpb.Snapshot, es []*raftpb.Entry, meta *etcdserverpb.Metadata, err error) {
	at, s, err := last(dir)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	w, err := wal.OpenForRead(zap.NewNop(), filepath.Join(dir, "wal"), at)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	metadata, h, es, err := w.ReadAll()
	if err != nil {
		return nil, nil, nil, nil, err
	}
	meta = new(etcdserverpb.Metadata)
	return h, s, slices.Clip(es), meta, proto.Unmarshal(metadata, meta)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
