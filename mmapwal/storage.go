// Package mmapwal is a write-ahead log for Raft: it stores a node's entries,
// hard state and snapshot in memory-mapped files, implements the Storage
// interface of go.etcd.io/raft/v3, and never lies about what is durable.
//
// # Where a Save goes
//
// Save checks its arguments against the log (check.go), makes room on the disk
// (plan.go), and only then stores (save.go): the snapshot, the entries, the hard
// state. Entries go to the data region of the last entry file (package
// entryfile); one msync of that range makes them durable. Files are read through
// their mappings and written with system calls, so that nothing but the writer waits
// where the disk does. The hard state and the
// snapshot go to wal.meta (package metafile). What a snapshot made superfluous
// is removed in the background (package cleanup). What can be done before it is
// needed, or later than that, is done in the background, too (ahead.go).
//
// # Who may call what beside what
//
// All methods of a DiskStorage may be called concurrently. Those that write run
// one after another. Those that read wait neither for a sync of the disk nor for
// a writer, and no writer waits for them; a read sees the log as it was at one
// moment. Close waits for the reads under way.
//
// # Who owns what
//
// Entries and snapshots that are handed to Save belong to the log and must not
// be changed afterwards. What Entries returns may be just these, so it must not be
// changed either; it stays valid after compaction and Close. What Snapshot returns is
// the caller's.
package mmapwal

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/seed-2fef92ad/raftwal/cleanup"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"go.etcd.io/raft/v3"
)

// DiskStorage is a Raft log in a directory. Open returns one.
type DiskStorage struct {
	opts Options
	host host.Host
	fsys vfs.Dir // the directory, open
	dir  string
	log  *slog.Logger

	// The locks are taken in the order closing, rotating, writing, then sealing of ahead, then the
	// mu of ahead, of syncer and this one, of which none is held across a system call.
	// Nothing waits for reads while it holds writing.
	closing  sync.Mutex // held by Close
	rotating sync.Mutex // held by a rotation of the master key, while the KMS thinks

	// writing is held by the one writer. It guards this group.
	writing sync.Mutex
	meta    *metafile.File
	files   []segment       // the live files in order, those without live entries too
	tail    *entryfile.File // the last of files if it takes entries, else nil
	next    uint64          // number of the next file
	foreign []string        // names of this log's that other files have
	empty   []string        // files that an unclean stop left without a record, the last one first
	plan    plan            // of the Save under way; kept to save allocations

	made       bool     // by this Open, anew
	unsynced   []string // files that Open found, and that are to be synced before the first store
	holed      []string // those that may have holes where they are stored to
	released   bool     // the files are closed
	plainAside int      // see Stats.PlainFiles: what Open found that is no part of the log
	nextWanted bool     // the next file is there, or wished for
	readyBytes int64    // how far the tail is made ready
	ahead      ahead
	syncer     syncer
	hard       metafile.HardState // of the Save that was stored last
	checkpoint uint64             // that Open found to count

	// mu guards view. It is held only to copy memory, never across a system call.
	// Only the writer changes what is in it, so the writer may read it without mu.
	mu     sync.RWMutex
	view   view
	terms  atomic.Pointer[terms] // nil once the log is closed
	sticky atomic.Pointer[error] // ErrPoisoned; nil: all is well

	reads      sync.WaitGroup         // reads under way
	backups    atomic.Int32           // backups under way
	refreshing sync.Mutex             // guards meta against concurrent reads of a ReadOnly log
	snapshot   *metafile.SnapshotFile // of a ReadOnly log; nil if the snapshot is inline
	remover    *cleanup.Remover
	recovery   Recovery
	found      metafile.Meta // what a ReadOnly log was opened with
	count      counters
}

var _ raft.Storage = (*DiskStorage)(nil)

// segment is an entry file and those of its entries that no later file
// supersedes. For the tail, which grows, the file itself knows better.
type segment struct {
	file        *entryfile.File
	first, last uint64           // live indexes; 1 and 0 if there are none
	index       *entryfile.Index // of a file that is not sealed; else its slots serve
}

