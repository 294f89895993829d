// Package entryfile stores a run of consecutive entries in one file.
//
// The data region is the log: each record describes and checks itself, records
// are only ever appended, and one sync of a contiguous range makes an append
// durable. An entry whose index is taken replaces the suffix from there on: the
// later record wins. The slots are an index of the live entries, written when the file
// takes no more of them, and rebuilt from the records when they are damaged or missing.
//
// A file's life: Prepare or Reuse (temporary name), Publish (real name), Append and
// Sync, Terminate (its last record), Seal. A sealed file takes no more entries.
// After a crash, Scan finds the end of the records; Restore and TerminateHere, or Recover,
// make it the file's end for good.
package entryfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// Spec says what file to make.
type Spec struct {
	Number, Prev uint64 // of the file, and of the one before it
	LogID        uint64
	Salt         uint32 // random
	PrevSalt     uint32 // of the file before it
	PrevSealed   bool   // that one will be sealed before Publish
	DataBytes    int64  // capacity for records, the one that ends the file included
	Synced       bool   // each append is going to be synced
	Direct       bool   // records are likely to go around the page cache

	Keys   *encryption.DirectoryKey // nil: not encrypted
	Random io.Reader                // for the data key
}

// File is an entry file. Append, Terminate and Reserve are the writer's, one call
// at a time. Sync, Ready and ReadyAhead may run beside them and each other. So may
// those that read (Locate, Read), while the file is pinned, except beside
// Restore, Recover and Reseal. After Terminate, Seal may run beside the readers.
type File struct {
	fsys     vfs.Files
	dir      string
	path     string
	readOnly bool
	synced   bool     // each append is going to be synced
	file     vfs.File // nil: not open at the moment
	header   Header   // but for seal and sequence, as it was made
	page     int64    // offset of the header page that counts
	sequence uint64   // number of that page
	secret   *secret  // nil: not encrypted

	mapping sync.Mutex // held while the file is being mapped
	mem     atomic.Pointer[vfs.Mapping]
	seal    atomic.Pointer[Seal]  // nil: not sealed
	broken  atomic.Pointer[error] // of the first sync that failed

	index     Index        // live entries; empty once sealed
	end       atomic.Int64 // of the records
	slots     slotState
	restored  bool // the header page that counts is known to be on the disk
	lostPage  bool // the other one cannot be read, and had been written
	published bool // a prepared file has its name
	trims     bool // Trim was called

	syncing sync.Mutex   // held while records are being synced
	durable atomic.Int64 // the records before it were synced, and all earlier files; 0: those may not be

	readying sync.Mutex   // held while the background makes the file ready
	beside   *beside      // nil: not open
	growing  sync.Mutex   // held while space is being made, and zeros written to it
	reserved atomic.Int64 // the data region has blocks up to here
	ready    atomic.Int64 // it costs no more than it must to write up to here
	taken    atomic.Int64 // zeros are written only beyond; no record lies there

	punched atomic.Int64 // records that start below it may be gone, but for those of Seal.Others

	buf        [page.Size]byte // for records and headers on their way
	out        []byte          // records that are going to be written
	ways       ways            // of writing to the data region
	room       int64           // bytes that are collected there, at most
	direct     atomic.Bool     // they go, or those before them went, around the page cache
	unfinished []byte          // what the last page holds, if the cache may not have it
	outrun     bool            // the last Reserve came to where the file is not ready
	started    int64           // the disk has begun to write what this Append wrote before it
	refs       atomic.Int64
	healing    sync.Mutex
	healed     atomic.Pointer[Index] // of a sealed file with damaged slots

	slotsChecked atomic.Bool            // of a sealed encrypted file
	touched      atomic.Pointer[chunks] // chunks whose pages were asked for; nil: not needed
}

// dataStep is the step in which space is made, in bytes.
const dataStep = 1 << 20

