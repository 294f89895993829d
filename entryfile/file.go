// Package entryfile stores a run of consecutive entries in one file.
//
// The data region is the log: each record describes and checks itself, records
// are only ever appended, and one sync of a contiguous range makes an append
// durable. An entry whose index is taken replaces the suffix from there on: the
// later record wins. The slots are an index of the live entries, rebuilt from
// the records when they are damaged or did not reach the disk.
//
// A file's life: Prepare (temporary name), Publish (real name), Append and Sync,
// Seal. A sealed file takes no more entries. After a crash, Scan finds the end
// of the records, and Recover makes it the file's end for good.
package entryfile

import (
	"errors"
	"fmt"
	"io"
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
	DataBytes    int64  // capacity for records

	Keys   *encryption.DirectoryKey // nil: not encrypted
	Random io.Reader                // for the data key
}

// File is an entry file. Those methods that write must not run concurrently with
// each other; those that read (Locate, Measure, Fill) may run beside them and
// each other, while the file is pinned, except beside Recover and Reseal.
type File struct {
	fsys   vfs.FS
	dir    string
	path   string
	file   vfs.File
	mem    vfs.Mapping
	header Header
	page   int64   // offset of the header page that counts
	secret *secret // nil: not encrypted

	index    Index // live entries; empty once sealed
	end      int64 // of the records
	durable  int64 // the records before it were synced
	reserved int64 // the data region has blocks and pages up to here
	slotsEnd int64 // the slots have pages up to here; beyond, they are zero
	stale    bool  // slots or seal must be written anew
	restored bool  // the header page that counts is known to be on the disk

	punched atomic.Int64 // records that start below it may be gone, but for those of Seal.Others

	buf     [page.Size]byte // for records, slots and headers on their way
	refs    atomic.Int64
	healing sync.Mutex
	healed  atomic.Pointer[Index] // of a sealed file with damaged slots

	slotsChecked atomic.Bool // of a sealed encrypted file
}

// Sizes of the steps in which space is made ready, in bytes.
const (
	dataStep = 1 << 20
	slotStep = 64 << 10
)

// Prepare makes an empty file under a temporary name, with room for dataBytes of
// records of count entries, its header durable. On an error it leaves nothing
// behind; ENOSPC says that the disk is full.
func Prepare(fsys vfs.FS, dir string, spec Spec, dataBytes int64, count int) (_ *File, err error) {
	f := &File{
		fsys: fsys, dir: dir, path: filepath.Join(dir, Name(spec.Number)),
		header: Header{
			Number: spec.Number, Prev: spec.Prev, LogID: spec.LogID, Salt: spec.Salt, PrevSalt: spec.PrevSalt, PrevSealed: spec.PrevSealed,
			Size: DataStart + roundUp(spec.DataBytes, page.Size),
		},
		page: headerPage1, end: DataStart, durable: DataStart, reserved: DataStart,
		restored: true,
	}
	f.refs.Store(1)
	if f.secret, err = newSecret(&spec); err != nil {
		return nil, err
	}
	if f.secret != nil {
		f.header.WrappedKey = f.secret.wrapped
	}
	if f.file, err = vfs.CreateAnew(fsys, f.temporary()); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Discard()
		}
	}()
	if err := f.file.Truncate(f.header.Size); err != nil {
		return nil, err
	}
	if err := f.file.Reserve(0, DataStart); err != nil {
		return nil, err
	}
	if f.mem, err = f.file.Map(f.header.Size); err != nil {
		return nil, err
	}
	if err := f.mem.Populate(headerPage0, DataStart-headerPage0); err != nil {
		return nil, err
	}
	// At least the first step is taken here, so that the first Append need not.
	if err := f.Reserve(max(dataBytes, 1), max(count, 1)); err != nil {
		return nil, err
	}
	if err := f.storeHeader(); err != nil {
		return nil, err
	}
	return f, f.file.Sync()
}

func (f *File) temporary() string {
	return filepath.Join(f.dir, fmt.Sprintf("%05d%s", f.header.Number, TemporarySuffix))
}

// Publish gives a prepared file its name, durably.
func (f *File) Publish() error {
	if err := f.fsys.Rename(f.temporary(), f.path); err != nil {
		return err
	}
	f.file.Renamed(f.path)
	return f.fsys.SyncDir(f.dir)
}

// Discard removes a prepared file that was not published.
func (f *File) Discard() {
	_ = f.Release()
	_ = f.fsys.Remove(f.temporary()) // else the next Open removes it
}

// Open opens the file with the given number of log logID and reads its header.
// It changes nothing on disk. A sealed file can be read at once; another needs
// Scan or Continue first. keys are needed for an encrypted file.
//
// Damage, a cut and a file of another log are a *corrupt.Error;
// encryption.ErrKeyRequired, encryption.ErrTampered.
func Open(fsys vfs.FS, dir string, number, logID uint64, keys *encryption.DirectoryKey, readOnly bool) (_ *File, err error) {
	f := &File{fsys: fsys, dir: dir, path: filepath.Join(dir, Name(number))}
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
	if f.mem, err = f.file.Map(size); err != nil {
		return nil, err
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
	return f, nil
}

// loadHeader finds the header page that counts, and returns it.
func (f *File) loadHeader() ([]byte, error) {
	var raw [2][page.Size]byte
	var pages [2]Header
	var errs [2]error
	for i, at := range [2]int64{headerPage0, headerPage1} {
		if err := f.guard(func(mem []byte) error { copy(raw[i][:], mem[at:]); return nil }); err != nil {
			return nil, err
		}
		pages[i], errs[i] = decodeHeader(raw[i][:])
	}
	for _, err := range errs {
		if errors.Is(err, ErrVersion) {
			return nil, fmt.Errorf("%s: %w: open it with that version", f.path, err)
		}
	}
	if errs[0] != nil && errs[1] != nil {
		return nil, corrupt.At(f.path, headerPage0, "both header pages are damaged: %v; %v", errs[0], errs[1])
	}
	if errs[0] != nil || errs[1] == nil && pages[1].sequence > pages[0].sequence {
		f.header, f.page = pages[1], headerPage1
		return raw[1][:], nil
	}
	f.header, f.page = pages[0], headerPage0
	return raw[0][:], nil
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
		f.end, f.durable = h.Seal.End, h.Seal.End
		f.punched.Store(h.Seal.Punched)
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

// Sealed reports whether the file takes no more entries.
func (f *File) Sealed() bool { return f.header.Sealed }

// End returns where the records end, in bytes; DataStart if there are none.
func (f *File) End() int64 { return f.end }

// Durable returns the end of the records that were synced, in bytes.
func (f *File) Durable() int64 { return f.durable }

// First and Last return the range of live indexes, 0 and 0 if there is none.
func (f *File) First() uint64 {
	if f.header.Sealed {
		return f.header.Seal.First
	}
	return f.index.First()
}

// Last: see First.
func (f *File) Last() uint64 {
	if f.header.Sealed {
		return f.header.Seal.Last
	}
	return f.index.Last()
}

// Index returns a copy of the index of live entries, which stays as it is while
// the file grows. Empty if the file is sealed: then its slots are the index.
func (f *File) Index() Index { return f.index }

// Pin keeps the file mapped until Release; false if it is closed by now.
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
	if f.mem != nil {
		err = f.mem.Close()
	}
	f.secret.wipe()
	return errors.Join(err, f.file.Close())
}

// guard runs access on the file's memory; a fault on the way is an error.
func (f *File) guard(access func(mem []byte) error) error {
	mem := f.mem.Bytes()
	return vfs.Guard(f.path, mem, func() error { return access(mem) })
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }
