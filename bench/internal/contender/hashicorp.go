package contender

import (
	"github.com/hashicorp/raft"
	"go.etcd.io/raft/v3/raftpb"
)

// hashicorpLog is a log for HashiCorp's Raft.
type hashicorpLog struct {
	raft.LogStore
	close func() error

	logs []*raft.Log // handed to the store, and used again
}

// Append implements Log.
func (l *hashicorpLog) Append(es []*raftpb.Entry) error {
	for len(l.logs) < len(es) {
		l.logs = append(l.logs, &raft.Log{Type: raft.LogCommand})
	}
	for k, e := range es {
		g := l.logs[k]
		g.Index, g.Term, g.Data = e.GetIndex(), e.GetTerm(), e.GetData()
	}
	return l.StoreLogs(l.logs[:len(es)])
}

// Read implements Log.
func (l *hashicorpLog) Read(lo, hi uint64, visit func(data []byte)) error {
	for i := lo; i < hi; i++ {
		var g raft.Log
		if err := l.GetLog(i, &g); err != nil {
			return err
		}
		visit(g.Data)
	}
	return nil
}

// Compact implements Compacter.
func (l *hashicorpLog) Compact(i uint64) error {
	first, err := l.FirstIndex()
	if err != nil {
		return err
	}
	return l.DeleteRange(first, i)
}

// Close implements Log.
func (l *hashicorpLog) Close() error { return l.close() }
