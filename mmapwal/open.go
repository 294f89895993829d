package mmapwal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/seed-2fef92ad/raftwal/cleanup"
	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"go.etcd.io/raft/v3/raftpb"
)

// Init opens the log in dir, or makes a new one there, with the default options.
func Init(dir string) (*DiskStorage, error) { return Open(dir, nil) }

// InitEncrypted is Init for a log that is encrypted with a master key of 16, 24
// or 32 bytes. A log without a key becomes an encrypted one; see Options.Key.
// ErrKeyLength, ErrWrongKey.
func InitEncrypted(dir string, key []byte) (*DiskStorage, error) {
	if key == nil {
		key = []byte{}
	}
	return Open(dir, &Options{Key: key})
}

// Open opens the log in dir, or makes a new one there (directory 0700, files
// 0600) if dir is empty or missing. Do that once in the life of a node: at every later start
// set Options.MustExist, or a log that was lost, or whose volume is not mounted, is replaced by
// a blank one. nil options are the default ones: HardSync.
//
// The log stays in the directory that dir leads to now, wherever that is moved, and wherever
// the process goes; dir may be a link, or lead through one. What is no regular file under
// the name of one of its files is refused. Of many that open a new log at once one gets it.
//
// After a run that did not end with Close, Open recovers: it drops a torn tail,
// which was never promised, stores again what may not have reached the disk, and
// goes on in a new file. The old one is sealed in the background: if that fails, the
// log takes no more writes (ErrPoisoned). Open takes a time that grows with the number
// of files, not of entries; only files that were not sealed are read. After an unclean stop
// each file is synced, which is quick if the disk has it. A log that was closed, and is a copy
// now, or has a file that was put back, is synced so before the first write. The commit index
// of the hard state is put between the snapshot's index and LastIndex, where raft wants it.
//
// Errors: ErrLocked if another owner has it open; ErrCorrupt with a
// *CorruptError if promised data is damaged; ErrForeign for a directory of
// Dgraph's or another program's; ErrVersion; ErrInvalid for options out of
// range; ErrUnsupported for a file system without locks; ErrNoSpace; what the
// operating system answers; fs.ErrNotExist if there is no log, under ReadOnly and MustExist.
// Files are changed only if Open succeeds or the disk fails.
func Open(dir string, opts *Options) (*DiskStorage, error) {
	o, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	started := time.Now()
	d := &DiskStorage{opts: o, host: o.host, dir: dir, log: o.Logger, count: counters{opened: started}}
	if dir != "" {
		d.dir = filepath.Clean(dir)
	}
	returned := false
	defer func() {
		if !returned { // a KeyWrapper has panicked
			_ = d.release()
		}
	}()
	err = d.open()
	returned = true
	if err != nil {
		return nil, &once{fmt.Errorf("open %q: %w", d.dir, errors.Join(opening(err), d.release()))}
	}
	d.opts.wrapper, d.opts.KeyWrapper = nil, nil // master keys are kept no longer than needed
	d.recovery.Duration = time.Since(started)
	d.logOpened()
	return d, nil
}

// OpenOn is Open on another host. It is for the tests of this module: the host's
// type is internal.
func OpenOn(h host.Host, dir string, opts *Options) (*DiskStorage, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	o.host = h
	return Open(dir, &o)
}

func (d *DiskStorage) open() error {
	if d.dir == "" {
		return invalidf("the name of the directory is empty")
	}
	if !d.opts.ReadOnly && !d.opts.MustExist {
		if err := d.host.FS.MkdirAll(d.dir); err != nil {
			return err
		}
	}
	var err error
	if d.fsys, err = d.host.FS.OpenDir(d.dir); errors.Is(err, fs.ErrNotExist) {
		return d.noLog(err)
	} else if err != nil {
		return err
	}
	if d.opts.ReadOnly {
		return d.openReadOnly()
	}
	if err := d.lock(); err != nil {
		return err
	}
	inv, err := takeInventory(d.fsys, d.dir)
	if err != nil {
		return err
	}
	d.remover = cleanup.NewRemover(d.host, d.fsys, d.dir, d.opts.SpareFiles, d.log, func(err error) { d.poison(err) })
	d.view.cache.limit = d.opts.CacheSize
	d.startAhead()
	d.startSyncer()
	return d.openForWriting(inv)
}

