package mmapwal

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"go.etcd.io/raft/v3/raftpb"
)

// counters count what a log does, for Stats. Their methods may be called
// concurrently; those on the way of a Save or a read neither lock nor allocate.
type counters struct {
	opened time.Time // with a monotonic reading, so that now needs no other clock

	saveTime, waitTime, syncTime times
	syncEntries, syncSaves       sizes
	stored                       amount
	syncedSaves, syncedEntries   atomic.Uint64
	saveErrors, noSpace          atomic.Uint64
	slow                         slowSyncs

	readEntries, readBytes atomic.Uint64
	corruptReads, faults   atomic.Uint64

	rotations, compactions atomic.Uint64
	lastSnapshot           atomic.Int64 // Unix time in nanoseconds; 0: unknown
	files                  fileLives
}

// amount is how much was stored since Open.
type amount struct{ saves, entries, bytes atomic.Uint64 }

// now returns the time since Open.
func (c *counters) now() time.Duration { return time.Since(c.opened) }

// saved counts a Save that ends now with err.
func (c *counters) saved(save call, err error) {
	if err != nil {
		c.failedSave(err)
		return
	}
	c.saveTime.add(c.now() - save.began)
	c.waitTime.add(save.waited)
}

func (c *counters) failedSave(err error) {
	c.saveErrors.Add(1)
	if errors.Is(err, ErrNoSpace) {
		c.noSpace.Add(1)
	}
	if !errors.Is(err, ErrPoisoned) { // which has been told once
		c.failedRead(err) // of the entry before its own
	}
}

// appended counts the entries of one Save, which are stored, but not yet synced.
func (c *counters) appended(es []*raftpb.Entry) {
	c.stored.saves.Add(1)
	c.stored.entries.Add(uint64(len(es)))
	c.stored.bytes.Add(dataBytes(es))
}

func dataBytes(es []*raftpb.Entry) (n uint64) {
	for _, e := range es {
		n += uint64(len(e.GetData()))
	}
	return n
}

// syncing is a sync under way, and how much will be durable with it.
type syncing struct {
	idle           bool // there is nothing to sync: it does not count
	began          time.Duration
	saves, entries uint64
}

// beginSync is called before the sync of all that was appended.
func (c *counters) beginSync() syncing { return c.begin(c.upToHere()) }

// upToHere is the sync of all that was appended by now.
func (c *counters) upToHere() syncing {
	return syncing{saves: c.stored.saves.Load(), entries: c.stored.entries.Load()}
}

func (c *counters) begin(s syncing) syncing {
	if s.idle = s.entries <= c.syncedEntries.Load(); !s.idle {
		s.began = c.now()
	}
	return s
}

// ended notes that the file with this number takes no more entries, at the end of the
// last Save at least.
func (c *counters) ended(number uint64) { c.files.end(number, c.upToHere()) }

// beginSeal is called before that file is sealed, and with it what was appended
// before it.
func (c *counters) beginSeal(number uint64) syncing { return c.begin(c.files.ended(number)) }

// endSync counts a sync that succeeded, and returns how long it took. Syncs may
// overlap: what two of them made durable counts to the one that ended first.
func (c *counters) endSync(s syncing) (took time.Duration) {
	if s.idle {
		return 0
	}
	took = c.now() - s.began
	c.syncTime.add(took)
	if n := raise(&c.syncedEntries, s.entries); n > 0 {
		c.syncEntries.add(n)
	}
	if n := raise(&c.syncedSaves, s.saves); n > 0 {
		c.syncSaves.add(n)
	}
	return took
}

// raise makes v at least to, and returns by how much it rose.
func raise(v *atomic.Uint64, to uint64) (by uint64) {
	for {
		from := v.Load()
		if from >= to {
			return 0
		}
		if v.CompareAndSwap(from, to) {
			return to - from
		}
	}
}

// unsynced returns how many entries are stored and not yet synced.
func (c *counters) unsynced() uint64 {
	synced := c.syncedEntries.Load() // first: it never overtakes
	return c.stored.entries.Load() - synced
}

// read counts a call of Entries.
func (c *counters) read(es []*raftpb.Entry, err error) {
	if err != nil {
		c.failedRead(err)
		return
	}
	c.readEntries.Add(uint64(len(es)))
	c.readBytes.Add(dataBytes(es))
}

// failedRead counts damage and faults as the caller is told of them.
func (c *counters) failedRead(err error) {
	if err == nil {
		return
	}
	if errors.Is(err, ErrCorrupt) {
		c.corruptReads.Add(1)
	}
	if errors.Is(err, ErrFault) {
		c.faults.Add(1)
	}
}

// rotated counts a file that is full and was followed by another.
func (c *counters) rotated() { c.rotations.Add(1) }

// compacted counts a compaction, that of a snapshot included.
func (c *counters) compacted() { c.compactions.Add(1) }

// snapshotStored notes when the newest snapshot was stored.
func (c *counters) snapshotStored(at time.Time) { c.lastSnapshot.Store(at.UnixNano()) }

