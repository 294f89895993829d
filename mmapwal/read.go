package mmapwal

import (
	"errors"
	"io/fs"
	"path/filepath"
	"sort"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// snapshotView returns a copy of the view.
func (d *DiskStorage) snapshotView() *view {
	d.mu.RLock()
	defer d.mu.RUnlock()
	v := d.view
	return &v
}

// beginRead returns the view for a read that calls d.reads.Done at its end.
func (d *DiskStorage) beginRead() (v view, err error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.view.closed {
		return view{}, ErrClosed
	}
	d.reads.Add(1)
	return d.view, nil
}

// InitialState implements raft.Storage. The hard state, that of HardState, is nil if none
// was ever saved; the conf state, that of the newest snapshot, is never nil. Both are the
// caller's. ErrClosed.
//
// The commit index may be older than the last one that was saved, since it alone needs no
// sync. A state machine that is durable by itself may have applied entries beyond it, and raft
// panics if it is told so.
//
// Set raft.Config.Applied to the index of the newest snapshot, at every start. Raft then hands
// out all that is committed behind it. A state machine that has applied some of these entries
// leaves them out by their index, but for conf changes: they go to ApplyConfChange again, since
// the conf state is that of the snapshot. With a larger Applied the node would count votes by the
// members of then. With 0, raft begins at FirstIndex: where RetainEntries keeps entries below the
// snapshot, it hands them out again, and panics if TruncateEntriesUntil has cleared them.
func (d *DiskStorage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	v, err := d.beginRead()
	if err != nil {
		return nil, nil, err
	}
	defer d.reads.Done()
	snap, err := v.meta.SnapshotProto()
	if err != nil {
		return nil, nil, err
	}
	cs := snap.GetMetadata().GetConfState()
	if !v.hard.Stored {
		return nil, cs, nil
	}
	return v.hardState(), cs, nil
}

func (v *view) hardState() *raftpb.HardState {
	h := v.hard
	if !h.Stored {
		return &raftpb.HardState{}
	}
	return &raftpb.HardState{Term: &h.Term, Vote: &h.Vote, Commit: &h.Commit}
}

// FirstIndex implements raft.Storage: the index behind the compaction, that of the first entry,
// if there is one. Its data may have been cleared (TruncateEntriesUntil). It does not
// allocate. ErrClosed.
func (d *DiskStorage) FirstIndex() (uint64, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.view.closed {
		return 0, ErrClosed
	}
	return d.view.first(), nil
}

// LastIndex implements raft.Storage: the index of the last entry, or that of the
// snapshot if there is none behind it. It does not allocate. ErrClosed.
func (d *DiskStorage) LastIndex() (uint64, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.view.closed {
		return 0, ErrClosed
	}
	return d.view.last, nil
}

// Term implements raft.Storage: the term of entry i, which may be the one in
// front of FirstIndex. It does not allocate.
//
// Errors: raft.ErrCompacted, raft.ErrUnavailable; *CorruptError, ErrFault,
// ErrClosed.
func (d *DiskStorage) Term(i uint64) (term uint64, err error) {
	if term, ok := d.knownTerm(i); ok {
		return term, nil
	}
	for again := true; again; again = err == errGone {
		term, err = d.readTerm(i)
	}
	d.count.failedRead(err)
	return term, err
}

// knownTerm returns the term of an entry if it is in memory.
func (d *DiskStorage) knownTerm(i uint64) (uint64, bool) {
	if term, ok := d.terms.Load().term(i); ok {
		return term, true
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	v := &d.view
	if v.closed || i <= v.meta.Compacted.Index || !v.tailIndex.Has(i) {
		return 0, false
	}
	return v.tailIndex.Term(i), true
}

func (d *DiskStorage) readTerm(i uint64) (uint64, error) {
	v, err := d.beginRead()
	if err != nil {
		return 0, err
	}
	defer d.reads.Done()
	term, err := d.term(&v, i)
	switch {
	case d.goneSince(&v, err):
		return 0, errGone
	case d.overtaken(&v, i, err):
		return 0, raft.ErrCompacted
	}
	return term, err
}

// goneSince reports whether a read did not find a file only because a compaction has
// removed it after the view v was taken.
func (d *DiskStorage) goneSince(v *view, err error) bool {
	return errors.Is(err, fs.ErrNotExist) && d.snapshotView().meta.FirstFile != v.meta.FirstFile
}

// overtaken reports whether a read of a log that is open for reading only found damage, or no
// file, because the owner has dropped the entries from index i on since, and removed their
// file or uses it again; or has cleared what it had replaced.
func (d *DiskStorage) overtaken(v *view, i uint64, err error) bool {
	if !d.opts.ReadOnly || !lookedLost(err) || i <= v.meta.Compacted.Index || i > v.last {
		return false
	}
	f := v.tail
	if !v.tailIndex.Has(i) {
		f = v.segmentOf(i).file
	}
	d.refreshing.Lock()
	defer d.refreshing.Unlock()
	if d.meta.Refresh() != nil {
		return false
	}
	now := d.meta.Meta()
	return now.FirstFile > f.Number() || now.ClearedEnd != d.found.ClearedEnd && standsBefore(err, now.ClearedEnd)
}

// standsBefore reports whether the damaged record of an error stands in front of end, where all
// that was replaced or cleared may have been punched out.
func standsBefore(err error, end metafile.End) bool {
	var damage *CorruptError
	if !errors.As(err, &damage) {
		return false
	}
	number, ok := entryfile.ParseName(filepath.Base(damage.File))
	return ok && (number < end.File || number == end.File && damage.Offset < end.Offset)
}

// lookedLost: it may be that another process took what was read away.
func lookedLost(err error) bool {
	return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrFault) || errors.Is(err, fs.ErrNotExist)
}

func (d *DiskStorage) term(v *view, i uint64) (uint64, error) {
	switch {
	case i < v.meta.Compacted.Index:
		return 0, raft.ErrCompacted
	case i == v.meta.Compacted.Index:
		return v.meta.Compacted.Term, nil
	case i > v.last:
		return 0, raft.ErrUnavailable
	case v.tailIndex.Has(i):
		return v.tailIndex.Term(i), nil
	}
	s := v.segmentOf(i)
	if !s.file.Pin() {
		return 0, errGone
	}
	loc, err := s.file.Locate(s.index, i)
	d.noteHealed(s.file)
	_ = s.file.Release() // the last release closes a dead file; nothing is lost with it
	return loc.Term, err
}

// locate returns where the record of entry i stands, for the writer, whose view
// has only open files.
func (d *DiskStorage) locate(v *view, i uint64) (metafile.End, error) {
	s := segment{file: v.tail, index: &v.tailIndex}
	if !v.tailIndex.Has(i) {
		s = v.segmentOf(i)
	}
	loc, err := s.file.Locate(s.index, i)
	return metafile.End{File: s.file.Number(), Offset: loc.Record}, err
}

// errGone: a file of the view was compacted away before the read pinned it. The
// read starts again with the present view.
var errGone = errors.New("the file is gone")

// segmentOf returns the segment that holds entry i, which is in the log and not
// in the tail.
func (v *view) segmentOf(i uint64) segment {
	k := sort.Search(len(v.segments), func(k int) bool { return v.segments[k].last >= i })
	return v.segments[k]
}

// Entries implements raft.Storage: the entries [lo, hi), or as many of them as
// have a proto.Size of maxSize bytes in all, but at least one. Each is checked
// against its checksum. What is copied takes three allocations for each file and MiB,
// however many entries that is. Entries that were saved last are not copied, but those
// that were handed to Save (see Options.CacheSize): they must not be changed. They stay
// valid after compaction and Close; they share memory, so one that is kept keeps a MiB
// of them.
//
// Errors: raft.ErrCompacted if lo is below FirstIndex, or the data of one of the entries was
// cleared (TruncateEntriesUntil): raft sends a snapshot then; or, of a log that is open for
// reading only, if the owner has dropped them since; raft.ErrUnavailable if
// the log is empty or hi is beyond LastIndex+1; ErrInvalid if lo is above hi;
// *CorruptError, ErrFault, ErrClosed.
func (d *DiskStorage) Entries(lo, hi, maxSize uint64) (es []*raftpb.Entry, err error) {
	if es, ok := d.readCache(lo, hi, maxSize); ok {
		d.count.read(es, nil)
		return es, nil
	}
	for again := true; again; {
		es, again, err = d.readEntries(lo, hi, maxSize)
	}
	d.count.read(es, err)
	return es, err
}

// readCache reads entries that were saved a short time ago.
func (d *DiskStorage) readCache(lo, hi, maxSize uint64) ([]*raftpb.Entry, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.view.closed || lo < d.view.first() {
		return nil, false
	}
	return d.view.cache.read(lo, hi, maxSize)
}

func (d *DiskStorage) readEntries(lo, hi, maxSize uint64) (es []*raftpb.Entry, again bool, err error) {
	v, err := d.beginRead()
	if err != nil {
		return nil, false, err
	}
	defer d.reads.Done()
	es, err = d.entries(&v, lo, hi, maxSize)
	if d.overtaken(&v, lo, err) {
		return nil, false, raft.ErrCompacted
	}
	return es, err == errGone || d.goneSince(&v, err) || d.clearedSince(&v, err), err
}

func (d *DiskStorage) entries(v *view, lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	switch {
	case lo < v.first():
		return nil, raft.ErrCompacted
	case hi > v.last+1, v.last < v.first():
		return nil, raft.ErrUnavailable
	case lo > hi:
		return nil, invalidf("entries from %d to %d: the range is upside down", lo, hi)
	}
	b := entryfile.Batch{
		MaxBytes:     maxSize,
		ClearedBelow: v.meta.ClearedBelow, ClearedFile: v.meta.ClearedEnd.File, ClearedEnd: v.meta.ClearedEnd.Offset,
	}
	for full := false; lo < hi && !full; {
		f, x, end := v.tail, &v.tailIndex, hi
		if !v.tailIndex.Has(lo) {
			s := v.segmentOf(lo)
			f, x, end = s.file, s.index, min(hi, s.last+1)
		}
		if !f.Pin() {
			return nil, errGone
		}
		var err error
		full, err = f.Read(x, lo, end, &b)
		d.noteHealed(f)
		_ = f.Release() // the last release closes a dead file; nothing is lost with it
		if err == entryfile.ErrCleared {
			return nil, raft.ErrCompacted
		}
		if err != nil {
			return nil, err
		}
		lo = end
	}
	return b.Entries(), nil
}

// clearedSince reports whether a read found damage only because the entries'
// data was cleared after the view v was taken, by the owner of a log that is
// open for reading here, too.
func (d *DiskStorage) clearedSince(v *view, err error) bool {
	if !errors.Is(err, ErrCorrupt) {
		return false
	}
	if d.opts.ReadOnly {
		d.refreshCleared()
	}
	now := d.snapshotView().meta
	return now.ClearedBelow != v.meta.ClearedBelow || now.ClearedEnd != v.meta.ClearedEnd
}

// refreshCleared takes over from the owner which data is cleared.
func (d *DiskStorage) refreshCleared() {
	d.refreshing.Lock()
	defer d.refreshing.Unlock()
	if d.meta.Refresh() != nil {
		return // what the read found stands
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.meta.Meta()
	d.view.meta.ClearedBelow, d.view.meta.ClearedEnd = m.ClearedBelow, m.ClearedEnd
}