// lock opens wal.meta and takes the owner's lock, after making the file in a
// directory that holds nothing yet.
func (d *DiskStorage) lock() (err error) {
	if d.meta, err = metafile.Open(d.fsys, d.dir, false); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Of those that want to make the log here at the same time one does, and nobody sees a
	// part of it. Where a directory cannot be locked, as over NFS, they meet at wal.meta.
	if locked := d.fsys.Lock(); errors.Is(locked, vfs.ErrLocked) {
		return locked
	} else if locked == nil {
		defer func() { err = errors.Join(err, d.fsys.Unlock()) }()
	}
	if d.meta, err = metafile.Open(d.fsys, d.dir, false); !errors.Is(err, fs.ErrNotExist) {
		return err // it was made meanwhile
	}
	if err := d.makeLog(err); err != nil {
		return err
	}
	d.meta, err = metafile.Open(d.fsys, d.dir, false)
	return err
}

// makeLog makes wal.meta, which is missing, as err tells.
func (d *DiskStorage) makeLog(missing error) error {
	inv, err := takeInventory(d.fsys, d.dir)
	if err != nil {
		return err
	}
	if err := inv.mayCreate(); err != nil {
		return err
	}
	if d.opts.MustExist {
		return d.noLog(missing)
	}
	// The directory may have been made by a process that did not live to sync it,
	// or by the user.
	if err := d.fsys.SyncParents(); err != nil {
		return err
	}
	logID, err := d.randomUint64()
	if err != nil {
		return err
	}
	m := metafile.Meta{LogID: logID, Clean: true, FirstFile: 1, SyncPolicy: uint32(d.opts.Sync.mode)}
	var keys *encryption.DirectoryKey
	if d.opts.wrapper != nil {
		if keys, err = d.newKeys(&m); err != nil {
			return err
		}
		defer keys.Wipe() // they are unwrapped again
	}
	if err := m.SetSnapshot(&raftpb.Snapshot{}, false); err != nil {
		return err
	}
	err = metafile.Create(d.fsys, d.dir, m, keys, d.host.Random)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return noSpace(err)
	}
	d.made = err == nil
	d.log.Info("raftwal: made a new log, with no vote and no entries", "dir", d.dir, "encrypted", m.Encrypted)
	return nil
}

// noLog says what it may mean that there is no log.
func (d *DiskStorage) noLog(missing error) error {
	if !d.opts.MustExist {
		return missing
	}
	return fmt.Errorf("there is no log in %s, and Options.MustExist says that there was one: a volume may not be mounted, "+
		"or the path may be wrong; a node that has lost its log must not start with a new one under its old id (%w)", d.dir, missing)
}

// checkMeta judges what wal.meta says before anything relies on it.
func (d *DiskStorage) checkMeta() error {
	if err := d.unlock(); err != nil {
		return err
	}
	m := d.meta.Meta()
	if !m.SnapshotInFile {
		return nil
	}
	if !d.opts.ReadOnly {
		return d.meta.CheckSnapshot(&m)
	}
	var err error // kept open, since the owner may remove it at any time
	d.snapshot, err = d.meta.OpenSnapshot(&m)
	return err
}

func (d *DiskStorage) openForWriting(inv *inventory) error {
	if err := d.checkMeta(); err != nil {
		return err
	}
	d.recovery.Clean = d.meta.Meta().Clean
	d.recovery.HealedPages = len(d.meta.Damaged())
	d.noteUnsynced(inv)
	if !d.settled() {
		// What was done last may be in the kernel's memory only, even that the log was
		// closed: nothing is built on names or pages before they are on the disk.
		if err := d.ensureFound(); err != nil {
			return err
		}
		if err := d.fsys.SyncDir(d.dir); err != nil {
			return err
		}
		if err := d.meta.Restore(); err != nil {
			return err
		}
	}
	if err := d.setForeignApart(inv); err != nil {
		return err
	}
	d.noteFound(inv)
	if err := d.loadFiles(inv); err != nil {
		return err
	}
	if err := d.beginRun(); err != nil {
		return err
	}
	if err := d.removeEmpty(); err != nil {
		return err
	}
	d.sortDead(inv)
	d.plainAside = inv.plainAside(d.meta.Meta(), d.recovery.SetAside)
	if err := d.healHeaders(); err != nil {
		return err
	}
	d.sealFound()
	if d.tail == nil {
		d.wishNext() // the first Save finds it made, or waits less
	}
	return nil
}

