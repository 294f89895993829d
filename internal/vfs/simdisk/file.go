package simdisk

import (
	"errors"
	"io/fs"
	"syscall"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// file is an open file.
type file struct {
	fsys     *FS
	name     string
	node     *inode
	writable bool
}

// step begins an operation that changes the file, which takes f.fsys.mu until
// the returned function is called.
func (f *file) step(op Op) (unlock func(), err error) {
	if stall := f.fsys.stall.Load(); stall != nil {
		(*stall)(op, f.name)
	}
	f.fsys.mu.Lock()
	if !f.writable {
		err = &fs.PathError{Op: op, Path: f.name, Err: fs.ErrPermission}
	} else {
		err = f.fsys.step(op, f.name)
	}
	return f.fsys.mu.Unlock, err
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.fsys.mu.Lock()
	defer f.fsys.mu.Unlock()
	f.node.load(0)
	return f.node.ReadAt(p, off)
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	unlock, err := f.step(OpWrite)
	defer unlock()
	if err != nil {
		return 0, err
	}
	if !f.node.allocate(off, off+int64(len(p))) {
		return 0, f.noSpace(OpWrite)
	}
	f.node.resize(max(f.node.size, off+int64(len(p))))
	f.node.load(0)
	return f.node.WriteAt(p, off)
}

func (f *file) CanDirect() bool { return true }

// WriteDirect may be on the disk at any time, as every write may.
func (f *file) WriteDirect(p []byte, off int64) error {
	if off%pageSize != 0 || len(p)%pageSize != 0 || !vfs.IsAligned(p) || off+int64(len(p)) > f.size() {
		return &fs.PathError{Op: "write", Path: f.name, Err: fs.ErrInvalid}
	}
	_, err := f.WriteAt(p, off)
	return err
}

func (f *file) Renamed(name string) { f.name = name }

func (f *file) Detach() error { return nil }

func (f *file) Size() (int64, error) {
	f.fsys.mu.Lock()
	defer f.fsys.mu.Unlock()
	return f.node.size, nil
}

func (f *file) Lock() error {
	f.fsys.mu.Lock()
	defer f.fsys.mu.Unlock()
	if f.node.owner != nil && f.node.owner != f {
		return &fs.PathError{Op: "lock", Path: f.name, Err: vfs.ErrLocked}
	}
	f.node.owner = f
	return nil
}

func (f *file) Truncate(size int64) error {
	unlock, err := f.step(OpTruncate)
	defer unlock()
	if err == nil {
		f.node.resize(size)
	}
	return err
}

func (f *file) noSpace(op Op) error {
	return &fs.PathError{Op: op, Path: f.name, Err: syscall.ENOSPC}
}

// Reserve changes nothing but which pages are holes. On a plain disk that is for vfs.Fill to
// leave so.
func (f *file) Reserve(off, n int64) error {
	unlock, err := f.step(OpReserve)
	defer unlock()
	if err == nil && !f.node.allocate(off, off+n) {
		err = f.noSpace(OpReserve)
	}
	if err != nil || !f.fsys.plain {
		return err
	}
	f.node.load(0)
	return vfs.Fill(f.node, off, n, unlocked{})
}

// unlocked is for who holds the lock of the FS.
type unlocked struct{}

func (unlocked) Lock()   {}
func (unlocked) Unlock() {}

func (f *file) WriteZeros(off, n, _ int64) error {
	unlock, err := f.step(OpWrite)
	defer unlock()
	if err == nil && !f.node.allocate(off, off+n) {
		err = f.noSpace(OpWrite)
	}
	if err == nil {
		f.node.load(0)
		f.node.clear(off, n)
	}
	return err
}

// StartWrite does nothing: what was written may be on the disk at any time.
func (f *file) StartWrite(int64, int64) {}

// Punch clears the whole range, as Linux does.
func (f *file) Punch(off, n int64) error {
	unlock, err := f.step(OpPunch)
	defer unlock()
	if err == nil && f.fsys.plain {
		err = &fs.PathError{Op: OpPunch, Path: f.name, Err: errors.ErrUnsupported}
	}
	if n = min(n, f.node.size-off); err == nil && n > 0 {
		f.node.load(0)
		f.node.clear(off, n)
		f.node.giveBack(off, off+n)
	}
	return err
}

func (f *file) Data(off int64) (start, end int64, err error) {
	f.fsys.mu.Lock()
	defer f.fsys.mu.Unlock()
	if f.fsys.plain {
		return off, max(off, f.node.size), nil
	}
	start, end = f.node.data(off)
	return start, end, nil
}

func (f *file) Sync() error {
	return f.sync(OpSync, 0, max(f.size(), 1))
}

func (f *file) size() int64 {
	size, _ := f.Size()
	return size
}

func (f *file) sync(op Op, from, to int64) error {
	unlock, err := f.step(op)
	defer unlock()
	if !errors.Is(err, ErrCut) && to > from {
		f.node.sync(from, to, err != nil)
	}
	return err
}

func (f *file) Map(size int64) (vfs.Mapping, error) {
	f.fsys.mu.Lock()
	defer f.fsys.mu.Unlock()
	f.node.load(size)
	return &mapping{file: f, mem: f.node.mem[:size:size]}, nil
}

func (f *file) Close() error {
	f.fsys.mu.Lock()
	defer f.fsys.mu.Unlock()
	if f.node.owner == f {
		f.node.owner = nil
	}
	return nil
}

// mapping is a file's memory. It must not be used after the file has grown
// beyond it.
type mapping struct {
	file *file
	mem  []byte
}

func (m *mapping) Bytes() []byte { return m.mem }

func (m *mapping) Prefetch(int64, int64) {}

func (m *mapping) PopulateRead(int64, int64) error { return nil }

func (m *mapping) Sync(off, n int64) error {
	if n <= 0 {
		return nil
	}
	return m.file.sync(OpMsync, off, off+n)
}

func (m *mapping) Close() error {
	m.mem = nil
	return nil
}