// newFile returns the file that spec describes, empty.
func newFile(fsys vfs.Files, dir string, spec *Spec) (f *File, err error) {
	f = &File{
		fsys: fsys, dir: dir, path: filepath.Join(dir, Name(spec.Number)), synced: spec.Synced,
		header: Header{
			Number: spec.Number, Prev: spec.Prev, LogID: spec.LogID, Salt: spec.Salt, PrevSalt: spec.PrevSalt, PrevSealed: spec.PrevSealed,
			Size: SizeFor(spec.DataBytes),
		},
		page: headerPage1, restored: true,
	}
	f.end.Store(DataStart)
	f.ready.Store(DataStart)
	f.taken.Store(DataStart)
	if spec.PrevSealed || spec.Prev == 0 {
		f.durable.Store(DataStart)
	}
	f.refs.Store(1)
	if f.secret, err = newSecret(spec); f.secret != nil {
		f.header.WrappedKey = f.secret.wrapped
	}
	return f, err
}

// SizeFor returns the size of a file that takes dataBytes of records, in bytes.
func SizeFor(dataBytes int64) int64 { return DataStart + roundUp(dataBytes, page.Size) }

// Prepare makes an empty file under a temporary name, with room for dataBytes of
// records, its header durable. On an error it leaves nothing behind; ENOSPC says that the
// disk is full.
func Prepare(fsys vfs.Files, dir string, spec Spec, dataBytes int64) (_ *File, err error) {
	f, err := newFile(fsys, dir, &spec)
	if err != nil {
		return nil, err
	}
	if f.file, err = vfs.CreateAnew(fsys, f.temporary()); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Discard()
		}
	}()
	if spec.Direct {
		f.file.CanDirect() // which opens that way here, where no Save waits
	}
	if err := f.file.Truncate(f.header.Size); err != nil {
		return nil, err
	}
	if err := f.reserve(dataBytes); err != nil {
		return nil, err
	}
	if _, err := f.memory(); err != nil {
		return nil, err
	}
	if f.synced {
		if err := f.writeAhead(); err != nil {
			return nil, err
		}
	}
	if err := f.makeHeader(); err != nil {
		return nil, err
	}
	return f, f.file.Sync()
}

// makeHeader writes the first header page of a new file, and zeros to the other.
func (f *File) makeHeader() error {
	if err := f.file.WriteZeros(headerPage0, DataStart-headerPage0, page.Size); err != nil {
		return err
	}
	return f.storeHeader(f.file, nil)
}

// writeAhead makes the begin of a new file ready.
func (f *File) writeAhead() error {
	ready := min(f.reserved.Load(), DataStart+dataStep)
	if err := f.file.WriteZeros(DataStart, ready-DataStart, vfs.Direct); err != nil {
		return err
	}
	f.ready.Store(ready)
	f.taken.Store(max(f.taken.Load(), ready))
	return nil
}

func (f *File) temporary() string {
	return filepath.Join(f.dir, fmt.Sprintf("%05d%s", f.header.Number, TemporarySuffix))
}

// Publish gives a prepared file its name, durably.
func (f *File) Publish() error {
	if err := f.fsys.Rename(f.temporary(), f.path); err != nil {
		return err
	}
	f.published = true
	f.file.Renamed(f.path)
	return f.fsys.SyncDir(f.dir)
}

// Discard removes a prepared file that is not used, under the name that it has.
func (f *File) Discard() {
	_ = f.Release()
	name := f.temporary()
	if f.published {
		name = f.path
	}
	_ = f.fsys.Remove(name) // else the next Open removes it: it is empty
}

