package contender

import (
	"math"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// etcd is etcd's log alone: it is written, and read as a whole when it is opened.
func etcd() Contender {
	return Contender{
		Name:      "etcd-wal",
		About:     "etcd's wal, which is read at Open only",
		WriteOnly: true,
		Open:      func(dir string, o Options) (Log, error) { return openEtcd(dir, o, nil) },
	}
}

// etcdInMemory is how etcd uses it: every entry is kept in memory as well.
func etcdInMemory() Contender {
	return Contender{
		Name:  "etcd-wal+memory",
		About: "etcd's wal, and raft's MemoryStorage to read from",
		Terms: true,
		Open: func(dir string, o Options) (Log, error) {
			return openEtcd(dir, o, raft.NewMemoryStorage())
		},
	}
}

type etcdLog struct {
	wal    *wal.WAL
	memory *raft.MemoryStorage // nil: none
}

func openEtcd(dir string, o Options, memory *raft.MemoryStorage) (Log, error) {
	dir = filepath.Join(dir, "wal") // etcd makes it itself
	w, es, err := createOrReplay(dir)
	if err != nil {
		return nil, err
	}
	if o.NoSync {
		w.SetUnsafeNoFsync()
	}
	l := &etcdLog{wal: w, memory: memory}
	if err := l.remember(es); err != nil {
		_ = w.Close()
		return nil, err
	}
	return l, nil
}

// createOrReplay makes a log, or opens the one that is there and reads its entries.
func createOrReplay(dir string) (*wal.WAL, []*raftpb.Entry, error) {
	if !wal.Exist(dir) {
		w, err := wal.Create(zap.NewNop(), dir, nil)
		return w, nil, err
	}
	w, err := wal.Open(zap.NewNop(), dir, &walpb.Snapshot{})
	if err != nil {
		return nil, nil, err
	}
	_, _, es, err := w.ReadAll()
	if err != nil {
		_ = w.Close()
		return nil, nil, err
	}
	return w, es, nil
}

func (l *etcdLog) remember(es []*raftpb.Entry) error {
	if l.memory == nil {
		return nil
	}
	return l.memory.Append(es)
}

// Append implements Log.
func (l *etcdLog) Append(es []*raftpb.Entry) error {
	if err := l.wal.Save(nil, es); err != nil {
		return err
	}
	return l.remember(es)
}

// Read implements Log.
func (l *etcdLog) Read(lo, hi uint64, visit func(data []byte)) error {
	if l.memory == nil {
		return errNoReads
	}
	es, err := l.memory.Entries(lo, hi, math.MaxUint64)
	for _, e := range es {
		visit(e.GetData())
	}
	return err
}

// Term implements Terms.
func (l *etcdLog) Term(i uint64) (uint64, error) {
	if l.memory == nil {
		return 0, errNoReads
	}
	return l.memory.Term(i)
}

// Close implements Log.
func (l *etcdLog) Close() error { return l.wal.Close() }
