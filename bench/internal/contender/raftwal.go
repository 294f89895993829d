package contender

import (
	"bytes"
	"log/slog"
	"math"
	"time"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// raftwal is the log of this repository.
func raftwal() Contender {
	return Contender{
		Name:  Ours,
		About: "this repository's log",
		Ours:  true, Terms: true, Compacts: true,
		Open: func(dir string, o Options) (Log, error) { return openRaftwal(dir, o, nil) },
	}
}

// encrypted is the log of this repository with a key.
func encrypted() Contender {
	key := bytes.Repeat([]byte{7}, 32)
	return Contender{
		Name:  "raftwal-encrypted",
		About: "this repository's log, encrypted with AES-256-GCM",
		Ours:  true, Terms: true, Compacts: true,
		Open: func(dir string, o Options) (Log, error) { return openRaftwal(dir, o, key) },
	}
}

type raftwalLog struct{ *mmapwal.DiskStorage }

func openRaftwal(dir string, o Options, key []byte) (Log, error) {
	opts := mmapwal.Options{Key: key, FileDataSize: o.FileBytes, Logger: slog.New(slog.DiscardHandler)}
	switch {
	case o.NoSync:
		opts.Sync = mmapwal.NoSync
	case o.Batch:
		opts.Sync = mmapwal.BatchSync(1000, 10*time.Millisecond)
	}
	if o.Reuse {
		opts.SpareFiles = 16
	}
	d, err := mmapwal.Open(dir, &opts)
	if err != nil {
		return nil, err
	}
	return raftwalLog{d}, nil
}

// Append implements Log.
func (l raftwalLog) Append(es []*raftpb.Entry) error { return l.Save(nil, es, nil) }

// AppendAsync implements Async.
func (l raftwalLog) AppendAsync(es []*raftpb.Entry, done func(error)) {
	l.SaveAsync(nil, es, nil, done)
}

// Compact implements Compacter, with an empty snapshot, as it has to be one that
// covers what is dropped.
func (l raftwalLog) Compact(i uint64) error { return l.CreateSnapshot(i, nil, nil) }

// Read implements Log.
func (l raftwalLog) Read(lo, hi uint64, visit func(data []byte)) error {
	es, err := l.Entries(lo, hi, math.MaxUint64)
	for _, e := range es {
		visit(e.GetData())
	}
	return err
}
