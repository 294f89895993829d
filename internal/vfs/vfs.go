// Package vfs is the one door between the engine and the file system.
//
// Everything the engine does to a disk goes through FS, File and Mapping, so a test can
// put a disk behind the door that loses power, runs full, waits, or fails at its n-th
// operation. OS returns the real one.
//
// Mapped memory is read, through Bytes and Guard, and never written to: a store to a page that
// the file system has to reserve, copy, or thaw first waits in a page fault, and the next garbage
// collection waits for it, with all goroutines. A goroutine that waits in a system call, as
// WriteAt does, holds nothing up.
package vfs

import (
	"errors"
	"io"
	"io/fs"
	"time"
	"unsafe"

	"github.com/seed-2fef92ad/raftwal/internal/page"
)

// Errors that an FS answers with, besides those of the operating system.
var (
	// ErrLocked: another open file holds the lock.
	ErrLocked = errors.New("locked by another owner")
	// ErrNoLocks: the file system cannot lock files, so one owner cannot be ensured.
	ErrNoLocks = errors.New("the file system does not support file locks")
	// ErrFault: the kernel could not back a page of mapped memory. The disk is
	// failing, or the file was cut short under the mapping.
	ErrFault = errors.New("page fault in mapped memory")
)

// NotRegularError says what is in the place of a file: a log does not follow links, and
// waits for no FIFO.
type NotRegularError struct {
	Kind string // "a FIFO", "a symbolic link" …
}

func (e *NotRegularError) Error() string {
	return "this is " + e.Kind + ", and no regular file: put the file itself here, or move what is not the log's away"
}

// MaxZeros is the size of the largest piece of File.WriteZeros, in bytes: so long does what
// else is written wait for the disk.
const MaxZeros = 256 << 10

// Direct as the size of the pieces of File.WriteZeros says to write around the page cache, as
// WriteDirect does, or else page by page.
const Direct = 0

// Aligned returns n zero bytes that begin with a page of memory, for File.WriteDirect.
func Aligned(n int) []byte { return align(make([]byte, n+page.Size-1), n) }

// align returns the n bytes of p that begin with its first page.
func align(p []byte, n int) []byte {
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(p))) & (page.Size - 1)
	return p[skip:][:n:n]
}

// IsAligned reports whether p begins with a page of memory.
func IsAligned(p []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(p)))&(page.Size-1) == 0
}

// The operations of an *fs.PathError that comes from a failed sync.
const (
	OpSync    = "sync"
	OpMsync   = "msync"
	OpSyncDir = "syncdir"
)

// SyncFailed reports whether err is that of a sync. After one, nobody knows what
// the disk holds, and the kernel may call clean what it could not write.
func SyncFailed(err error) bool {
	var path *fs.PathError
	return errors.As(err, &path) && (path.Op == OpSync || path.Op == OpMsync || path.Op == OpSyncDir)
}

// OpenFailed reports whether err is that of opening a file: nothing has changed by that.
func OpenFailed(err error) bool {
	var path *fs.PathError
	return errors.As(err, &path) && path.Op == "open"
}

// FS is a file system. All its methods may be called concurrently.
type FS interface {
	Files
	// MkdirAll makes dir and its missing parents (mode 0700) durably: each new
	// directory's parent is synced.
	MkdirAll(dir string) error
	// OpenDir opens dir, for all work on its files from then on.
	OpenDir(dir string) (Dir, error)
}

// Files are the files of directories, by their paths.
type Files interface {
	// List returns the entries of dir, sorted by name.
	List(dir string) ([]Info, error)
	// Create makes a new, empty file (mode 0600). The name must not exist.
	Create(name string) (File, error)
	// Open opens an existing file, for reading only or for both. A link, or what is no
	// regular file, is a *NotRegularError.
	Open(name string, readOnly bool) (File, error)
	// Rename replaces newName with oldName. SyncDir makes it durable.
	Rename(oldName, newName string) error
	// Remove deletes a file, or an empty directory. SyncDir makes it durable.
	Remove(name string) error
	// SyncDir makes the names in dir durable.
	SyncDir(dir string) error
}

// Dir is an open directory. It stays the one that was opened, wherever it is moved to, and
// whatever takes its place: names are paths that begin with the one it was opened by, as
// errors show them, but the rest alone is looked up, in the directory. Only what creates or
// opens a file needs a descriptor.
type Dir interface {
	Files
	// SyncParents makes the directory's own name durable, and those of all directories
	// that it lies in.
	SyncParents() error
	// Lock takes the exclusive lock of the directory without waiting: ErrLocked if it is
	// taken, ErrNoLocks. Unlock or Close gives it up.
	Lock() error
	// Unlock gives it up.
	Unlock() error
	// Close gives the directory up. Its open files stay open.
	Close() error
}

// FixedDir returns a Dir for a file system in which no directory is ever moved: names are
// looked up in files, and only MkdirAll makes directories.
func FixedDir(files Files) Dir { return fixedDir{files} }