// fill puts what was counted into s.
func (c *counters) fill(s *Stats) {
	s.Opened = c.opened
	s.SaveTime, s.WaitTime, s.SyncTime = c.saveTime.histogram(), c.waitTime.histogram(), c.syncTime.histogram()
	s.SyncEntries, s.SyncSaves = c.syncEntries.histogram(), c.syncSaves.histogram()
	s.NoSpace, s.SaveErrors = c.noSpace.Load(), c.saveErrors.Load() // in this order, so that it is not the greater
	s.UnsyncedEntries = c.unsynced()
	s.AppendedEntries, s.AppendedBytes = c.stored.entries.Load(), c.stored.bytes.Load()
	s.SlowSyncs = c.slow.count()
	s.ReadEntries, s.ReadBytes = c.readEntries.Load(), c.readBytes.Load()
	s.CorruptReads, s.Faults = c.corruptReads.Load(), c.faults.Load()
	s.Rotations, s.Compactions = c.rotations.Load(), c.compactions.Load()
	s.PinnedFiles = c.files.pinned()
	if at := c.lastSnapshot.Load(); at != 0 {
		s.LastSnapshot = time.Unix(0, at)
	}
}

// slowSyncPause is how long no slow sync is logged after one was.
const slowSyncPause = 10 * time.Second

// slowSyncs are the syncs that took longer than Options.SlowSync.
type slowSyncs struct {
	mu    sync.Mutex
	total uint64
	quiet time.Duration // until then none is logged

	// of those that were not logged yet
	unlogged uint64
	worst    time.Duration
}

// add counts a slow sync that ended at the time now. If it is time for a line in
// the log again, it returns how many there were since the last one.
func (s *slowSyncs) add(now, took time.Duration) (n uint64, worst time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total++
	s.unlogged++
	s.worst = max(s.worst, took)
	if now < s.quiet {
		return 0, 0
	}
	n, worst = s.unlogged, s.worst
	s.quiet, s.unlogged, s.worst = now+slowSyncPause, 0, 0
	return n, worst
}

func (s *slowSyncs) count() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// fileLives knows of entry files what nobody else does: when they were begun, and
// which are dead and still in use by a read.
type fileLives struct {
	mu     sync.Mutex
	begun  map[uint64]time.Time // by number; only of live files
	ends   map[uint64]syncing   // by number; of files that are to be sealed
	dead   []*entryfile.File
	healed map[uint64]bool // by number; those that were logged
}

// begin notes that the file with this number was begun, or last written to by an
// earlier run, at the time at.
func (l *fileLives) begin(number uint64, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.begun == nil {
		l.begun = make(map[uint64]time.Time)
	}
	l.begun[number] = at
}

// begunAt returns when the file with this number was begun; zero if unknown.
func (l *fileLives) begunAt(number uint64) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begun[number]
}

// end notes what is durable once the file with this number is sealed.
func (l *fileLives) end(number uint64, s syncing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ends == nil {
		l.ends = make(map[uint64]syncing)
	}
	l.ends[number] = s
}

// ended returns what end noted, and forgets it.
func (l *fileLives) ended(number uint64) syncing {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.ends[number]
	delete(l.ends, number)
	return s
}

// die notes that the log has let go of f.
func (l *fileLives) die(f *entryfile.File) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.begun, f.Number())
	l.dead = slices.DeleteFunc(append(l.dead, f), released)
}

// pinned returns how many dead files reads still have in use.
func (l *fileLives) pinned() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = slices.DeleteFunc(l.dead, released)
	return len(l.dead)
}

// released reports whether nobody uses f any more.
func released(f *entryfile.File) bool {
	if !f.Pin() {
		return true
	}
	_ = f.Release()
	return false
}

// firstHealed reports whether the file with this number is healed for the first
// time.
func (l *fileLives) firstHealed(number uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.healed[number] {
		return false
	}
	if l.healed == nil {
		l.healed = make(map[uint64]bool)
	}
	l.healed[number] = true
	return true
}

// lockForSave takes the writer's lock. It returns when the wait for it began, and
// how long that took: 0, without asking the clock again, if the lock was free.
func (d *DiskStorage) lockForSave() (began, waited time.Duration) {
	began = d.count.now()
	if d.writing.TryLock() {
		return began, 0
	}
	d.writing.Lock()
	return began, d.count.now() - began
}

// endSync counts a sync that succeeded, and tells an operator if it was slow, at
// most once in slowSyncPause.
func (d *DiskStorage) endSync(s syncing) {
	took := d.count.endSync(s)
	if d.opts.SlowSync < 0 || took < d.opts.SlowSync {
		return
	}
	if n, worst := d.count.slow.add(d.count.now(), took); n > 0 {
		d.log.Warn("raftwal: slow sync; is the disk failing, or busy with something else?",
			"dir", d.dir, "count", n, "worst", worst, "threshold", d.opts.SlowSync)
	}
}

// noteHealed tells an operator, once, of a file whose damaged slots were rebuilt.
func (d *DiskStorage) noteHealed(f *entryfile.File) {
	if f.Healed() && d.count.files.firstHealed(f.Number()) {
		d.log.Warn("raftwal: damaged slots rebuilt from the records; they are written anew at close", "file", f.Path())
	}
}

// noteFound takes over from the inventory when files were last written to. A
// snapshot that stands in wal.meta has no time.
func (d *DiskStorage) noteFound(inv *inventory) {
	m := d.meta.Meta()
	for _, number := range inv.live(m) {
		d.count.files.begin(number, inv.modified[entryfile.Name(number)])
	}
	if at := inv.modified[metafile.SnapshotName(m.Snapshot)]; m.SnapshotInFile && !at.IsZero() {
		d.count.snapshotStored(at)
	}
}

// noteRetired counts the compaction, or the snapshot, that replaced old by m.
func (d *DiskStorage) noteRetired(old, m *metafile.Meta) {
	if m.Compacted != old.Compacted {
		d.count.compacted()
	}
	if m.Snapshot != old.Snapshot {
		d.count.snapshotStored(time.Now())
	}
}
