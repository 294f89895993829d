package mmapwal

import "time"

// Stats are figures about an open log. They are cheap to get.
type Stats struct {
	RaftID, GroupID       uint64
	FirstIndex, LastIndex uint64
	SnapshotIndex         uint64
	Files                 int // entry files with entries

	// Encrypted says whether the log is encrypted, PlainFiles how many of its files,
	// a snapshot file among them, are from before that, and are not.
	Encrypted  bool
	PlainFiles int

	// FilesRemoved counts dead files that were removed since Open.
	FilesRemoved uint64
	// FailedRemovals says which dead files could not be removed, and why, by base
	// name. They are tried again with the next compaction and at Close and Open.
	FailedRemovals map[string]error
	// HealedFiles counts the sealed files whose damaged slots were rebuilt from
	// the records since Open.
	HealedFiles int

	// Poisoned is the sticky error after a failed sync or write; nil if all is well.
	Poisoned error

	Recovery Recovery
}

// Recovery says what Open found and did.
type Recovery struct {
	Clean        bool          // the last run ended with Close
	Duration     time.Duration // of Open
	FilesScanned int           // entry files whose records were read
	Entries      uint64        // live entries in them
	TornBytes    int64         // behind the last whole record; they were never promised
	HealedPages  int           // pages of wal.meta that were written anew from others
	SetAside     []string      // paths of the .corrupt files that KeepValidPrefix made
}

// Stats returns the current figures. It works on a closed log, too.
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
		s.Poisoned = v.poisoned
	}
	for _, seg := range v.segments {
		if seg.file.Healed() {
			s.HealedFiles++
		}
		if s.Encrypted && !seg.file.Encrypted() {
			s.PlainFiles++
		}
	}
	if v.meta.SnapshotPlain {
		s.PlainFiles++
	}
	if d.remover != nil {
		removals := d.remover.Stats()
		s.FilesRemoved, s.FailedRemovals = removals.Removed, removals.Failed
	}
	return s
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