// sortDead has dead files removed, and takes the spare ones that can be used again: those
// of a log that was closed cleanly, since the disk may not hold what the page cache shows;
// and none from before the log was encrypted.
func (d *DiskStorage) sortDead(inv *inventory) {
	m := d.meta.Meta()
	for _, name := range inv.deadFiles(m) {
		d.remover.Remove(cleanup.Dead{Name: name, Plain: isPlain(m, name)})
	}
	for _, name := range inv.spares {
		if plain := isPlain(m, name); plain || !d.recovery.Clean {
			d.remover.Remove(cleanup.Dead{Name: name, Plain: plain})
		} else {
			d.remover.AddSpares(name)
		}
	}
}

// healHeaders writes the header pages anew that were lost, so that each file has two again; but
// for those that are going to be sealed. Where there is no room, or the file cannot be opened,
// the next Open tries again.
func (d *DiskStorage) healHeaders() error {
	for _, s := range d.files {
		f := s.file
		if !f.LostPage() || !f.Sealed() && f != d.tail {
			continue
		}
		if err := d.ensureFound(); err != nil {
			return err
		}
		err := d.reserveFile(entryfile.Name(f.Number()))
		if err == nil {
			if err = f.HealPage(); vfs.SyncFailed(err) {
				return err
			}
		}
		if err != nil {
			d.log.Warn("raftwal: a header page that was lost is not written anew", "file", f.Path(), "err", err)
			continue
		}
		d.recovery.HealedPages++
		d.log.Warn("raftwal: a header page that was lost is written anew from the other one", "file", f.Path())
	}
	return nil
}

// sealFound has the files sealed in the background that were found full, or were ended.
func (d *DiskStorage) sealFound() {
	a := &d.ahead
	a.mu.Lock()
	for _, s := range d.files {
		if !s.file.Sealed() && s.file != d.tail {
			s.file.Pin()
			a.retired = append(a.retired, s.file)
		}
	}
	found := len(a.retired) > 0
	a.mu.Unlock()
	if found {
		a.sealer.Wake()
	}
}

