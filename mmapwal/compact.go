package mmapwal

import (
	"fmt"
	"slices"

	"github.com/seed-2fef92ad/raftwal/cleanup"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"go.etcd.io/raft/v3"
)

// Compact drops the entries up to i. The snapshot must cover them. Files without
// live entries are removed in the background. It is durable on return, under every
// sync policy. It needs no space, so it works on a full disk.
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

// compact stores m, whose entries up to m.Compacted are not needed any more.
// Under NoSync the entries are synced first, so that the log reaches the snapshot.
func (d *DiskStorage) compact(m metafile.Meta) error {
	if err := d.syncData(); err != nil {
		return err
	}
	next := d.next
	if d.tail != nil {
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
	return d.commitCompaction(m)
}

// commitCompaction makes m durable, and then lets go of the files below m.FirstFile and of
// the snapshot file that m replaces.
func (d *DiskStorage) commitCompaction(m metafile.Meta) error {
	old := d.meta.Meta()
	m.HardState = d.hard
	if err := d.meta.Commit(m); err != nil {
		return err
	}
	d.syncer.finishAll() // entries that are not synced are not live
	var live, dead []segment
	for _, s := range d.files {
		if s.file.Number() < m.FirstFile {
			dead = append(dead, s)
		} else {
			live = append(live, s)
		}
	}
	d.files = live
	d.mu.Lock()
	d.view.cache.dropBelow(m.Compacted.Index + 1)
	d.publishSegments()
	d.publishTail()
	d.mu.Unlock()
	d.noteRetired(&old, &m)
	var gone []cleanup.Dead
	for _, s := range dead {
		gone = append(gone, d.deadFile(s.file))
		d.forget(s.file)
	}
	if old.SnapshotInFile && old.Snapshot != m.Snapshot {
		gone = append(gone, cleanup.Dead{Name: metafile.SnapshotName(old.Snapshot), Plain: old.SnapshotPlain})
	}
	d.remover.Remove(gone...)
	return nil
}

// deadFile is an entry file to be removed, or kept as a spare: but one that is not
// encrypted is no spare of an encrypted log, since what it holds would stay.
func (d *DiskStorage) deadFile(f *entryfile.File) cleanup.Dead {
	dead := deadName(entryfile.Name(f.Number()))
	dead.Release = func() { d.releaseDead(f) } // unmapping takes its time
	dead.Plain = d.meta.Meta().Encrypted && !f.Encrypted()
	if f.Size() == entryfile.SizeFor(d.opts.FileDataSize) && !dead.Plain {
		if spare := entryfile.SpareName(f.Number()); !slices.Contains(d.foreign, spare) {
			dead.Spare, dead.Closed = spare, f.Closed
		}
	}
	return dead
}

func deadName(name string) cleanup.Dead { return cleanup.Dead{Name: name} }

// releaseDead gives up the log's hold on a dead file; reads under way keep theirs.
func (d *DiskStorage) releaseDead(f *entryfile.File) {
	d.releaseFile(f)
	d.count.files.die(f)
}

func (d *DiskStorage) releaseFile(f *entryfile.File) {
	if err := f.Release(); err != nil {
		d.log.Warn("raftwal: file not closed cleanly", "file", f.Path(), "err", err)
	}
}