type fixedDir struct{ Files }

func (fixedDir) SyncParents() error { return nil }
func (fixedDir) Lock() error        { return nil }
func (fixedDir) Unlock() error      { return nil }
func (fixedDir) Close() error       { return nil }

// IsBlank reports whether a file begins with zeros, a page of them or all it has.
func IsBlank(file File) bool {
	var p [page.Size]byte
	n, err := file.ReadAt(p[:], 0)
	return (err == nil || err == io.EOF) && p == [page.Size]byte{} && n <= len(p)
}

// CreateAnew is Create for a temporary name: what an earlier attempt left there
// is removed.
func CreateAnew(fsys Files, name string) (File, error) {
	f, err := fsys.Create(name)
	if !errors.Is(err, fs.ErrExist) {
		return f, err
	}
	if err := fsys.Remove(name); err != nil {
		return nil, err
	}
	return fsys.Create(name)
}

// Info describes one entry of a directory.
type Info struct {
	Name     string // base name
	Size     int64  // bytes
	IsDir    bool
	Modified time.Time // when it was last written to; zero if unknown
	Inode    uint64    // its number, which no other file of the file system has now; 0 if unknown
	Changed  time.Time // when anything of it was last changed, by whomever; zero if unknown
}

// File is an open file. ReadAt, WriteAt, WriteZeros, WriteDirect, StartWrite and Size may be
// called concurrently, those that write for different bytes, and so may Reserve beside them; the
// other methods by one goroutine at a time.
type File interface {
	io.ReaderAt
	io.WriterAt

	// Size returns the length in bytes.
	Size() (int64, error)
	// Lock takes the exclusive lock without waiting: ErrLocked if it is taken.
	// Closing the file gives it up.
	Lock() error
	// Truncate sets the length; what is added reads as zeros and has no blocks.
	Truncate(size int64) error
	// Reserve allocates blocks for [off, off+n), which lies inside the file. It changes no
	// byte of it and no length, whatever is stored there, before or meanwhile; where the
	// system cannot allocate, it is Fill. ENOSPC: some of the range may have blocks by then.
	// What is stored to it through this File and its mappings is not lost.
	Reserve(off, n int64) error
	// WriteZeros writes zeros to [off, off+n) inside the file, in pieces of so many
	// bytes, MaxZeros at most, or Direct. The system may cache a piece as one: large ones
	// cost less to make, but a store to one of their bytes may have all of it written.
	WriteZeros(off, n, piece int64) error
	// Punch gives back the blocks that lie wholly inside [off, off+n); they read
	// as zeros from then on. ErrUnsupported where the file system cannot.
	Punch(off, n int64) error
	// Data returns the first run of bytes at or behind off that may differ from
	// zero, and off == start == end if there is none. What lies in no run reads as
	// zeros: so does what follows a run, unless that is the end of the file. It spares
	// reading holes.
	Data(off int64) (start, end int64, err error)
	// CanDirect reports whether there is a way around the page cache, as far as is known.
	CanDirect() bool
	// WriteDirect is WriteAt of whole pages from memory that Aligned returned. It goes around
	// the page cache where the system can, and waits for the disk: that costs less than a
	// write through the cache if much is written that is synced at once. What is read of
	// the pages afterwards comes from the disk. Nothing may be written through the cache at
	// the same time within a megabyte: where the system caches several pages as one, it could
	// not keep the cache coherent, and would have the next sync fail.
	WriteDirect(p []byte, off int64) error
	// StartWrite has the system begin to write [off, off+n) to the drive, which a sync
	// then waits for less. It promises nothing, and tells no error: a sync does.
	StartWrite(off, n int64)
	// Sync makes content and length durable, down to the drive.
	Sync() error
	// Map maps the first size bytes, shared, to be read. It shows what is written to the file.
	Map(size int64) (Mapping, error)
	// Renamed tells the file its new name, for errors to show, those of its
	// mappings too. Nothing else may be under way.
	Renamed(name string)
	// Detach gives up the descriptor where mappings can do without. Afterwards
	// only Renamed and Close may be called.
	Detach() error
	// Close closes the descriptor; mappings stay valid.
	Close() error
}

// Mapping is a file's content as memory.
type Mapping interface {
	// Bytes returns the memory, to be read inside Guard only. A store to it is a fault. The
	// slice must not be used after Close.
	Bytes() []byte
	// Prefetch has the system begin to read the pages of [off, off+n), those and no others,
	// unless it has them.
	Prefetch(off, n int64)
	// PopulateRead makes the pages of [off, off+n) present, to be read: an error
	// where a load would fault. It waits for the disk in the kernel, where a load
	// would keep other goroutines from running.
	PopulateRead(off, n int64) error
	// Sync makes durable, down to the drive, what was written to the file's pages that hold
	// [off, off+n). It may run beside writes and reads.
	Sync(off, n int64) error
	// Close unmaps.
	Close() error
}
