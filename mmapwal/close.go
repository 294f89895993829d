package mmapwal

import (
	"errors"
	"slices"
)

// Sync makes everything durable that was saved, under every sync policy, the
// commit index and the checkpoint included.
//
// Errors: ErrPoisoned, ErrClosed, ErrReadOnly.
func (d *DiskStorage) Sync() error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.writable(); err != nil {
		return err
	}
	return d.poison(d.syncAll())
}

func (d *DiskStorage) syncAll() error {
	if err := d.syncData(); err != nil {
		return err
	}
	m := d.meta.Meta()
	m.Durable, m.HardState = d.durable(), d.hard
	if err := d.meta.Commit(m); err != nil {
		return err
	}
	d.syncer.finishAll()
	d.publishMeta()
	return nil
}

// Close makes everything durable, under every sync policy, records that the log
// was closed cleanly, and gives the directory up. It waits for the calls that
// are under way, and for the done functions of SaveAsync; later calls return
// ErrClosed, but for Close, which returns nil. After ErrPoisoned it stores nothing,
// and returns that error. After any other error, ErrNoSpace among them, nothing that was
// promised is lost, and the log is closed, but not cleanly: the next Open recovers it.
func (d *DiskStorage) Close() error {
	d.closing.Lock()
	defer d.closing.Unlock()
	if d.isClosed() {
		return nil
	}
	d.refuse()
	d.finishCalls()
	d.writing.Lock()
	defer d.writing.Unlock()
	err := d.poisoned()
	if err == nil && !d.opts.ReadOnly {
		err = noSpace(d.settle())
	}
	d.released = true
	return errors.Join(err, d.release())
}

// refuse has later calls answered with ErrClosed.
func (d *DiskStorage) refuse() {
	d.writing.Lock()
	defer d.writing.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.view.closed = true
	d.terms.Store(nil)
}

// finishCalls waits for the calls that are under way, and for the background.
func (d *DiskStorage) finishCalls() {
	d.reads.Wait()
	if d.opts.ReadOnly {
		return
	}
	d.syncer.saves.Wait()
	d.stopTimers()
	d.syncer.flusher.Wait()
	d.syncer.teller.Wait()
	d.stopAhead()
	d.remover.Remove() // what failed before is tried once more
	d.remover.Wait()
}

// stopTimers ends the timers, which else keep the log in memory until their time is over.
func (d *DiskStorage) stopTimers() {
	d.syncer.timer.Stop()
	d.ahead.sealTimer.Stop()
}

func (d *DiskStorage) isClosed() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.view.closed
}

// settle leaves on disk what a clean log has: everything synced, slots that show
// the live entries only, and pages 0 and 1 of wal.meta equal and clean.
//
// A log that nothing was stored to is left as it was found.
func (d *DiskStorage) settle() error {
	if !d.meta.Stored() && !d.healed() {
		return nil
	}
	if err := d.ensureFound(); err != nil {
		return err
	}
	if err := d.begin(); err != nil {
		return err
	}
	if err := d.sealAll(); err != nil {
		return err
	}
	if err := d.syncData(); err != nil { // has nothing sealed in the background by now
		return err
	}
	if err := d.unmakeNext(); err != nil {
		return err
	}
	if d.tail != nil {
		if err := d.settleTail(); err != nil {
			return err
		}
	}
	// From the last file to the first. If this stops half-way, earlier files show more than
	// counts. Were they cut first, there would be a gap in front of a later one.
	for _, s := range slices.Backward(d.files) {
		if s.file == d.tail {
			continue
		}
		if err := s.file.Reseal(s.last); err != nil {
			// What a later file supersedes stays in the index of this file; the next Open knows better.
			d.log.Warn("raftwal: slots not rewritten at close", "file", s.file.Path(), "err", err)
			if !errors.Is(err, ErrCorrupt) {
				return err
			}
		}
	}
	m := d.meta.Meta()
	m.Durable, m.HardState = d.durable(), d.hard
	var err error
	if m.Stamp, err = d.stamp(&m); err != nil {
		return err
	}
	return d.meta.CommitClean(m)
}

// healed reports whether damaged slots of a file were rebuilt, and are to be written.
func (d *DiskStorage) healed() bool {
	return slices.ContainsFunc(d.files, func(s segment) bool { return s.file.Healed() })
}

// settleTail makes the tail's slots durable; an encrypted one is sealed, since the
// next Open does not continue it, and then need not read it.
func (d *DiskStorage) settleTail() error {
	if d.tail.Encrypted() && !d.tailIsFresh() {
		return d.tail.Seal()
	}
	return d.tail.SyncSlots()
}

// release closes the directory and all files; the lock goes with wal.meta.
func (d *DiskStorage) release() error {
	err := d.releaseFiles()
	if d.fsys != nil {
		err = errors.Join(err, d.fsys.Close())
	}
	return err
}

func (d *DiskStorage) releaseFiles() error {
	d.stopAhead()
	if d.remover != nil {
		d.remover.Wait()
	}
	var errs []error
	for _, f := range d.ahead.takeRetired() { // of a log that was poisoned
		errs = append(errs, f.Release())
	}
	if f := d.ahead.next; f != nil {
		errs = append(errs, f.Release())
	}
	for _, s := range d.files {
		errs = append(errs, s.file.Release())
	}
	if d.snapshot != nil {
		errs = append(errs, d.snapshot.Close())
	}
	if d.meta != nil {
		errs = append(errs, d.meta.Close())
	}
	return errors.Join(errs...)
}
