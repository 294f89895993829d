package mmapwal

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"go.etcd.io/raft/v3/raftpb"
)

// ahead does in the background what a Save would have to wait for otherwise: it makes
// the tail ready in front of the writer, makes the file that follows it, and seals
// those that take no more entries. Whatever of it fails, or is late, a Save does by
// itself.
//
// Nothing of it takes the lock of the writer, who may wait for a file that is being
// made.
type ahead struct {
	readier, maker, sealer *host.Runner
	sealTimer              *host.Timer // NoSync: has files sealed

	mu       sync.Mutex
	tail     *entryfile.File   // is made ready; nil: none
	bytes    int64             // how far, in bytes
	wish     *entryfile.Spec   // of the next file; nil: none is wanted
	next     *entryfile.File   // has its name, and no records; nil: none
	making   bool              // the next file is being made
	made     *sync.Cond        // broadcast when making ends
	failedAt int64             // end of the tail when making room failed; 0: it did not
	retired  []*entryfile.File // take no more records, in order; each is pinned

	sealing sync.Mutex // held while files are being sealed
}

const (
	// minAhead is how far the tail is made ready, in bytes: further each time the writer
	// comes to where it is not, up to maxAhead. Recovery has to read that.
	minAhead = 1 << 20
	maxAhead = 2 << 20
	// largeSave is how many bytes of records a synced Save has for which nothing is
	// made ready: it costs the disk more to write them twice than to convert extents.
	largeSave = 128 << 10
	// nextAt and nextAtUnsynced are how many eighths of a file are left when the next one
	// is made: late, since there may be a spare file by then; but without syncs a file is
	// full soon, and making one takes syncs.
	nextAt         = 2
	nextAtUnsynced = 7
	// maxRetired and maxRetiredBytes are how many files wait to be sealed, or how many
	// bytes of records they hold, before a Save waits for one: the disk cannot keep up
	// then. Recovery has to read them. Two may wait, however large they are.
	maxRetired      = 128
	maxRetiredBytes = 512 << 20
	// sealDelay is when a file of a log that is not synced is sealed, which syncs it:
	// by then the kernel has written most of it.
	sealDelay = 30 * time.Second
)

func (d *DiskStorage) startAhead() {
	a := &d.ahead
	d.readyBytes = minAhead
	a.made = sync.NewCond(&a.mu)
	a.readier = host.NewRunner(d.host, d.readyTail)
	a.maker = host.NewRunner(d.host, d.makeNext)
	a.sealer = host.NewRunner(d.host, d.sealRetired)
	a.sealTimer = host.NewTimer(d.host, a.sealer.Wake)
}

// lookAhead has made ready what the next Saves are going to need. It is called when
// one has stored its entries, of so many bytes.
func (d *DiskStorage) lookAhead(bytes int64) {
	if !d.nextWanted && d.wantsNext() {
		d.wishNext()
	}
	if bytes >= largeSave {
		return
	}
	tail := d.tail
	need := min(d.readyBytes, tail.Expected())
	if tail.Ahead(need / 2) {
		return
	}
	if tail.Outrun() && d.readyBytes < maxAhead {
		d.readyBytes *= 2
	}
	// What failed is tried again when the writer has come further, a wish for the next file
	// that was not fulfilled among it.
	a := &d.ahead
	a.mu.Lock()
	a.tail, a.bytes = tail, need
	late := a.failedAt != 0 && tail.End() < a.failedAt+minAhead
	wished := a.wish != nil && a.next == nil
	a.mu.Unlock()
	if late {
		return
	}
	if wished {
		a.maker.Wake()
	}
	a.readier.Wake()
}

// wantsNext reports whether it is time for the next file to be made.
func (d *DiskStorage) wantsNext() bool {
	at := int64(nextAt)
	if d.opts.Sync.mode == noSync {
		at = nextAtUnsynced
	}
	free, entries := d.tail.Free()
	return free < d.opts.FileDataSize/8*at || int64(entries) < entryfile.MaxSlots/8*at
}

// wishNext has the next file made, which follows the last one.
func (d *DiskStorage) wishNext() {
	spec, err := d.nextSpec(d.next, d.before(&plan{}))
	if err != nil {
		return // the Save that needs the file will meet the same
	}
	d.nextWanted = true
	d.ahead.mu.Lock()
	d.ahead.wish = &spec
	d.ahead.mu.Unlock()
	d.ahead.maker.Wake()
}

// readyTail makes the tail ready, piece by piece.
func (d *DiskStorage) readyTail() {
	for d.poisoned() == nil {
		a := &d.ahead
		a.mu.Lock()
		tail, bytes := a.tail, a.bytes
		a.mu.Unlock()
		if tail == nil || tail.Ahead(bytes) || !tail.Pin() {
			return
		}
		err := tail.ReadyAhead(bytes)
		_ = tail.Release()
		if err != nil {
			d.noteLate(err)
			return
		}
	}
}

