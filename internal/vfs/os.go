//go:build unix

package vfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/dgraph-io/ristretto/v2/z"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"golang.org/x/sys/unix"
)

// OS returns the operating system's file system.
func OS() FS { return osFS{osFiles{plain: plainOnly}} }

// Plain is OS as it is where the file system can neither reserve blocks nor give them back, nor
// tell holes from data: what is written takes their place. It is for tests; with the build tag
// nofallocate OS is the same.
func Plain() FS { return osFS{osFiles{plain: true}} }

// osFS resolves paths as the process does.
type osFS struct{ osFiles }

func (o osFS) MkdirAll(dir string) error {
	dir = filepath.Clean(dir)
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		if err := o.MkdirAll(filepath.Dir(dir)); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
	}
	if errors.Is(err, fs.ErrExist) {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			err = &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		return err
	}
	if err != nil {
		return err
	}
	if err := o.SyncDir(filepath.Dir(dir)); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return syncFrom(dir)
}

type osFile struct {
	*os.File
	direct   direct
	stores   sync.RWMutex // held by each store for itself, and by Fill against all
	name     string       // now; os.File has that of the opening
	plain    bool         // as Plain has it
	locked   bool
	detached bool
}

func (f *osFile) Renamed(name string) { f.name = name }

func (f *osFile) fd() int { return int(f.Fd()) }

func (f *osFile) errorf(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

// Size moves the file's position, which nothing uses. A stat would allocate, and have
// Linux (6.13 and newer) change the file's time with the next write, for which a sync
// writes one more block.
func (f *osFile) Size() (int64, error) {
	size, err := unix.Seek(f.fd(), 0, io.SeekEnd)
	if err != nil {
		return 0, f.errorf("seek", err)
	}
	return size, nil
}

func (f *osFile) WriteAt(p []byte, off int64) (int, error) {
	f.stores.RLock()
	defer f.stores.RUnlock()
	n, err := f.File.WriteAt(p, off)
	if err != nil {
		return n, f.errorf("write", errors.Unwrap(err))
	}
	return n, nil
}

// direct is a file opened once more, for writes around the page cache.
type direct struct {
	opening sync.Once
	file    *os.File    // nil: there is no such way
	refused atomic.Bool // it turned out that there is none
}

func (f *osFile) writeAll(p []byte, off int64) error {
	_, err := f.WriteAt(p, off)
	return err
}

func (f *osFile) CanDirect() bool { return f.direct.open(f.File) }

// WriteDirect writes through the page cache where the disk is full: the kernel may need
// space of its own to write around it, and has some put aside for the other way.
func (f *osFile) WriteDirect(p []byte, off int64) error {
	n, err := f.writeDirect(p, off)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return f.writeAll(p[n:], off+int64(n))
	}
	return err
}

func (f *osFile) writeDirect(p []byte, off int64) (n int, err error) {
	if !f.direct.open(f.File) {
		return len(p), f.writeAll(p, off)
	}
	return f.writeTo(f.direct.file, p, off)
}

// writeTo writes p to the file opened once more for writes around the page cache.
func (f *osFile) writeTo(direct *os.File, p []byte, off int64) (n int, err error) {
	f.stores.RLock()
	n, err = direct.WriteAt(p, off)
	f.stores.RUnlock()
	if errors.Is(err, unix.EINVAL) {
		f.direct.refused.Store(true)
		return len(p), f.writeAll(p[n:], off+int64(n))
	}
	if err != nil {
		return n, f.errorf("write", errors.Unwrap(err))
	}
	return n, nil
}

// open opens the file once more, the first time; false if there is no way around the cache.
func (d *direct) open(f *os.File) bool {
	d.opening.Do(func() { d.file, _ = openDirect(f) })
	return d.file != nil && !d.refused.Load()
}

func (d *direct) close() {
	d.opening.Do(func() {})
	if d.file != nil {
		_ = d.file.Close() // nothing is told by it that a write did not tell
	}
}

func (f *osFile) StartWrite(off, n int64) { startWrite(f.fd(), off, n) }

func (f *osFile) Lock() error {
	if err := lock(f.fd()); err != nil {
		return f.errorf("lock", err)
	}
	f.locked = true
	return nil
}

func (f *osFile) Detach() error {
	if !mappingsStandAlone || f.detached {
		return nil
	}
	f.detached = true
	f.direct.close()
	return f.File.Close()
}

