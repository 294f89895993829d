// Package metafile stores what a log must know besides its entries: ids, hard
// state, snapshot, and which entry files count.
//
// wal.meta has four pages, each complete and checked; the newest valid one
// counts. Their roles are fixed:
//
//	pages 1, 0  what was promised: written one after the other, each synced, so
//	            that a damaged one is healed from the other
//	pages 2, 3  what needs no sync: written in turn, so that a process killed
//	            in the middle of a store leaves a whole one
//
// Page 0 is where Dgraph's wal.meta keeps the same fields. wal.meta is created
// under a temporary name and never renamed over, since the owner's lock is on it.
package metafile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// Name of the file in its directory, and of one whose creation was interrupted.
const (
	Name          = "wal.meta"
	TemporaryName = Name + ".tmp"
)

const (
	pageCount = 4
	fileSize  = pageCount * page.Size
)

// Errors of Open.
var (
	// ErrDgraph: Dgraph wrote this wal.meta, or wrote to it since it was closed.
	ErrDgraph = errors.New("written by Dgraph: import the directory with `mmapwal import --from dgraph`")
	// ErrForeign: the file is no wal.meta of ours.
	ErrForeign = errors.New("not a wal.meta of this program")
)

// File is an open wal.meta. Its methods must not be called concurrently.
type File struct {
	fsys     vfs.Files
	dir      string
	name     string
	file     vfs.File
	mem      vfs.Mapping
	meta     Meta  // the newest, as stored
	pages    Pages // as they were read
	logID    uint64
	written  atomic.Uint64 // snapshot files, for their temporary names
	newest   int           // the page that holds it
	volatile int           // the page of 2 and 3 that is written next
	damaged  []int
	settled  bool // see Settled
	outdated bool // see Outdated
	stored   bool // a page was written since Open
	begun    bool // so were pages 0 and 1, both
	buf      [page.Size]byte

	keys   *encryption.DirectoryKey // nil: not encrypted, or locked
	auth   *encryption.Authenticator
	random io.Reader
}