// Open opens the file with the given number of log logID and reads its header.
// It changes nothing on disk. A sealed file can be read at once, and is mapped when
// it is, or now if it is open for reading only: the owner may remove it. Another
// needs Scan or Continue first. keys are needed for an encrypted file.
//
// Damage, a cut and a file of another log are a *corrupt.Error;
// encryption.ErrKeyRequired, encryption.ErrTampered.
func Open(fsys vfs.Files, dir string, number, logID uint64, keys *encryption.DirectoryKey, readOnly bool) (_ *File, err error) {
	f := &File{fsys: fsys, dir: dir, path: filepath.Join(dir, Name(number)), readOnly: readOnly}
	f.refs.Store(1)
	if f.file, err = fsys.Open(f.path, readOnly); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Release()
		}
	}()
	size, err := f.file.Size()
	if err != nil {
		return nil, err
	}
	if size < DataStart {
		return nil, corrupt.At(f.path, size, "cut short: an entry file has at least %d bytes", DataStart)
	}
	p, err := f.loadHeader()
	if err != nil {
		return nil, err
	}
	if err := f.checkHeader(number, logID, size); err != nil {
		return nil, err
	}
	if f.secret, err = openSecret(&f.header, p, keys); err != nil {
		return nil, f.explainSecret(err)
	}
	return f, f.mapOrClose()
}

// mapOrClose keeps no descriptor of a file that is mapped later, or by now.
func (f *File) mapOrClose() error {
	if f.Sealed() && !f.readOnly {
		err := f.file.Close()
		f.file = nil
		return err
	}
	if _, err := f.memory(); err != nil {
		return err
	}
	if f.Sealed() {
		return f.file.Detach()
	}
	return nil
}

// memory returns the file's content as memory; it maps the file if need be.
func (f *File) memory() (vfs.Mapping, error) {
	if m := f.mem.Load(); m != nil {
		return *m, nil
	}
	f.mapping.Lock()
	defer f.mapping.Unlock()
	if m := f.mem.Load(); m != nil {
		return *m, nil
	}
	sealed := f.file == nil
	if sealed {
		file, err := f.fsys.Open(f.path, f.readOnly)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w (%w)", corrupt.At(f.path, 0, "the file is missing: restore it from a backup"), err)
		}
		if err != nil {
			return nil, err
		}
		f.file = file
	}
	m, err := f.file.Map(f.header.Size)
	if err != nil {
		return nil, err
	}
	f.mem.Store(&m)
	if sealed {
		f.startTouching()
		return m, f.file.Detach()
	}
	return m, nil
}

// sync makes a range durable. After an error every later one fails likewise: the
// kernel tells an error once, and may call clean then what it could not write.
func (f *File) sync(off, n int64) error {
	if err := f.broken.Load(); err != nil {
		return *err
	}
	m, err := f.memory()
	if err != nil {
		return err
	}
	if err := m.Sync(off, n); err != nil {
		f.broken.Store(&err)
		return err
	}
	return nil
}

// loadHeader finds the header page that counts, and returns it.
func (f *File) loadHeader() ([]byte, error) {
	pages, raw, errs := readHeaders(f.file)
	for _, err := range errs {
		if errors.Is(err, ErrVersion) {
			return nil, fmt.Errorf("%s: %w: open it with that version", f.path, err)
		}
		if err != nil && !errors.Is(err, errHeader) && !errors.Is(err, errContradiction) {
			return nil, err
		}
	}
	if errs[0] != nil && errs[1] != nil {
		return nil, corrupt.At(f.path, headerPage0, "both header pages are damaged: %s", corrupt.Both(errs[0], errs[1]))
	}
	for i := range raw { // a page that was never written is no loss
		other := 1 - i
		f.lostPage = f.lostPage || errs[i] != nil && (pages[other].sequence > 1 || raw[i] != [page.Size]byte{})
	}
	if errs[0] != nil || errs[1] == nil && pages[1].sequence > pages[0].sequence {
		f.header, f.page, f.sequence = pages[1], headerPage1, pages[1].sequence
		return raw[1][:], nil
	}
	f.header, f.page, f.sequence = pages[0], headerPage0, pages[0].sequence
	return raw[0][:], nil
}

// readHeaders reads both header pages; the zero Header for one that cannot be used.
func readHeaders(file vfs.File) (pages [2]Header, raw [2][page.Size]byte, errs [2]error) {
	for i, at := range [2]int64{headerPage0, headerPage1} {
		if _, errs[i] = file.ReadAt(raw[i][:], at); errs[i] != nil {
			continue
		}
		if pages[i], errs[i] = decodeHeader(raw[i][:]); errs[i] != nil {
			pages[i] = Header{}
		}
	}
	return pages, raw, errs
}

