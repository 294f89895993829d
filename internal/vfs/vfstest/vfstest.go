// Package vfstest wraps a vfs.FS so that a test sees every operation on its way
// to the disk, counts them, and makes any of them fail.
package vfstest

import (
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// Op names an operation.
type Op string

// The operations of FS, File and Mapping.
const (
	OpMkdirAll Op = "mkdir"
	OpOpenDir  Op = "opendir"
	OpList     Op = "list"
	OpCreate   Op = "create"
	OpOpen     Op = "open"
	OpRename   Op = "rename"
	OpRemove   Op = "remove"
	OpSyncDir  Op = vfs.OpSyncDir
	OpSize     Op = "size"
	OpLock     Op = "lock"
	OpTruncate Op = "truncate"
	OpReserve  Op = "reserve"
	OpPunch    Op = "punch"
	OpData     Op = "data"
	OpStart    Op = "start" // StartWrite
	OpSync     Op = vfs.OpSync
	OpMap      Op = "map"
	OpRead     Op = "read" // of a File; reads of mapped memory are not seen
	OpWrite    Op = "write"
	OpDirect   Op = "direct"   // WriteDirect
	OpPopulate Op = "populate" // PopulateRead
	OpMsync    Op = vfs.OpMsync
	OpClose    Op = "close" // of a Dir, a File or a Mapping
)

// Error returns an error of the kind with which the operating system's file
// system answers when op on name fails.
func Error(op Op, name string, errno syscall.Errno) error {
	return &fs.PathError{Op: string(op), Path: name, Err: errno}
}

// Hook is called before every operation, concurrently if the operations are.
// name is the path as the caller gave it: for a rename the old one, for what is
// done to a File or a Mapping the name it was opened under. If the hook returns
// an error the operation is not done and fails with that error. Only a Close is
// done all the same, so that nothing leaks.
type Hook func(op Op, name string) error

// FS is a vfs.FS that asks a Hook before every operation.
type FS struct {
	files
	base   vfs.FS
	before Hook

	mu     sync.Mutex
	total  int
	counts map[Op]int
}

var _ vfs.FS = (*FS)(nil)

// New returns base behind the hook before, which may be nil.
func New(base vfs.FS, before func(Op, string) error) *FS {
	f := &FS{base: base, before: before, counts: make(map[Op]int)}
	f.files = files{base: base, fsys: f}
	return f
}

// Total returns the number of operations so far.
func (f *FS) Total() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.total
}

// Count returns the number of operations so far that are one of ops.
func (f *FS) Count(ops ...Op) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, op := range ops {
		n += f.counts[op]
	}
	return n
}

// Reset sets all counters to zero.
func (f *FS) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.total = 0
	clear(f.counts)
}

func (f *FS) call(op Op, name string) error {
	f.mu.Lock()
	f.total++
	f.counts[op]++
	f.mu.Unlock()
	if f.before == nil {
		return nil
	}
	return f.before(op, name)
}

// MkdirAll is vfs.FS's.
func (f *FS) MkdirAll(dir string) error {
	if err := f.call(OpMkdirAll, dir); err != nil {
		return err
	}
	return f.base.MkdirAll(dir)
}

// OpenDir is vfs.FS's.
func (f *FS) OpenDir(name string) (vfs.Dir, error) {
	if err := f.call(OpOpenDir, name); err != nil {
		return nil, err
	}
	base, err := f.base.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &dir{files: files{base: base, fsys: f}, base: base, name: name}, nil
}

type dir struct {
	files
	base vfs.Dir
	name string
}

// SyncParents counts as a sync of the first one.
func (d *dir) SyncParents() error {
	if err := d.fsys.call(OpSyncDir, filepath.Dir(d.name)); err != nil {
		return err
	}
	return d.base.SyncParents()
}

// Lock is vfs.Dir's.
func (d *dir) Lock() error {
	if err := d.fsys.call(OpLock, d.name); err != nil {
		return err
	}
	return d.base.Lock()
}

// Unlock is not seen.
func (d *dir) Unlock() error { return d.base.Unlock() }

func (d *dir) Close() error {
	err := d.fsys.call(OpClose, d.name)
	if closeErr := d.base.Close(); err == nil {
		err = closeErr
	}
	return err
}

// files are those of an FS, or of an open directory.
type files struct {
	base vfs.Files
	fsys *FS
}

// List is vfs.Files'.
func (f files) List(dir string) ([]vfs.Info, error) {
	if err := f.fsys.call(OpList, dir); err != nil {
		return nil, err
	}
	return f.base.List(dir)
}