// removeLeftovers removes what interrupted creations left under names that this
// run may use again.
func (d *DiskStorage) removeLeftovers(inv *inventory) error {
	for _, name := range inv.leftovers(d.meta.Meta()) {
		if err := d.fsys.Remove(filepath.Join(d.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// settled: the log was closed cleanly, all of it is on the disk, and there is nothing to
// recover.
func (d *DiskStorage) settled() bool {
	return d.meta.Settled() && d.opts.Recovery != KeepValidPrefix
}

// beginRun stores, synced, that the log is in use, before anything else of this
// run is stored; and with it what recovery found. A log that is settled, and can go on
// where it ended, is left as it is: see begin.
func (d *DiskStorage) beginRun() error {
	d.publish()
	m := d.meta.Meta()
	m.HardState = d.hard
	d.reconcile(&m)
	goesOn := d.settled() && d.tail != nil && !d.tail.Stale() && len(d.empty) == 0 && m.HardState == d.view.meta.HardState
	m.Clean, m.Stamp, m.SyncPolicy = false, 0, uint32(d.opts.Sync.mode)
	m.Durable = metafile.End{}
	if n := len(d.files); n > 0 {
		m.Durable = foundEnd(d.files[n-1].file)
	}
	commit := d.meta.Commit
	if d.opts.wrapper != nil && !m.Encrypted {
		if err := d.startEncrypting(&m); err != nil {
			return err
		}
		commit = d.meta.CommitEverywhere
	} else if d.meta.Outdated() {
		commit = d.meta.CommitEverywhere
	} else if goesOn {
		commit = d.meta.Begin
	}
	if !goesOn {
		if err := d.ensureFound(); err != nil {
			return err
		}
	}
	if err := commit(m); err != nil {
		return err
	}
	d.hard = m.HardState
	d.publish()
	return nil
}

// begin stores, synced, that the log is in use, before the first entry of this run is
// stored, unless wal.meta says so by now; and makes sure of the header of the file that
// the entry may go to.
func (d *DiskStorage) begin() error {
	if d.tail != nil {
		if err := d.tail.EnsureHeader(); err != nil {
			return err
		}
	}
	if d.meta.Begun() {
		return nil
	}
	return d.meta.Commit(d.meta.Meta())
}

// removeEmpty removes the files that hold nothing, now that wal.meta
// does not name one of them as the durable end. They are gone, durably, before a new
// file follows the one in front of them.
func (d *DiskStorage) removeEmpty() error {
	for _, name := range d.empty { // the last one first, so that none names one that is gone
		if err := d.removeDurably(name); err != nil {
			return err
		}
	}
	return nil
}

func (d *DiskStorage) removeDurably(name string) error {
	if err := d.fsys.Remove(filepath.Join(d.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.fsys.SyncDir(d.dir)
}

// reconcile makes what wal.meta says fit the entries that were found: the log
// reaches up to the snapshot at least, and the commit index lies where raft
// accepts it. It was stored without a sync, or entries were lost that were never
// promised, or whose damage KeepValidPrefix put up with.
func (d *DiskStorage) reconcile(m *metafile.Meta) {
	last := d.view.last
	if last < m.Snapshot.Index {
		d.log.Warn("raftwal: the entries end before the snapshot; the log starts behind it", "dir", d.dir, "last", last, "snapshot", m.Snapshot.Index)
		d.adoptLoaded(nil)
		m.Compacted, m.FirstFile, last = m.Snapshot, d.next, m.Snapshot.Index
	}
	commit := min(max(m.HardState.Commit, m.Snapshot.Index), last)
	if m.HardState.Stored && commit != m.HardState.Commit {
		d.log.Warn("raftwal: commit index put inside the log", "dir", d.dir, "was", m.HardState.Commit, "is", commit)
		m.HardState.Commit = commit
	}
}

// logOpened tells an operator what Open found, loudly if there was anything.
func (d *DiskStorage) logOpened() {
	r := &d.recovery
	v := d.snapshotView()
	args := []any{
		"dir", d.dir, "clean", r.Clean, "first", v.first(), "last", v.last, "snapshot", v.meta.Snapshot.Index,
		"files", len(d.files), "scanned", r.FilesScanned, "torn_bytes", r.TornBytes, "healed_pages", r.HealedPages,
		"entries", v.last - v.meta.Compacted.Index, "encrypted", v.meta.Encrypted, "duration", r.Duration,
	}
	switch {
	case len(r.SetAside) > 0:
		d.log.Error("raftwal: opened without damaged entries", append(args, "set_aside", r.SetAside)...)
	case r.HealedPages > 0:
		d.log.Warn("raftwal: opened; damaged pages were healed", args...)
	case !r.Clean && !d.opts.ReadOnly:
		d.log.Info("raftwal: opened after an unclean stop", args...)
	default:
		d.log.Debug("raftwal: opened", args...)
	}
}

// openReadOnly loads the log without changing anything. If a live owner changes
// it meanwhile, it starts again.
func (d *DiskStorage) openReadOnly() error {
	const tries = 10
	for try := 1; ; try++ {
		err := d.loadReadOnly()
		gone := errors.Is(err, fs.ErrNotExist) && d.meta != nil // removed since the directory was listed
		torn := errors.Is(err, ErrCorrupt) && (d.meta == nil || d.changed())
		if !gone && !torn || try == tries {
			return err
		}
		_ = d.releaseFiles()
		d.meta, d.files, d.tail, d.snapshot, d.recovery = nil, nil, nil, nil, Recovery{}
		time.Sleep(time.Duration(try) * time.Millisecond)
	}
}

// changed reports whether the owner has stored to wal.meta since it was read.
func (d *DiskStorage) changed() bool {
	before := d.meta.Sequence()
	return d.meta.Refresh() != nil || d.meta.Sequence() != before
}

func (d *DiskStorage) loadReadOnly() error {
	meta, err := metafile.Open(d.fsys, d.dir, true)
	if err != nil {
		return d.explainMissing(err)
	}
	d.meta = meta
	inv, err := takeInventory(d.fsys, d.dir)
	if err != nil {
		return err
	}
	if err := d.checkMeta(); err != nil {
		return err
	}
	d.recovery.Clean = d.meta.Meta().Clean
	d.noteFound(inv)
	if err := d.loadFiles(inv); err != nil {
		return err
	}
	d.publish()
	m := d.meta.Meta()
	d.plainAside, d.found = inv.plainAside(m, nil)+inv.plainDead(m), m
	m.HardState, m.Checkpoint = d.hard, d.checkpoint
	d.reconcile(&m)
	d.hard = m.HardState
	d.publish()
	d.view.meta, d.view.last = m, max(d.view.last, m.Compacted.Index)
	return nil
}

// explainMissing tells a directory without a log from a log without wal.meta.
func (d *DiskStorage) explainMissing(err error) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	inv, listErr := takeInventory(d.fsys, d.dir)
	switch {
	case errors.Is(listErr, ErrCorrupt):
		return listErr
	case listErr == nil && inv.restoring():
		return fmt.Errorf("%w: %w", errRestoring, err)
	case listErr == nil && len(inv.numbers) > 0:
		return corrupt.At(filepath.Join(d.dir, metafile.Name), 0, missingMeta)
	}
	return err
}
