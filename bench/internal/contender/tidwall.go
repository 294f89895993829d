package contender

import (
	"path/filepath"

	"github.com/tidwall/wal"
	"go.etcd.io/raft/v3/raftpb"
)

// tidwall is tidwall's log.
func tidwall() Contender {
	return Contender{Name: "tidwall-wal", About: "tidwall/wal", Compacts: true, Open: openTidwall}
}

type tidwallLog struct {
	*wal.Log
	batch wal.Batch
	buf   []byte
}

func openTidwall(dir string, o Options) (Log, error) {
	opts := *wal.DefaultOptions
	opts.NoSync = o.NoSync
	l, err := wal.Open(filepath.Join(dir, "log"), &opts)
	if err != nil {
		return nil, err
	}
	return &tidwallLog{Log: l}, nil
}

// Append implements Log.
func (l *tidwallLog) Append(es []*raftpb.Entry) error {
	for _, e := range es {
		l.buf = encode(l.buf[:0], e)
		l.batch.Write(e.GetIndex(), l.buf)
	}
	return l.WriteBatch(&l.batch)
}

// Read implements Log.
func (l *tidwallLog) Read(lo, hi uint64, visit func(data []byte)) error {
	for i := lo; i < hi; i++ {
		b, err := l.Log.Read(i)
		if err != nil {
			return err
		}
		data, err := dataOf(b)
		if err != nil {
			return err
		}
		visit(data)
	}
	return nil
}

// Compact implements Compacter.
func (l *tidwallLog) Compact(i uint64) error { return l.TruncateFront(i + 1) }