// Create makes a wal.meta that holds m, durably: a crash leaves the whole file
// or at most a temporary name, which the next Create takes over. fs.ErrExist if
// there is one by now, vfs.ErrLocked while another process creates it. keys and
// random are for an encrypted log, else nil.
func Create(fsys vfs.Files, dir string, m Meta, keys *encryption.DirectoryKey, random io.Reader) (err error) {
	var auth *encryption.Authenticator
	if m.Encrypted {
		if auth, err = keys.NewAuthenticator(); err != nil {
			return err
		}
		if err := m.sealSnapshot(keys, random); err != nil {
			return err
		}
	}
	tmp := filepath.Join(dir, TemporaryName)
	f, err := fsys.Create(tmp)
	if errors.Is(err, fs.ErrExist) {
		f, err = fsys.Open(tmp, false)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// The lock goes with the file through the rename, so only one of two
	// processes gets past this check.
	if err := f.Lock(); err != nil {
		return err
	}
	if err := create(fsys, dir, f, m, auth); err != nil {
		_ = fsys.Remove(tmp) // gone already if the rename was the last to succeed
		return err
	}
	return nil
}

func create(fsys vfs.Files, dir string, f vfs.File, m Meta, auth *encryption.Authenticator) error {
	name := filepath.Join(dir, Name)
	old, err := fsys.Open(name, true)
	if err == nil {
		_ = old.Close()
		return &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err // it may be there
	}
	m.sequence = 1
	content := make([]byte, fileSize)
	for i := range 2 {
		m.Encode(content[i*page.Size:(i+1)*page.Size], auth)
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.WriteAt(content, 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := fsys.Rename(filepath.Join(dir, TemporaryName), name); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// Open opens dir's wal.meta and finds the page that counts. For writing it
// takes the owner's lock first (vfs.ErrLocked). It changes nothing on disk. If
// Meta then says that the log is encrypted, Unlock must be called before anything
// but Meta and Close.
//
// Errors: fs.ErrNotExist, vfs.ErrLocked, ErrVersion, ErrDgraph, ErrForeign, *corrupt.Error.
func Open(fsys vfs.Files, dir string, readOnly bool) (_ *File, err error) {
	f := &File{fsys: fsys, dir: dir, name: filepath.Join(dir, Name)}
	if f.file, err = fsys.Open(f.name, readOnly); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
		}
	}()
	if !readOnly {
		if err := f.file.Lock(); err != nil {
			return nil, err
		}
	}
	size, err := f.file.Size()
	if err != nil {
		return nil, err
	}
	if size < fileSize {
		return nil, f.tooShort(size)
	}
	if f.mem, err = f.file.Map(fileSize); err != nil {
		return nil, err
	}
	if err := f.load(); err != nil {
		return nil, err
	}
	return f, nil
}

// tooShort says whose a file is that cannot hold four pages.
func (f *File) tooShort(size int64) error {
	head := make([]byte, min(size, page.Size))
	if _, err := f.file.ReadAt(head, 0); err == nil && looksLikeDgraph(head, size) {
		return fmt.Errorf("%s: %w", f.name, ErrDgraph)
	}
	whole := append(slices.Clone(head), make([]byte, page.Size-len(head))...)
	if _, err := Decode(whole); err == nil || errors.Is(err, errChecksum) {
		return corrupt.At(f.name, size, "cut short: %d bytes of %d are left", size, fileSize)
	}
	if size == 0 {
		return corrupt.At(f.name, 0, "the file is empty")
	}
	return fmt.Errorf("%s: %w", f.name, ErrForeign)
}

// Unlock takes the key of an encrypted log: it checks all pages and opens the
// snapshot. random is for snapshots that will be stored.
//
// Errors: encryption.ErrWrongKey, encryption.ErrTampered.
func (f *File) Unlock(w encryption.KeyWrapper, random io.Reader) error {
	keys, err := encryption.UnwrapDirectoryKey(w, f.meta.WrappedKey, f.meta.LogID)
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	if err := f.Encrypt(keys, random); err != nil {
		return err
	}
	return f.load()
}

// Encrypt takes the key of a log that is going to be encrypted: with the first
// Commit of a Meta that says so.
func (f *File) Encrypt(keys *encryption.DirectoryKey, random io.Reader) (err error) {
	f.keys, f.random = keys, random
	f.auth, err = keys.NewAuthenticator()
	return err
}

// Keys returns the directory key; nil if the log is not encrypted.
func (f *File) Keys() *encryption.DirectoryKey { return f.keys }

// Refresh reads the pages again, for a reader beside a live owner. On an error
// the Meta stays as it was.
func (f *File) Refresh() error { return f.load() }

// load finds the newest valid page and judges the others.
func (f *File) load() error {
	var pages [pageCount]Meta
	var errs [pageCount]error
	newest, damaged := -1, []int(nil)
	for i := range pages {
		if err := f.readPage(i); err != nil {
			return err
		}
		pages[i], errs[i] = Decode(f.buf[:])
		if f.buf == [page.Size]byte{} {
			errs[i] = errBlank
		}
		if errs[i] == nil && f.auth != nil && pages[i].Encrypted && !authentic(f.buf[:], f.auth) {
			return f.tampered(i, "its checksum is right, but not its MAC")
		}
		if errs[i] != nil {
			damaged = append(damaged, i)
		} else if newest < 0 || pages[i].sequence > pages[newest].sequence {
			newest = i
		}
	}
	if err := f.judge(&pages, &errs); err != nil {
		return err
	}
	if err := f.unseal(&pages, newest); err != nil {
		return err
	}
	f.meta, f.newest, f.damaged, f.pages = pages[newest], newest, damaged, Pages{}
	f.logID = f.meta.LogID
	for i := range pages {
		if errs[i] == nil {
			f.pages[i] = &pages[i]
		}
	}
	f.volatile = 2
	if pages[2].sequence > pages[3].sequence {
		f.volatile = 3
	}
	f.dropBlankDamage(&errs)
	f.outdated = slices.ContainsFunc(pages[:], func(m Meta) bool {
		return m.sequence != 0 && (m.Encrypted != f.meta.Encrypted || !bytes.Equal(m.WrappedKey, f.meta.WrappedKey))
	})
	f.settled = f.meta.Clean && newest == 0 && len(f.damaged) == 0 && pages[1].sequence == pages[0].sequence
	return nil
}

// unseal opens the snapshot of the newest page. An encrypted log does not become
// a plain one.
func (f *File) unseal(pages *[pageCount]Meta, newest int) error {
	m := &pages[newest]
	if !m.Encrypted && (f.auth != nil || slices.ContainsFunc(pages[:], func(m Meta) bool { return m.Encrypted })) {
		return f.tampered(newest, "it says that the log is not encrypted")
	}
	if f.auth == nil || !m.Encrypted {
		return nil
	}
	if err := m.openSnapshot(f.keys); err != nil {
		return fmt.Errorf("%w (%w)", corrupt.At(f.name, int64(newest)*page.Size, "page %d cannot be decrypted", newest), err)
	}
	return nil
}

func (f *File) tampered(i int, reason string) error {
	return fmt.Errorf("%w (%w)", corrupt.At(f.name, int64(i)*page.Size, "page %d was forged: %s", i, reason), encryption.ErrTampered)
}

func (f *File) judge(pages *[pageCount]Meta, errs *[pageCount]error) error {
	for _, err := range errs {
		if errors.Is(err, ErrVersion) {
			return fmt.Errorf("%s: %w: open it with that version", f.name, err)
		}
	}
	if errs[0] != nil && errs[1] != nil {
		return f.bothLost(errs)
	}
	if errs[0] == nil || !pages[1].Clean {
		return nil
	}
	if err := f.readPage(0); err != nil {
		return err
	}
	page0 := f.buf
	if err := f.readPage(1); err != nil {
		return err
	}
	if WrittenByDgraph(page0[:], f.buf[:]) {
		return corrupt.At(f.name, 0, "page 0 (%v) is not what was closed, as page 1 tells, and reads as if Dgraph had written to it since: "+
			"use `mmapwal import --from dgraph`, or, if it certainly was not Dgraph, `mmapwal repair --not-dgraph`", errs[0])
	}
	return nil
}

// bothLost says why neither of the pages that hold the promises can be read.
func (f *File) bothLost(errs *[pageCount]error) error {
	for _, err := range errs {
		if !errors.Is(err, errNotOurs) {
			return corrupt.At(f.name, 0, "pages 0 (%v) and 1 (%v) are both lost, and with them term, vote and snapshot: "+
				"restore a backup, or add the node to its group anew", errs[0], errs[1])
		}
	}
	if err := f.readPage(0); err != nil {
		return err
	}
	size, err := f.file.Size()
	if err != nil {
		return err
	}
	if size == fileSize && f.buf == [page.Size]byte{} {
		return corrupt.At(f.name, 0, "the file has been zeroed: restore a backup, or add the node to its group anew")
	}
	if looksLikeDgraph(f.buf[:], size) {
		return fmt.Errorf("%s: %w", f.name, ErrDgraph)
	}
	return fmt.Errorf("%s: %w", f.name, ErrForeign)
}

// looksLikeDgraph: Dgraph leaves our part of the page zero, and stores a Raft
// ID, a hard state or a snapshot around it, or nothing yet. p is the first page
// of a file of size bytes, which a snapshot may fill.
func looksLikeDgraph(p []byte, size int64) bool {
	if len(p) < atSnapshotData {
		return false
	}
	for _, b := range p[oursBegin:oursEnd] {
		if b != 0 {
			return false
		}
	}
	hardState, snapshot := page.Order.Uint32(p[atHardState:]), page.Order.Uint32(p[atSnapshot+16:])
	return hardState <= maxHardState && int64(snapshot) <= size-atSnapshotData
}

// dropBlankDamage forgets pages 2 and 3 that were never written.
func (f *File) dropBlankDamage(errs *[pageCount]error) {
	kept := f.damaged[:0]
	for _, i := range f.damaged {
		if i < 2 || !errors.Is(errs[i], errBlank) {
			kept = append(kept, i)
		}
	}
	f.damaged = kept
}

// readPage reads a page with a system call: a load from the mapping can wait for the disk in a
// page fault, and in a hole of a file on a full tmpfs it is one.
func (f *File) readPage(i int) error {
	n, err := f.file.ReadAt(f.buf[:], int64(i)*page.Size)
	if n < page.Size && errors.Is(err, io.EOF) {
		return cutShort(f.name, int64(i)*page.Size+int64(n))
	}
	return err
}

// Sequence returns the number of the newest page: it grows with every store.
func (f *File) Sequence() uint64 { return f.meta.sequence }

// Meta returns what was stored last.
func (f *File) Meta() Meta { return f.meta }

// Damaged returns the pages that could not be read at Open. What they held is
// in the others; the next Commit writes pages 0 and 1 anew.
func (f *File) Damaged() []int { return f.damaged }

// Settled reports whether the log was closed cleanly, and nothing has been stored since
// Open. Then all of it is on the disk, since page 0 was before page 1 was written; unless
// it was only just made, or copied, which is made sure of before the first store.
func (f *File) Settled() bool { return f.settled && !f.stored }

// makeSure is called before a store: see Settled.
func (f *File) makeSure() error {
	if !f.Settled() {
		return nil
	}
	if err := f.fsys.SyncDir(f.dir); err != nil {
		return err
	}
	return f.Restore()
}

// Stored reports whether anything was stored since Open.
func (f *File) Stored() bool { return f.stored }

// Begun reports whether the disk knows that the log was not closed cleanly, or is told
// something else, by a Commit since Open.
func (f *File) Begun() bool { return f.begun }

// Begin makes m the Meta, and stores nothing: for a log that is settled, until there is
// something to store.
func (f *File) Begin(m Meta) error { return f.set(m) }

// Outdated reports whether a page is not encrypted, though the log is, or has the key wrapped
// as it was before: a crash interrupted CommitEverywhere, which is to be repeated.
func (f *File) Outdated() bool { return f.outdated }

// Restore stores the newest page again, in place, and syncs it. After a crash
// the page cache may hold what the disk does not, and call it clean; until this
// is done nothing may rely on the page, nor may its twin be written.
func (f *File) Restore() error {
	if err := f.readPage(f.newest); err != nil {
		return err
	}
	return f.writePage(f.newest, true)
}

// Commit makes m durable: page 1, then page 0, each synced. After an error the
// disk holds the old state or m, and which one is for the next Open to find. The
// records that the hard state was stored behind have been synced.
func (f *File) Commit(m Meta) error {
	first, second := 1, 0
	if f.newest == 1 || slices.Contains(f.damaged, 0) {
		first, second = 0, 1 // what counts, or is the only one, is overwritten last
	}
	if err := f.makeSure(); err != nil {
		return err
	}
	if err := f.wipeDamaged(); err != nil {
		return err
	}
	return f.commit(m, first, second)
}

// wipeDamaged overwrites the pages that cannot be read, synced. One that a power
// cut has torn may be newer than what counts, and lack a sector only that a later
// store would bring, if it were torn in turn.
func (f *File) wipeDamaged() error {
	for _, i := range f.damaged {
		fill := byte(0xff)
		if i >= 2 {
			fill = 0 // as if it had never been written: nothing is lost any more
		}
		for k := range f.buf {
			f.buf[k] = fill
		}
		if err := f.writePage(i, true); err != nil {
			return err
		}
	}
	f.damaged = nil
	return nil
}

// CommitClean is Commit for the last store of a run, page 0 first: so only
// damage or Dgraph, but no crash, leaves a clean page 1 beside a page 0 that
// does not match it.
func (f *File) CommitClean(m Meta) error {
	m.Clean = true
	return f.commit(m, 0, 1)
}

func (f *File) commit(m Meta, first, second int) error {
	m.Behind = End{}
	if err := f.set(m); err != nil {
		return err
	}
	if err := f.write(first, true); err != nil {
		return err
	}
	f.newest = first
	if err := f.write(second, true); err != nil {
		return err
	}
	f.newest, f.begun = 0, true // both are the newest
	return nil
}

// CommitEverywhere is Commit, and stores m in pages 2 and 3 as well, synced: no
// page has what m replaces.
func (f *File) CommitEverywhere(m Meta) error {
	if err := f.Commit(m); err != nil {
		return err
	}
	for range 2 {
		if err := f.Note(f.meta); err != nil {
			return err
		}
		if err := f.mem.Sync(int64(f.newest)*page.Size, page.Size); err != nil {
			return err
		}
	}
	f.outdated = false
	return nil
}

// set makes m what is stored next.
func (f *File) set(m Meta) error {
	if err := m.sealSnapshot(f.keys, f.random); err != nil {
		return err
	}
	m.sequence = f.meta.sequence + 1
	f.meta = m
	return nil
}

// Note stores m without a sync, but for the first store to a log that is settled: it survives the death of the process, and may
// be lost in a power cut. It does not allocate.
func (f *File) Note(m Meta) error {
	if err := f.makeSure(); err != nil {
		return err
	}
	if err := f.set(m); err != nil {
		return err
	}
	if err := f.write(f.volatile, false); err != nil {
		return err
	}
	f.newest = f.volatile
	f.volatile ^= 1 // 2, 3, 2 …
	return nil
}

func (f *File) write(i int, sync bool) error {
	f.meta.Encode(f.buf[:], f.auth)
	return f.writePage(i, sync)
}

// writePage stores f.buf. It is a system call that waits, if the file system does: a store to
// mapped memory would wait in a page fault, and stop the whole process at its next garbage
// collection.
func (f *File) writePage(i int, sync bool) error {
	at := int64(i) * page.Size
	f.stored = true
	if err := f.checkLength(); err != nil {
		return err
	}
	if _, err := f.file.WriteAt(f.buf[:], at); err != nil {
		return err
	}
	if !sync {
		return nil
	}
	return f.mem.Sync(at, page.Size)
}

// checkLength: WriteAt would quietly lengthen a file that somebody has cut short.
func (f *File) checkLength() error {
	size, err := f.file.Size()
	if err != nil || size >= fileSize {
		return err
	}
	return cutShort(f.name, size)
}

func cutShort(name string, size int64) error {
	return corrupt.At(name, size, "cut short while in use: %d bytes of %d are left", size, fileSize)
}

// Close unmaps the file, gives the lock up, and wipes the keys. It stores nothing.
func (f *File) Close() error {
	var err error
	if f.keys != nil {
		f.keys.Wipe()
	}
	if f.mem != nil {
		err = f.mem.Close()
	}
	return errors.Join(err, f.file.Close())
}