// Close gives the lock up by itself: a process that is being started at this
// moment may have a copy of the descriptor for a while, and the lock with it.
func (f *osFile) Close() error {
	if f.detached {
		return nil
	}
	if f.locked {
		_ = unix.Flock(f.fd(), unix.LOCK_UN) // closing does the same, if later
	}
	f.direct.close()
	return f.File.Close()
}

func (f *osFile) Reserve(off, n int64) error {
	err := f.allocate(off, n)
	if errors.Is(err, errors.ErrUnsupported) {
		f.direct.refused.Store(true) // zeros will be written beside what is written directly
		err = Fill(f.File, off, n, &f.stores)
	}
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err
	}
	if err != nil {
		return f.errorf("reserve", err)
	}
	return nil
}

func (f *osFile) allocate(off, n int64) error {
	if f.plain {
		return errors.ErrUnsupported
	}
	return retryEINTR(func() error { return allocate(f.fd(), off, n) })
}

// WriteZeros keeps no second descriptor: a file that is only made ready needs none.
func (f *osFile) WriteZeros(off, n, piece int64) error {
	write := f.WriteAt
	if piece == Direct {
		piece = page.Size
		if d, err := openDirect(f.File); err == nil {
			defer d.Close()
			if !f.direct.refused.Load() {
				write = func(p []byte, off int64) (int, error) { return f.writeTo(d, p, off) }
				piece = MaxZeros
			}
		}
	}
	for n > 0 {
		written, err := write(zeros[:min(n, piece)], off)
		if err != nil {
			return err
		}
		off, n = off+int64(written), n-int64(written)
	}
	return nil
}

func (f *osFile) Punch(off, n int64) error {
	err := errors.ErrUnsupported
	if !f.plain {
		err = retryEINTR(func() error { return punch(f.fd(), off, n) })
	}
	if err != nil {
		return f.errorf("punch", err)
	}
	return nil
}

func (f *osFile) Data(off int64) (start, end int64, err error) {
	size, err := f.Size()
	if err != nil || off >= size {
		return off, off, err
	}
	if f.plain {
		return off, size, nil
	}
	start, end, err = dataRun(f.fd(), off, size)
	if err != nil {
		return 0, 0, f.errorf("seek", err)
	}
	return start, end, nil
}

func (f *osFile) Sync() error {
	if err := syncFile(f.File); err != nil {
		return f.errorf(OpSync, err)
	}
	return nil
}

func (f *osFile) Map(size int64) (Mapping, error) {
	mem, err := z.Mmap(f.File, false, size)
	if err != nil {
		return nil, f.errorf("mmap", err)
	}
	return &osMapping{mem: mem, file: f}, nil
}

type osMapping struct {
	mem  []byte
	file *osFile
}

func (m *osMapping) Bytes() []byte { return m.mem }

// Prefetch asks for little at a time: of more the system may ignore the rest.
func (m *osMapping) Prefetch(off, n int64) {
	for pages := range slices.Chunk(m.pages(off, n), 128<<10) {
		prefetch(pages)
	}
}

// PopulateRead prefetches: a fault in a page that the system does not have would have it
// read far around.
func (m *osMapping) PopulateRead(off, n int64) error {
	m.Prefetch(off, n)
	pages := m.pages(off, n)
	err := retryEINTR(func() error { return populateRead(pages) })
	if errors.Is(err, errors.ErrUnsupported) {
		return nil // then a load waits for the disk
	}
	if err != nil {
		return &fs.PathError{Op: "populate", Path: m.file.name, Err: err}
	}
	return nil
}

func (m *osMapping) Sync(off, n int64) error {
	if n <= 0 {
		return nil
	}
	if err := retryEINTR(func() error { return syncMapped(m.pages(off, n), m.file.File) }); err != nil {
		return &fs.PathError{Op: OpMsync, Path: m.file.name, Err: err}
	}
	return nil
}

func (m *osMapping) Close() error {
	mem := m.mem
	m.mem = nil
	if mem == nil {
		return nil
	}
	return z.Munmap(mem)
}

// pages returns the whole pages that hold [off, off+n).
func (m *osMapping) pages(off, n int64) []byte {
	size := int64(os.Getpagesize())
	start := off &^ (size - 1)
	end := min((off+n+size-1)&^(size-1), int64(len(m.mem)))
	return m.mem[min(start, end):end:end]
}

// retryEINTR repeats a call that a signal interrupted before it did anything.
func retryEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
