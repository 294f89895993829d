package mmapwal

import (
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// Stats are figures about an open log. What is counted is counted since Open.
// docs/metrics.md says what to make of each; package metrics has them for
// Prometheus.
type Stats struct {
	Opened time.Time // when Open was called

	RaftID, GroupID       uint64
	FirstIndex, LastIndex uint64
	SnapshotIndex         uint64
	// LastSnapshot is when the newest snapshot was stored; zero if there is none, or
	// if an earlier run stored it in wal.meta, which does not say.
	LastSnapshot time.Time

	// SaveTime has the seconds of each call of Save that returned nil, the wait for
	// others included, and of each SaveAsync up to its done function; WaitTime those of
	// the wait for other writers alone.
	SaveTime, WaitTime Histogram
	// SyncTime has the seconds of each sync of entries; SyncEntries and SyncSaves say
	// how many entries, and Saves with entries, were made durable by one. To seal a
	// full file counts as a sync if it has entries that were not synced. The syncs of
	// wal.meta, for a changed term or vote and for a snapshot, are in SaveTime only.
	SyncTime, SyncEntries, SyncSaves Histogram
	// SlowSyncs counts the syncs of entries that took Options.SlowSync or longer.
	SlowSyncs uint64
	// SaveErrors counts the Saves that failed, NoSpace those of them for which there
	// was no room.
	SaveErrors, NoSpace uint64
	// PendingSaves counts calls of SaveAsync whose done function has not returned.
	PendingSaves int

	// AppendedEntries and ReadEntries count entries as Save took and Entries returned
	// them; the bytes are those of their data.
	AppendedEntries, AppendedBytes uint64
	ReadEntries, ReadBytes         uint64
	// UnsyncedEntries and UnsyncedBytes are appended, and may be lost in a power cut;
	// the bytes are those of the records.
	UnsyncedEntries, UnsyncedBytes uint64

	// CorruptReads and Faults count the calls of Entries, Term, Snapshot and Save that
	// returned ErrCorrupt and ErrFault, but for Saves that returned ErrPoisoned.
	CorruptReads, Faults uint64

	// Rotations counts the files that were full and are followed by another,
	// Compactions how often entries were dropped from the front, by a snapshot or
	// by Compact.
	Rotations, Compactions uint64

	Files         int // entry files with entries
	SpareFiles    int // kept for use again
	PreparedFiles int // made ready to be the next
	// OldestFile is when the first entry file was begun; if an earlier run did that,
	// when that run last wrote to it. Zero if unknown, or if there is none.
	OldestFile time.Time
	// RetainedFiles are entry files that the snapshot covers, and that are kept for
	// Options.RetainEntries.
	RetainedFiles int
	// PinnedFiles are dead entry files whose space is taken as long as a read that is
	// under way uses them.
	PinnedFiles int
	// FilesRemoved counts dead files that were removed since Open.
	FilesRemoved uint64
	// FailedRemovals says which dead files could not be removed, and why, by base
	// name. They are tried again with the next compaction and at Close and Open.
	FailedRemovals map[string]error
	// HealedFiles counts the sealed files whose damaged slots were rebuilt from
	// the records since Open.
	HealedFiles int

	// Encrypted says whether the log is encrypted, PlainFiles how many files of the
	// directory are from before that, and are plain: entry files, superseded ones among
	// them, a snapshot file, dead files until they are removed, and what KeepValidPrefix
	// put aside, now or in an earlier run. 0: no file of the log holds plaintext any more;
	// the blocks of removed ones may. Of a log that is open for reading only, what is no
	// part of it counts as it was at Open.
	Encrypted  bool
	PlainFiles int

	// FreeBytes is what is free of the file system that the log is on, TotalBytes its
	// size; 0 and 0 if that is unknown.
	FreeBytes, TotalBytes int64

	// Poisoned is the sticky error after a failed sync or write; nil if all is well.
	Poisoned error

	Recovery Recovery
}

// Recovery says what Open found and did.
type Recovery struct {
	Clean        bool          // the last run ended with Close, or stored nothing
	Duration     time.Duration // of Open
	FilesScanned int           // entry files whose records were read
	Entries      uint64        // live entries in them
	TornBytes    int64         // behind the last whole record; they were never promised
	HealedPages  int           // pages of wal.meta, and header pages of entry files, that were written anew from others
	SetAside     []string      // paths of the .corrupt files that KeepValidPrefix made
}

// Stats returns the current figures. It works on a closed log, too. It takes a few
// microseconds: it waits for no disk and no writer, looks at each entry file, and
// asks the operating system for the free space (statfs), which can hang if a
// network file system does.
func (d *DiskStorage) Stats() Stats {
	d.mu.RLock()
	v := d.view
	d.mu.RUnlock()
	s := Stats{
		RaftID: v.meta.RaftID, GroupID: v.meta.GroupID,
		FirstIndex: v.first(), LastIndex: v.last, SnapshotIndex: v.meta.Snapshot.Index,
		Files: v.logFiles(), Encrypted: v.meta.Encrypted, Recovery: d.recovery,
	}
	if !v.closed {
		s.Poisoned = d.poisoned()
	}
	d.count.fill(&s)
	s.UnsyncedBytes = uint64(d.unsyncedBytes())
	s.PendingSaves, s.PreparedFiles = int(d.syncer.undone.Load()), d.ahead.prepared()
	d.fillFiles(&s, &v)
	if d.remover != nil {
		removals := d.remover.Stats()
		s.FilesRemoved, s.FailedRemovals, s.SpareFiles = removals.Removed, removals.Failed, removals.Spares
		s.PlainFiles += removals.Plain
	}
	if space, err := vfs.SpaceOf(d.fsys, d.dir); err == nil { // else unknown
		s.FreeBytes, s.TotalBytes = space.Free, space.Total
	}
	return s
}

// fillFiles puts what the view's files tell into s.
func (d *DiskStorage) fillFiles(s *Stats, v *view) {
	for _, seg := range v.segments {
		if seg.file.Healed() {
			s.HealedFiles++
		}
		if seg.last <= s.SnapshotIndex {
			s.RetainedFiles++
		}
	}
	s.PlainFiles = v.plain + d.plainAside
	if v.meta.SnapshotPlain {
		s.PlainFiles++
	}
	switch {
	case len(v.segments) > 0:
		s.OldestFile = d.count.files.begunAt(v.segments[0].file.Number())
	case v.tailIndex.Len() > 0:
		s.OldestFile = d.count.files.begunAt(v.tail.Number())
	}
}

// NumEntries returns how many entries can be read; of a closed log, how many could.
func (d *DiskStorage) NumEntries() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return int(d.view.last - d.view.meta.Compacted.Index)
}

// NumLogFiles returns how many entry files with entries there are, superseded and
// compacted ones included; of a closed log, how many there were.
func (d *DiskStorage) NumLogFiles() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.view.logFiles()
}

func (v *view) logFiles() int {
	if v.tailIndex.Len() > 0 {
		return v.files + 1
	}
	return v.files
}
