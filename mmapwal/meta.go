package mmapwal

import "go.etcd.io/raft/v3/raftpb"

// MetaInfo names a number in wal.meta.
type MetaInfo int

// The numbers that Uint reads and SetUint changes. RaftId and GroupId are the
// user's, to tell whose log this is; CheckpointIndex is, too, to note how far the
// state machine has got; the log does not look at them. The snapshot's are
// changed by storing a snapshot only.
const (
	RaftId MetaInfo = iota //nolint:revive // the name is Dgraph's
	GroupId
	CheckpointIndex
	SnapshotIndex
	SnapshotTerm
)

// String returns the name of the number.
func (i MetaInfo) String() string {
	names := [...]string{"RaftId", "GroupId", "CheckpointIndex", "SnapshotIndex", "SnapshotTerm"}
	if i < 0 || int(i) >= len(names) {
		return "unknown MetaInfo"
	}
	return names[i]
}

// HardState returns the hard state that was saved last, that of a SaveAsync included; a
// blank one if none was. Its term and vote are durable, but under NoSync; its commit
// index may not be. It is the caller's. Of a log that is open for reading only, it is
// that of wal.meta at Open. ErrClosed.
func (d *DiskStorage) HardState() (*raftpb.HardState, error) {
	v, err := d.beginRead()
	if err != nil {
		return nil, err
	}
	defer d.reads.Done()
	return v.hardState(), nil
}

// Checkpoint returns the CheckpointIndex. ErrClosed.
func (d *DiskStorage) Checkpoint() (uint64, error) {
	v, err := d.beginRead()
	if err != nil {
		return 0, err
	}
	defer d.reads.Done()
	return v.meta.Checkpoint, nil
}

// Uint returns a number of wal.meta; 0 for one that does not exist. It works on
// a closed log, too.
func (d *DiskStorage) Uint(info MetaInfo) uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	m := &d.view.meta
	switch info {
	case RaftId:
		return m.RaftID
	case GroupId:
		return m.GroupID
	case CheckpointIndex:
		return m.Checkpoint
	case SnapshotIndex:
		return m.Snapshot.Index
	case SnapshotTerm:
		return m.Snapshot.Term
	}
	return 0
}

// SetUint changes a number of wal.meta. RaftId and GroupId are durable on return
// under HardSync; CheckpointIndex survives the death of the process, and is
// durable with the next Sync or Close.
//
// Errors: ErrInvalid for the snapshot's numbers and those that do not exist;
// ErrNoSpace, only if the log was copied with holes; ErrPoisoned, ErrClosed, ErrReadOnly.
func (d *DiskStorage) SetUint(info MetaInfo, v uint64) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.roomy(); err != nil {
		return err
	}
	m := d.meta.Meta()
	switch info {
	case RaftId:
		m.RaftID = v
	case GroupId:
		m.GroupID = v
	case CheckpointIndex:
		m.Checkpoint = v
	case SnapshotIndex, SnapshotTerm:
		return invalidf("SetUint: %v changes with the snapshot only; use CreateSnapshot or Save", info)
	default:
		return invalidf("SetUint: there is no MetaInfo %d", int(info))
	}
	var err error
	if info == CheckpointIndex || d.opts.Sync.mode == noSync {
		err = d.meta.Note(m)
	} else {
		err = d.meta.Commit(m)
	}
	if err != nil {
		return d.poison(err)
	}
	d.publishMeta()
	return nil
}