// noteLate remembers that there is no room ahead, so that it is not tried again with
// each Save. After a failed sync the log takes no more writes.
func (d *DiskStorage) noteLate(err error) {
	if vfs.SyncFailed(err) {
		_ = d.poison(err)
		return
	}
	a := &d.ahead
	a.mu.Lock()
	first := a.failedAt == 0
	if a.tail != nil {
		a.failedAt = a.tail.End()
	}
	a.mu.Unlock()
	if first {
		d.log.Warn("raftwal: no room made ahead; Saves go on, slower, while there is space", "dir", d.dir, "err", err)
	}
}

// makeNext makes the next file, of a spare one if there is one.
func (d *DiskStorage) makeNext() {
	a := &d.ahead
	a.mu.Lock()
	spec := a.wish
	a.making = spec != nil && a.next == nil && d.poisoned() == nil
	begun := a.making
	a.mu.Unlock()
	if !begun {
		return
	}
	f, err := d.makeFile(*spec, 0)
	if err != nil {
		d.noteLate(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.making = false
	a.made.Broadcast()
	if err == nil {
		a.wish, a.next, a.failedAt = nil, f, 0
	}
}

// takeNext returns the file that was made ahead, nil if there is none. It waits for
// one that is being made.
func (d *DiskStorage) takeNext() *entryfile.File {
	a := &d.ahead
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.making {
		a.made.Wait()
	}
	f := a.next
	a.next, a.wish = nil, nil
	d.nextWanted = false
	return f
}

// takeNextFor is takeNext for the entries es. A file that is too small for the first of them is
// removed: it would stay in the log without an entry.
func (d *DiskStorage) takeNextFor(es []*raftpb.Entry) (*entryfile.File, error) {
	f := d.takeNext()
	if f == nil || len(es) == 0 {
		return f, nil
	}
	if count, _ := f.Room(es); count > 0 {
		return f, nil
	}
	if err := d.fsys.Remove(f.Path()); err != nil {
		d.giveNext(f)
		return nil, err
	}
	return nil, errors.Join(f.Release(), d.fsys.SyncDir(d.dir))
}

// prepared returns how many files are made to be the next.
func (a *ahead) prepared() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next == nil {
		return 0
	}
	return 1
}

// giveNext takes a file back that was not used, as the next one.
func (d *DiskStorage) giveNext(f *entryfile.File) {
	d.ahead.mu.Lock()
	d.ahead.next = f
	d.ahead.mu.Unlock()
	d.nextWanted = true
}

// makeFile makes a file that has its name, of a spare one if there is one.
func (d *DiskStorage) makeFile(spec entryfile.Spec, bytes int64) (*entryfile.File, error) {
	f, err := d.reuse(spec, bytes)
	if f == nil && err == nil {
		f, err = entryfile.Prepare(d.fsys, d.dir, spec, bytes)
	}
	if err != nil {
		return nil, err
	}
	if err := f.Publish(); err != nil {
		f.Discard()
		return nil, err
	}
	return f, nil
}

// reuse makes a file of a spare one; nil if there is none that can serve. A spare
// that cannot is removed.
func (d *DiskStorage) reuse(spec entryfile.Spec, bytes int64) (*entryfile.File, error) {
	for {
		spare := d.remover.TakeSpare()
		if spare == "" {
			return nil, nil
		}
		f, err := entryfile.Reuse(d.fsys, d.dir, spare, spec, bytes)
		if err == nil || vfs.SyncFailed(err) {
			return f, err
		}
		if !errors.Is(err, entryfile.ErrUnfit) {
			d.log.Warn("raftwal: spare file not used", "dir", d.dir, "file", spare, "err", err)
		}
		d.remover.Remove(deadName(spare))
	}
}

// retire hands a file that takes no more records over to be sealed: by the sync that makes
// its last ones durable, or later if there is none. It waits for a seal if too much is not
// sealed yet.
func (d *DiskStorage) retire(f *entryfile.File) error {
	f.Pin()
	d.count.ended(f.Number())
	a := &d.ahead
	a.mu.Lock()
	a.retired = append(a.retired, f)
	files, bytes := len(a.retired), a.retiredBytes()
	a.mu.Unlock()
	switch {
	case tooMuch(files, bytes):
		a.sealer.Wake() // this one may not be enough
		_, err := d.sealNext()
		return err
	case d.opts.Sync.mode != noSync:
	case tooMuch(2*files, 2*bytes):
		a.sealer.Wake()
	default:
		a.sealTimer.Start(sealDelay)
	}
	return nil
}

// tooMuch reports whether so many files, with so many bytes of records, are more than
// should wait to be sealed.
func tooMuch(files int, bytes int64) bool {
	return files > maxRetired || files > 2 && bytes > maxRetiredBytes
}

// retiredBytes returns how many bytes of records the files hold that take no more of
// them and are not sealed yet; mu is held.
func (a *ahead) retiredBytes() (n int64) {
	for _, f := range a.retired {
		n += f.End() - entryfile.DataStart
	}
	return n
}

// unsealed returns the files that take no more records and are not sealed yet.
func (d *DiskStorage) unsealed() []*entryfile.File {
	d.ahead.mu.Lock()
	defer d.ahead.mu.Unlock()
	return slices.Clone(d.ahead.retired)
}

// takeRetired returns the same, and leaves none.
func (a *ahead) takeRetired() []*entryfile.File {
	a.mu.Lock()
	defer a.mu.Unlock()
	files := a.retired
	a.retired = nil
	return files
}

// sealRetired is what the sealer does. Files whose entries a sync is going to make durable
// are left to that: it would wait for the sealer, and with it Saves.
func (d *DiskStorage) sealRetired() {
	for d.poisoned() == nil && (d.opts.Sync.mode == noSync || d.ahead.canSeal()) {
		if more, err := d.sealNext(); err != nil || !more {
			_ = d.poison(err)
			return
		}
	}
}

// canSeal reports whether there is a file to be sealed next, and its entries are durable.
func (a *ahead) canSeal() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.retired) > 0 && a.retired[0].Durable() == a.retired[0].End()
}