// Create is vfs.Files'.
func (f files) Create(name string) (vfs.File, error) {
	if err := f.fsys.call(OpCreate, name); err != nil {
		return nil, err
	}
	return f.file(name)(f.base.Create(name))
}

// Open is vfs.Files'.
func (f files) Open(name string, readOnly bool) (vfs.File, error) {
	if err := f.fsys.call(OpOpen, name); err != nil {
		return nil, err
	}
	return f.file(name)(f.base.Open(name, readOnly))
}

func (f files) file(name string) func(vfs.File, error) (vfs.File, error) {
	return func(base vfs.File, err error) (vfs.File, error) {
		if err != nil {
			return nil, err
		}
		return &file{File: base, fsys: f.fsys, name: name}, nil
	}
}

// Rename is vfs.Files'.
func (f files) Rename(oldName, newName string) error {
	if err := f.fsys.call(OpRename, oldName); err != nil {
		return err
	}
	return f.base.Rename(oldName, newName)
}

// Remove is vfs.Files'.
func (f files) Remove(name string) error {
	if err := f.fsys.call(OpRemove, name); err != nil {
		return err
	}
	return f.base.Remove(name)
}

// SyncDir is vfs.Files'.
func (f files) SyncDir(dir string) error {
	if err := f.fsys.call(OpSyncDir, dir); err != nil {
		return err
	}
	return f.base.SyncDir(dir)
}

type file struct {
	vfs.File
	fsys *FS
	name string
}

func (f *file) Renamed(name string) {
	f.name = name
	f.File.Renamed(name)
}

func (f *file) Size() (int64, error) {
	if err := f.fsys.call(OpSize, f.name); err != nil {
		return 0, err
	}
	return f.File.Size()
}

func (f *file) Lock() error {
	if err := f.fsys.call(OpLock, f.name); err != nil {
		return err
	}
	return f.File.Lock()
}

func (f *file) Truncate(size int64) error {
	if err := f.fsys.call(OpTruncate, f.name); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *file) Reserve(off, n int64) error {
	if err := f.fsys.call(OpReserve, f.name); err != nil {
		return err
	}
	return f.File.Reserve(off, n)
}

func (f *file) WriteZeros(off, n, piece int64) error {
	if err := f.fsys.call(OpWrite, f.name); err != nil {
		return err
	}
	return f.File.WriteZeros(off, n, piece)
}

func (f *file) StartWrite(off, n int64) {
	if f.fsys.call(OpStart, f.name) == nil {
		f.File.StartWrite(off, n)
	}
}

func (f *file) Punch(off, n int64) error {
	if err := f.fsys.call(OpPunch, f.name); err != nil {
		return err
	}
	return f.File.Punch(off, n)
}

func (f *file) Data(off int64) (start, end int64, err error) {
	if err := f.fsys.call(OpData, f.name); err != nil {
		return 0, 0, err
	}
	return f.File.Data(off)
}

func (f *file) Sync() error {
	if err := f.fsys.call(OpSync, f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.fsys.call(OpRead, f.name); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, off)
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fsys.call(OpWrite, f.name); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *file) WriteDirect(p []byte, off int64) error {
	if err := f.fsys.call(OpDirect, f.name); err != nil {
		return err
	}
	if off%page.Size != 0 || len(p)%page.Size != 0 || !vfs.IsAligned(p) {
		return Error(OpDirect, f.name, syscall.EINVAL)
	}
	return f.File.WriteDirect(p, off)
}

func (f *file) Map(size int64) (vfs.Mapping, error) {
	if err := f.fsys.call(OpMap, f.name); err != nil {
		return nil, err
	}
	m, err := f.File.Map(size)
	if err != nil {
		return nil, err
	}
	return &mapping{Mapping: m, file: f}, nil
}

func (f *file) Close() error {
	err := f.fsys.call(OpClose, f.name)
	if closeErr := f.File.Close(); err == nil {
		err = closeErr
	}
	return err
}

type mapping struct {
	vfs.Mapping
	file *file
}

func (m *mapping) PopulateRead(off, n int64) error {
	if err := m.file.fsys.call(OpPopulate, m.file.name); err != nil {
		return err
	}
	return m.Mapping.PopulateRead(off, n)
}

func (m *mapping) Sync(off, n int64) error {
	if err := m.file.fsys.call(OpMsync, m.file.name); err != nil {
		return err
	}
	return m.Mapping.Sync(off, n)
}

func (m *mapping) Close() error {
	err := m.file.fsys.call(OpClose, m.file.name)
	if closeErr := m.Mapping.Close(); err == nil {
		err = closeErr
	}
	return err
}
