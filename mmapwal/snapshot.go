package mmapwal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/seed-2fef92ad/raftwal/metafile"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// CreateSnapshot stores data as the snapshot of the state machine at entry i,
// with the conf state cs, what raft's ApplyConfChange returned last up to i; nil is that of the
// previous snapshot, if no conf change was applied since. It also compacts: FirstIndex becomes
// i+1-RetainEntries, unless it is beyond that already. The snapshot is durable before any file
// is removed, under every sync policy. data belongs to the caller again once CreateSnapshot
// returns. Data of 2,000 bytes and more is written to a file, synced, while Saves go on.
//
// Errors: raft.ErrSnapOutOfDate if i is not beyond the present snapshot;
// ErrInvalid and raft.ErrUnavailable if it is beyond LastIndex; ErrNoSpace, only
// if the snapshot, conf state included, has 2,000 bytes and more; ErrPoisoned, ErrClosed,
// ErrReadOnly.
func (d *DiskStorage) CreateSnapshot(i uint64, cs *raftpb.ConfState, data []byte) error {
	var w written
	if len(data) >= metafile.MaxInlineSnapshot {
		var release func()
		if term, err := d.Term(i); err == nil { // else it is refused below
			if w, release = d.writeAhead(metafile.Position{Index: i, Term: term}, data); release != nil {
				defer release()
			}
		}
	}
	d.writing.Lock()
	defer d.writing.Unlock()
	p := &d.plan
	p.written = w
	defer d.discard(p)
	if err := d.writable(); err != nil {
		return err
	}
	v := &d.view
	if i <= v.meta.Snapshot.Index {
		return outOfDate(i, v.meta.Snapshot.Index)
	}
	if i > v.last {
		return fmt.Errorf("%w: snapshot at %d: %w: the log ends at %d", ErrInvalid, i, raft.ErrUnavailable, v.last)
	}
	if err := d.planSnapshot(p, v, i, cs, data); err != nil {
		return d.poisonIfSync(err)
	}
	return d.poison(d.commitSnapshot(p))
}

// written is the data of a snapshot in its file, which has a temporary name; or why it
// could not be written.
type written struct {
	at   metafile.Position
	file string
	sum  uint64 // see metafile.Meta
	err  error
}

// writeAhead stores the data of a snapshot without the writer's lock, since that can take
// seconds, unless it is clear by now that it will be refused. What it returns goes into the plan
// of the writer, who uses it or removes it; release is called after that, and nil if nothing was
// written. Close waits for release.
func (d *DiskStorage) writeAhead(at metafile.Position, data []byte) (w written, release func()) {
	v, err := d.beginRead()
	if err != nil {
		return w, nil
	}
	if d.opts.ReadOnly || d.poisoned() != nil || at.Index == 0 || at.Index <= v.meta.Snapshot.Index {
		d.reads.Done()
		return w, nil
	}
	return d.writeSnapshot(at, data), d.reads.Done
}

// writeSnapshot writes a snapshot file, unless a file that is not this log's has its name.
func (d *DiskStorage) writeSnapshot(at metafile.Position, data []byte) written {
	name := metafile.SnapshotName(at)
	if slices.Contains(d.foreign, name) {
		err := fmt.Errorf("%w, and is not this log's: move it away", fs.ErrExist)
		return written{at: at, err: &fs.PathError{Op: "create", Path: filepath.Join(d.dir, name), Err: err}}
	}
	file, sum, err := d.meta.WriteSnapshot(at, data)
	return written{at, file, sum, noSpace(err)}
}

// position returns where a snapshot is.
func position(s *raftpb.Snapshot) metafile.Position {
	return metafile.Position{Index: s.GetMetadata().GetIndex(), Term: s.GetMetadata().GetTerm()}
}

// planSnapshot puts the new snapshot and the compaction that goes with it into
// p.meta.
func (d *DiskStorage) planSnapshot(p *plan, v *view, i uint64, cs *raftpb.ConfState, data []byte) error {
	term, err := d.term(v, i)
	if err != nil {
		return err
	}
	if cs == nil {
		old, err := v.meta.SnapshotProto()
		if err != nil {
			return err
		}
		cs = old.GetMetadata().GetConfState()
	}
	snap := &raftpb.Snapshot{
		Data:     data,
		Metadata: &raftpb.SnapshotMetadata{ConfState: cs, Index: &i, Term: &term},
	}
	if err := d.prepareSnapshot(p, snap); err != nil {
		return err
	}
	if retain := d.opts.RetainEntries; i > retain && i-retain > v.meta.Compacted.Index {
		at := i - retain
		if term, err = d.term(v, at); err != nil {
			return err
		}
		p.meta.Compacted = metafile.Position{Index: at, Term: term}
	}
	return d.nameSnapshotFile(p)
}

// installSnapshot stores the snapshot of a Save, which replaces the whole log. Unless that ends
// with the snapshot's entry, a new file is there before wal.meta makes it the first: the old
// log counts, or the snapshot alone.
func (d *DiskStorage) installSnapshot(p *plan) error {
	p.meta.Compacted = p.meta.Snapshot
	if !p.empties {
		return d.commitSnapshot(p)
	}
	if !d.tailIsFresh() {
		p.inTail = p.counts[0]
		d.adopt(p)
	}
	if err := d.publishSnapshotFile(p); err != nil {
		return err
	}
	p.meta.FirstFile = d.tail.Number()
	p.meta.Durable = d.durable()
	return d.commitCompaction(p.meta)
}

// commitSnapshot makes p.meta count, with the snapshot and the compaction in it.
func (d *DiskStorage) commitSnapshot(p *plan) error {
	if err := d.publishSnapshotFile(p); err != nil {
		return err
	}
	return d.compact(p.meta)
}

// nameSnapshotFile gives the snapshot's data file, if there is one, its name: the last step
// before anything is stored. One that no snapshot has counts for nothing.
func (d *DiskStorage) nameSnapshotFile(p *plan) error {
	if p.snapFile == "" {
		return nil
	}
	name := filepath.Join(d.dir, metafile.SnapshotName(p.meta.Snapshot))
	if err := d.fsys.Rename(p.snapFile, name); err != nil {
		return noSpace(err)
	}
	p.snapFile, p.snapNamed = "", true
	return nil
}

// publishSnapshotFile makes that name durable.
func (d *DiskStorage) publishSnapshotFile(p *plan) error {
	if !p.snapNamed {
		return nil
	}
	return d.fsys.SyncDir(d.dir)
}

// Snapshot implements raft.Storage. It returns a copy of the newest snapshot; a
// blank one if there is none. It reads the data from its file if it is large,
// and checks it: *CorruptError. ErrClosed.
func (d *DiskStorage) Snapshot() (snap *raftpb.Snapshot, err error) {
	for again := true; again; {
		snap, again, err = d.readSnapshot()
	}
	d.count.failedRead(err)
	return snap, err
}

func (d *DiskStorage) readSnapshot() (snap *raftpb.Snapshot, again bool, err error) {
	v, err := d.beginRead()
	if err != nil {
		return nil, false, err
	}
	defer d.reads.Done()
	snap, err = d.loadSnapshot(&v.meta)
	// A newer one may have replaced it, file and all.
	again = errors.Is(err, fs.ErrNotExist) && d.snapshotView().meta.Snapshot != v.meta.Snapshot
	return snap, again, err
}

func (d *DiskStorage) loadSnapshot(m *metafile.Meta) (*raftpb.Snapshot, error) {
	snap, err := m.SnapshotProto()
	if err != nil || !m.SnapshotInFile {
		return snap, err
	}
	if d.snapshot != nil {
		snap.Data, err = d.snapshot.Data()
	} else {
		snap.Data, err = d.meta.ReadSnapshot(m)
	}
	if err != nil {
		return nil, err
	}
	if len(snap.Data) == 0 {
		snap.Data = nil // a conf state alone can be too large to stand inline
	}
	return snap, nil
}