// newSegment returns the segment of a file whose entries all count.
func newSegment(f *entryfile.File) segment {
	return segment{file: f, first: max(f.First(), 1), last: f.Last()}
}

// holds reports whether the file has an entry, superseded ones included. While it is not
// sealed, its own index is the sealer's.
func (s *segment) holds() bool {
	if s.index != nil {
		return s.index.First() != 0
	}
	return s.file.First() != 0
}

// view is what reads see. Its slices are never changed, only replaced or grown.
type view struct {
	meta      metafile.Meta // as stored; its hard state may be older
	hard      metafile.HardState
	last      uint64
	segments  []segment // with live entries, in order; without the tail
	tail      *entryfile.File
	tailIndex entryfile.Index
	cache     cache
	files     int // with entries
	plain     int // not encrypted, in an encrypted log
	closed    bool
}

// first returns the index of the first entry that can be read.
func (v *view) first() uint64 { return v.meta.Compacted.Index + 1 }

// writable says whether there is anything against writing; writing is held. What Open found is
// on the disk then.
func (d *DiskStorage) writable() error {
	if d.view.closed {
		return ErrClosed
	}
	if err := d.poisoned(); err != nil {
		return err
	}
	if d.opts.ReadOnly {
		return ErrReadOnly
	}
	return d.poisonIfSync(d.ensureFound())
}

// poisoned returns the sticky error; nil if there is none.
func (d *DiskStorage) poisoned() error {
	if err := d.sticky.Load(); err != nil {
		return *err
	}
	return nil
}

// poison makes a failure sticky: after a failed sync, or a write that failed
// half-way, nothing is written any more. It returns what all later writes return.
func (d *DiskStorage) poison(err error) error {
	if err == nil {
		return nil
	}
	var sticky error = &once{fmt.Errorf("%w: %w", ErrPoisoned, err)}
	if d.sticky.CompareAndSwap(nil, &sticky) {
		d.log.Error("raftwal: write failed; the log takes no more writes until it is opened again", "dir", d.dir, "err", err)
	}
	return d.poisoned()
}

// poisonIfSync poisons the log if err is that of a sync. What else fails before
// the first store leaves the log as it was.
func (d *DiskStorage) poisonIfSync(err error) error {
	if vfs.SyncFailed(err) {
		return d.poison(err)
	}
	return err
}

// publish shows reads the log as the writer has it in memory.
func (d *DiskStorage) publish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.publishSegments()
	d.publishTail()
}

// publishSegments is publish for wal.meta, and for the files that take no more records; mu
// is held.
func (d *DiskStorage) publishSegments() {
	segments := make([]segment, 0, len(d.files))
	files, plain := 0, 0
	for k, s := range d.files {
		if d.meta.Keys() != nil && !s.file.Encrypted() {
			plain++
		}
		if s.file == d.tail {
			continue
		}
		if s.index != nil && s.file.Sealed() && !d.opts.ReadOnly {
			s.index = nil
			d.files[k] = s
		}
		if s.holds() {
			files++
		}
		if s.last >= s.first {
			segments = append(segments, s)
		}
	}
	d.view.segments, d.view.files, d.view.plain = segments, files, plain
	d.view.meta, d.view.hard = d.meta.Meta(), d.hard
	d.terms.Store(newTerms(d.view.first(), segments))
}

// publishTail is publish for when only the tail has changed; mu is held.
func (d *DiskStorage) publishTail() {
	v := &d.view
	v.last = v.meta.Compacted.Index
	if n := len(v.segments); n > 0 {
		v.last = max(v.last, v.segments[n-1].last)
	}
	v.tail, v.tailIndex = d.tail, entryfile.Index{}
	if d.tail != nil {
		v.tailIndex = d.tail.Index()
		v.last = max(v.last, v.tailIndex.Last())
	}
	v.cache.cut(v.last + 1)
}
