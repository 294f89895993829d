package mmapwal

import (
	"sort"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
)

// TruncateEntriesUntil clears the data of the normal entries with an index below
// lastIdx, for good. The snapshot must cover them: it is for entries that RetainEntries keeps
// for their terms. Term still answers for them, also after a crash; Entries returns
// raft.ErrCompacted, upon which raft sends the snapshot. So raft must not start below it: see
// InitialState. Conf changes keep their data. FirstIndex stays. The disk blocks of sealed files
// are given back where the file system can; those of the file that is being appended to, when it
// is compacted. It is durable on return, under every sync policy. An entry that is written anew
// below lastIdx has its data.
//
// Errors: ErrInvalid if lastIdx is beyond the snapshot's index + 1; ErrNoSpace, only if the log
// was copied with holes; ErrPoisoned, ErrClosed, ErrReadOnly, *CorruptError, ErrFault.
func (d *DiskStorage) TruncateEntriesUntil(lastIdx uint64) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.roomy(); err != nil {
		return err
	}
	if covered := d.view.meta.Snapshot.Index; lastIdx > covered && lastIdx-1 > covered {
		return invalidf("clear the data below entry %d: the snapshot covers entries up to %d only; create a newer one first", lastIdx, covered)
	}
	return d.clear(lastIdx)
}

// clear clears the data of entries below an index; writing is held.
func (d *DiskStorage) clear(lastIdx uint64) error {
	v := &d.view
	done, err := d.clearedBelow(v)
	if err != nil {
		return err
	}
	below := min(lastIdx, v.last+1)
	if below <= done {
		return nil
	}
	if d.syncer.pending() || d.opts.Sync.mode == noSync { // what is committed has been synced
		if err := d.syncHardState(); err != nil {
			return d.poison(err)
		}
	}
	m := d.meta.Meta()
	m.ClearedBelow, m.ClearedEnd = below, d.end()
	if err := d.meta.Commit(m); err != nil {
		return d.poison(err)
	}
	d.mu.Lock()
	d.view.meta = d.meta.Meta()
	d.view.cache.dropBelow(below)
	d.mu.Unlock()
	if err := d.sealAll(); err != nil { // only a sealed file gives blocks back
		return d.poison(err)
	}
	for _, s := range d.files {
		if s.file == d.tail || d.backups.Load() > 0 { // a backup reads the blocks; a later call gives them back
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
	until, err := s.file.ClearEnd(min(below, s.last+1))
	if err != nil {
		return err
	}
	extents, err := s.file.Clear(until)
	if err == nil {
		err = s.file.Punch(extents)
	} else if !vfs.OpenFailed(err) {
		return d.poison(err)
	}
	if err != nil { // a later call may
		d.log.Debug("raftwal: blocks of cleared entries not given back", "file", s.file.Path(), "err", err)
	}
	return nil
}