func (f *File) checkHeader(number, logID uint64, size int64) error {
	h := &f.header
	switch {
	case h.LogID != logID:
		return corrupt.At(f.path, f.page, "the file belongs to another log (%016x, not %016x)", h.LogID, logID)
	case h.Number != number:
		return corrupt.At(f.path, f.page, "the file is number %d under a wrong name", h.Number)
	case h.Size < DataStart || size < h.Size:
		return &corrupt.Error{File: f.path, Offset: size, First: h.Seal.First, Last: h.Seal.Last,
			Reason: fmt.Sprintf("cut short: %d bytes of %d are left", size, h.Size)}
	}
	if h.Sealed {
		seal := h.Seal
		f.seal.Store(&seal)
		f.end.Store(seal.End)
		f.durable.Store(seal.End)
		f.punched.Store(seal.Punched)
	}
	return nil
}

// PrevSealed reports whether the file before it was sealed when this one got its
// name.
func (f *File) PrevSealed() bool { return f.header.PrevSealed }

// Path, Number, Salt, Prev, PrevSalt and Size come from the header.
func (f *File) Path() string   { return f.path }
func (f *File) Number() uint64 { return f.header.Number }
func (f *File) Salt() uint32   { return f.header.Salt }
func (f *File) Prev() uint64   { return f.header.Prev }

// PrevSalt returns the salt of the file before it, as it was then.
func (f *File) PrevSalt() uint32 { return f.header.PrevSalt }

func (f *File) Size() int64 { return f.header.Size }

// Sealed reports whether the file takes no more entries, for good.
func (f *File) Sealed() bool { return f.seal.Load() != nil }

// sealed returns the seal; an empty one if the file is not sealed.
func (f *File) sealed() *Seal {
	if seal := f.seal.Load(); seal != nil {
		return seal
	}
	return &Seal{}
}

// End returns where the records end, in bytes; DataStart if there are none.
func (f *File) End() int64 { return f.end.Load() }

// Durable returns the end of the records that were synced, in bytes; 0 if there
// are none, and earlier files may have some that were not either.
func (f *File) Durable() int64 { return f.durable.Load() }

// First and Last return the range of live indexes, 0 and 0 if there is none.
func (f *File) First() uint64 {
	if seal := f.seal.Load(); seal != nil {
		return seal.First
	}
	return f.index.First()
}

// Last: see First.
func (f *File) Last() uint64 {
	if seal := f.seal.Load(); seal != nil {
		return seal.Last
	}
	return f.index.Last()
}

// Index returns a copy of the index of live entries, which stays as it is while
// the file grows. Empty if the file is sealed: then its slots are the index.
func (f *File) Index() Index { return f.index }

// Pin keeps the file open until Release; false if it is closed by now.
func (f *File) Pin() bool {
	for {
		n := f.refs.Load()
		if n == 0 {
			return false
		}
		if f.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release gives a pin back; the last one unmaps and closes the file. Whoever
// prepared or opened the file holds the first.
func (f *File) Release() error {
	if f.refs.Add(-1) > 0 {
		return nil
	}
	var err error
	if m := f.mem.Load(); m != nil {
		err = (*m).Close()
	}
	f.secret.wipe()
	err = errors.Join(err, f.closeBeside())
	if f.file != nil {
		err = errors.Join(err, f.file.Close())
	}
	return err
}

// Closed reports whether the last pin was given back.
func (f *File) Closed() bool { return f.refs.Load() == 0 }

// guard runs access on the file's memory; a fault on the way is an error.
func (f *File) guard(access func(mem []byte) error) error {
	m, err := f.memory()
	if err != nil {
		return err
	}
	mem := m.Bytes()
	return vfs.Guard(f.path, mem, func() error { return access(mem) })
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }
