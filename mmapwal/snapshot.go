package mmapwal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sort"

	"github.com/seed-2fef92ad/raftwal/cleanup"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// CreateSnapshot stores data as the snapshot of the state machine at entry i,
// with the conf state cs, or the one of the previous snapshot if cs is nil; and
// compacts: FirstIndex becomes i+1-RetainEntries, unless it is beyond that
// already. The snapshot is durable before any file is removed, under every sync
// policy. data belongs to the caller again once CreateSnapshot returns.
//
// Errors: raft.ErrSnapOutOfDate if i is not beyond the present snapshot;
// ErrInvalid and raft.ErrUnavailable if it is beyond LastIndex; ErrNoSpace, only
// for data of 2,000 bytes and more; ErrPoisoned, ErrClosed, ErrReadOnly.
func (d *DiskStorage) CreateSnapshot(i uint64, cs *raftpb.ConfState, data []byte) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.writable(); err != nil {
		return err
	}
	v := &d.view
	if i <= v.meta.Snapshot.Index {
		return raft.ErrSnapOutOfDate
	}
	if i > v.last {
		return fmt.Errorf("%w: snapshot at %d: %w: the log ends at %d", ErrInvalid, i, raft.ErrUnavailable, v.last)
	}
	p := &d.plan
	defer d.discard(p)
	if err := d.planSnapshot(p, v, i, cs, data); err != nil {
		return d.poisonIfSync(err)
	}
	return d.poison(d.commitSnapshot(p))
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
	return nil
}

// Compact drops the entries up to i. The snapshot must cover them. Files without
// live entries are removed in the background. It needs no space, so it works on
// a full disk.
//
// Errors: raft.ErrCompacted if the log begins behind i already; ErrInvalid (with
// raft.ErrUnavailable beyond LastIndex) if i is beyond the snapshot; ErrPoisoned,
// ErrClosed, ErrReadOnly.
func (d *DiskStorage) Compact(i uint64) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.writable(); err != nil {
		return err
	}
	v := &d.view
	switch {
	case i <= v.meta.Compacted.Index:
		return raft.ErrCompacted
	case i > v.last:
		return fmt.Errorf("%w: compact up to %d: %w: the log ends at %d", ErrInvalid, i, raft.ErrUnavailable, v.last)
	case i > v.meta.Snapshot.Index:
		return invalidf("compact up to %d: the snapshot covers entries up to %d only; create a newer one first", i, v.meta.Snapshot.Index)
	}
	term, err := d.term(v, i)
	if err != nil {
		return err
	}
	m := d.meta.Meta()
	m.Compacted = metafile.Position{Index: i, Term: term}
	return d.poison(d.compact(m))
}

// installSnapshot stores the snapshot of a Save. If it empties the log, a new
// file is there before wal.meta makes it the first.
func (d *DiskStorage) installSnapshot(p *plan) error {
	p.meta.Compacted = p.meta.Snapshot
	if !p.empties {
		return d.commitSnapshot(p)
	}
	if !d.tailIsFresh() {
		p.inTail = p.counts[0]
		if err := d.adopt(p); err != nil {
			return err
		}
	}
	if err := d.publishSnapshotFile(p); err != nil {
		return err
	}
	p.meta.FirstFile = d.tail.Number()
	p.meta.Durable = d.durable()
	return d.retire(p.meta)
}

// commitSnapshot makes p.meta count, with the snapshot and the compaction in it.
func (d *DiskStorage) commitSnapshot(p *plan) error {
	if err := d.publishSnapshotFile(p); err != nil {
		return err
	}
	return d.compact(p.meta)
}

// publishSnapshotFile gives the snapshot's data file, if there is one, its name.
func (d *DiskStorage) publishSnapshotFile(p *plan) error {
	if p.snapFile == "" {
		return nil
	}
	name := filepath.Join(d.dir, metafile.SnapshotName(p.meta.Snapshot))
	if err := d.fsys.Rename(p.snapFile, name); err != nil {
		return err
	}
	p.snapFile = ""
	return d.fsys.SyncDir(d.dir)
}

// compact stores m, whose entries up to m.Compacted are not needed any more.
// Under NoSync the entries are synced first, so that the log reaches the snapshot.
func (d *DiskStorage) compact(m metafile.Meta) error {
	next := d.next
	if d.tail != nil {
		if err := d.tail.Sync(); err != nil {
			return err
		}
		next = d.tail.Number()
	}
	files := make([]cleanup.File, 0, len(d.files))
	for _, s := range d.files {
		last := s.last
		if s.file == d.tail {
			last = d.tail.Last()
		}
		files = append(files, cleanup.File{Number: s.file.Number(), Last: last})
	}
	m.FirstFile = cleanup.FirstLive(files, m.Compacted.Index, next)
	m.Durable = d.durable()
	return d.retire(m)
}

// retire makes m durable, and then lets go of the files below m.FirstFile and of
// the snapshot file that m replaces.
func (d *DiskStorage) retire(m metafile.Meta) error {
	old := d.meta.Meta()
	if err := d.meta.Commit(m); err != nil {
		return err
	}
	var live, dead []segment
	for _, s := range d.files {
		if s.file.Number() < m.FirstFile {
			dead = append(dead, s)
		} else {
			live = append(live, s)
		}
	}
	d.files = live
	d.publish()
	var names []string
	for _, s := range dead {
		names = append(names, entryfile.Name(s.file.Number()))
		d.releaseDead(s.file)
	}
	if old.SnapshotInFile && old.Snapshot != m.Snapshot {
		names = append(names, metafile.SnapshotName(old.Snapshot))
	}
	d.remover.Remove(names...)
	return nil
}

// releaseDead gives up the log's hold on a file; reads under way keep theirs.
func (d *DiskStorage) releaseDead(f *entryfile.File) {
	if err := f.Release(); err != nil {
		d.log.Warn("raftwal: dead file not closed cleanly", "file", f.Path(), "err", err)
	}
}

// Snapshot implements raft.Storage. It returns a copy of the newest snapshot; a
// blank one if there is none. It reads the data from its file if it is large,
// and checks it: *CorruptError. ErrClosed.
func (d *DiskStorage) Snapshot() (snap *raftpb.Snapshot, err error) {
	for again := true; again; {
		snap, again, err = d.readSnapshot()
	}
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
		snap.Data, err = metafile.ReadSnapshot(d.fsys, d.dir, m.LogID, m.Snapshot)
	}
	if err != nil {
		return nil, err
	}
	if len(snap.Data) == 0 {
		snap.Data = nil // a conf state alone can be too large to stand inline
	}
	return snap, nil
}

// TruncateEntriesUntil clears the data of the normal entries with an index below
// lastIdx, for good: they keep index, term and type, and read with empty data,
// also after a crash. Conf changes keep theirs. The disk blocks of sealed files
// are given back where the file system can; those of the file that is being
// appended to, when it is compacted. It is durable on return, under every sync
// policy. An entry that is written anew below lastIdx has its data.
//
// Errors: ErrPoisoned, ErrClosed, ErrReadOnly, *CorruptError.
func (d *DiskStorage) TruncateEntriesUntil(lastIdx uint64) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.writable(); err != nil {
		return err
	}
	v := &d.view
	done, err := d.clearedBelow(v)
	if err != nil {
		return err
	}
	below := min(lastIdx, v.last+1)
	if below <= done {
		return nil
	}
	m := d.meta.Meta()
	m.ClearedBelow, m.ClearedEnd = below, d.end()
	if err := d.meta.Commit(m); err != nil {
		return d.poison(err)
	}
	d.publishMeta()
	for _, s := range d.files {
		if s.file == d.tail {
			continue
		}
		if err := d.clearFile(s, below); err != nil {
			return err
		}
	}
	return nil
}

// clearedBelow returns the first entry whose data was not cleared yet: entries
// that were written anew since are behind the place up to which it was.
func (d *DiskStorage) clearedBelow(v *view) (uint64, error) {
	first, last := v.first(), min(v.meta.ClearedBelow, v.last+1)
	if first >= last {
		return first, nil
	}
	var failed error
	n := sort.Search(int(last-first), func(k int) bool {
		place, err := d.locate(v, first+uint64(k))
		if err != nil {
			failed = err
		}
		end := v.meta.ClearedEnd
		return place.File > end.File || place.File == end.File && place.Offset >= end.Offset
	})
	return first + uint64(n), failed
}

// end returns where the next record will stand, at the earliest.
func (d *DiskStorage) end() metafile.End {
	if len(d.files) == 0 {
		return metafile.End{File: d.next}
	}
	f := d.files[len(d.files)-1].file
	return metafile.End{File: f.Number(), Offset: f.End()}
}

// clearFile gives back the blocks of a sealed file that hold cleared entries, or
// ones that a later file supersedes.
func (d *DiskStorage) clearFile(s segment, below uint64) error {
	extents, err := s.file.Clear(min(below, s.last+1))
	if err != nil {
		if errors.Is(err, ErrCorrupt) {
			return err
		}
		return d.poison(err)
	}
	if err := s.file.Punch(extents); err != nil {
		d.log.Debug("raftwal: blocks of cleared entries not given back", "file", s.file.Path(), "err", err)
	}
	return nil
}