// sealAll seals the files that take no more records, one after another.
func (d *DiskStorage) sealAll() error {
	for {
		if more, err := d.sealNext(); err != nil || !more {
			return err
		}
	}
}

// sealNext seals the oldest file that takes no more records; more is false if there is
// none.
func (d *DiskStorage) sealNext() (more bool, err error) {
	d.ahead.sealing.Lock()
	defer d.ahead.sealing.Unlock()
	files := d.unsealed()
	if len(files) == 0 {
		return false, nil
	}
	f := files[0]
	if !f.Pin() {
		return true, nil // dead at this moment
	}
	s := d.count.beginSeal(f.Number())
	err = f.Seal()
	_ = f.Release()
	if err != nil {
		return false, err
	}
	d.endSync(s)
	d.forget(f)
	return true, nil
}

// forget lets go of a retired file.
func (d *DiskStorage) forget(f *entryfile.File) {
	a := &d.ahead
	a.mu.Lock()
	k := slices.Index(a.retired, f)
	if k >= 0 {
		a.retired = slices.Delete(a.retired, k, k+1)
	}
	a.mu.Unlock()
	if k >= 0 {
		d.releaseFile(f)
	}
}

// syncData makes the entries durable that were stored before it began.
func (d *DiskStorage) syncData() error { return d.syncFiles(d.count.beginSync(), d.tail) }

// syncFiles syncs the files that take no more records, and then the tail (nil: none): in
// their order, since a record that is durable vouches for all earlier files. Then the former
// are sealed.
func (d *DiskStorage) syncFiles(s syncing, tail *entryfile.File) error {
	some, err := d.syncRetired()
	if err != nil {
		return err
	}
	if tail != nil {
		if err := tail.Sync(); err != nil {
			return err
		}
	}
	d.endSync(s)
	if some && d.opts.Sync.mode != noSync {
		d.ahead.sealer.Wake()
	}
	return nil
}

// syncRetired syncs the files that take no more records; some is false if there is none.
func (d *DiskStorage) syncRetired() (some bool, err error) {
	files := d.unsealed()
	for _, f := range files {
		if !f.Pin() {
			continue // sealed and dead by now
		}
		err := f.Sync()
		_ = f.Release()
		if err != nil {
			return true, err
		}
	}
	return len(files) > 0, nil
}

// durable returns how far the entries were synced.
func (d *DiskStorage) durable() metafile.End {
	f := d.ahead.firstUnsynced()
	if f == nil {
		f = d.tail
	}
	if f == nil {
		return d.meta.Meta().Durable
	}
	return durableEnd(f)
}

// firstUnsynced returns the first file that takes no more records, and has some that were
// not synced; nil if there is none.
func (a *ahead) firstUnsynced() *entryfile.File {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range a.retired {
		if f.Durable() < f.End() {
			return f
		}
	}
	return nil
}

// unsynced returns how many bytes of records such files have that were not synced.
func (a *ahead) unsynced() (n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range a.retired {
		n += f.Unsynced()
	}
	return n
}

func durableEnd(f *entryfile.File) metafile.End {
	return metafile.End{File: f.Number(), Offset: max(f.Durable(), entryfile.DataStart), Salt: f.Salt()}
}

// stopAhead waits for what is being done in the background.
func (d *DiskStorage) stopAhead() {
	if d.ahead.readier == nil {
		return // open for reading only
	}
	d.ahead.readier.Wait()
	d.ahead.maker.Wait()
	d.ahead.sealer.Wait()
}

// unmakeNext takes its name from the next file, durably, so that a closed log ends
// with the tail.
func (d *DiskStorage) unmakeNext() error {
	f := d.takeNext()
	switch {
	case f == nil:
		return nil
	case d.remover.Stats().Spares < d.opts.SpareFiles:
		return f.Unpublish()
	}
	return d.unmake(f)
}

// unmake removes a file that has its name, and was not used, durably.
func (d *DiskStorage) unmake(f *entryfile.File) error {
	if err := errors.Join(f.Release(), d.fsys.Remove(f.Path())); err != nil {
		return err
	}
	return d.fsys.SyncDir(d.dir)
}
