// Package simdisk is a file system in memory that can lose its power.
//
// # What a file is
//
// Of each file there is the current content, which the kernel holds and every
// read sees, and the durable content, which the disk holds. A store changes the
// current content only. A sync makes the 4 KB pages of its range that are dirty
// durable, as they are, and the length with them. After a sync that a hook let
// fail, its pages count as clean, as Linux has it: they are not on the disk, but
// no later sync writes them unless they are stored to again.
//
// # What is lost
//
// Crash returns the file system that is found after a power cut. Each 512-byte
// sector stored to since its page was synced holds what it held then, what it
// holds now, or what it held in between (the last few contents); or it is torn at
// 8 bytes between two of these. The sectors are independent of each other, and
// so is the length of the file. Of the creations, renames and removals since the
// last SyncDir any subset is lost; a rename is lost or kept as a whole.
//
// Remains lists what may or may not be lost, unit by unit, so that a test can
// try all subsets.
//
// # When
//
// Each operation that changes something is a step. CutAt makes the one at a
// given step and all later ones fail, as if the power were gone. Watch sees each
// step before it is done, and can take images there. Stall makes steps wait.
package simdisk

import (
	"errors"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// ErrCut: the power is gone.
var ErrCut = errors.New("the power was cut")

// Op names an operation that changes something. That of a failed one stands in
// its *fs.PathError.
type Op = string

// The operations that are steps.
const (
	OpMkdir    Op = "mkdir"
	OpCreate   Op = "create"
	OpRename   Op = "rename"
	OpRemove   Op = "remove"
	OpSyncDir  Op = vfs.OpSyncDir
	OpWrite    Op = "write"
	OpTruncate Op = "truncate"
	OpReserve  Op = "reserve"
	OpPunch    Op = "punch"
	OpSync     Op = vfs.OpSync
	OpMsync    Op = vfs.OpMsync
)

// FS is a file system in memory.
type FS struct {
	files
	mu    sync.Mutex
	dirs  map[string]*directory
	steps int // done so far
	cutAt int // the step that fails; 0: none
	only  []Op
	cut   bool
	hook  func(op Op, name string) error
	watch func(s Step)
	stall atomic.Pointer[func(op Op, name string)]
	// changed: a power cut can leave something else than at the last step.
	changed bool
	loaded  []*inode // those with memory
	plain   bool     // see Plain
	full    bool     // see SetFull
}

// Step is an operation that is about to be done.
type Step struct {
	Op   Op
	Name string // of the file or directory
	// Changed: a power cut now can leave something else than one at the step before.
	Changed bool
	fsys    *FS
}

// Remains is what a power cut can leave in place of the step.
func (s Step) Remains() *Remains { return s.fsys.remains() }

var _ vfs.FS = (*FS)(nil)

// New returns an empty file system, with a root directory.
func New() *FS {
	return newFS(map[string]*directory{"/": newDirectory()})
}

func newFS(dirs map[string]*directory) *FS {
	f := &FS{dirs: dirs}
	f.files.fsys = f
	return f
}

// Plain makes it one, and all images of it, that can neither reserve blocks nor give them back,
// nor tell holes from data, as vfs.Plain.
func (f *FS) Plain() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plain = true
}

// SetFull makes the disk full, or gives it room again: what needs a block where there is a hole
// fails with ENOSPC, the rest goes on.
func (f *FS) SetFull(full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.full = full
}

// Copied returns what a program makes that copies all files and syncs none: on the disk there
// are their directories only. What is zero is a hole.
func (f *FS) Copied() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	to := newFS(make(map[string]*directory, len(f.dirs)))
	to.plain, to.changed = f.plain, true
	for path, d := range f.dirs {
		to.dirs[path] = newDirectory()
		for _, name := range slices.Sorted(maps.Keys(d.names)) {
			from := d.names[name]
			from.load(0)
			node := &inode{pages: make(map[int64]*page), fsys: to, copies: from.copies + 1}
			node.resize(from.size)
			node.load(0)
			for number := range from.pages {
				at := number * pageSize
				if end := min(at+pageSize, from.size); at < end {
					node.store(at, from.mem[at:end])
				}
				if node.pages[number] != nil {
					node.allocate(at, at+1)
				}
			}
			to.dirs[path].do(change{to: name, node: node})
		}
	}
	return to
}

// Steps returns how many steps were done.
func (f *FS) Steps() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.steps
}

// CutAt lets the power go at the n-th step from now, counted from 1. If ops are
// given it counts only those. With n 0 it stays.
func (f *FS) CutAt(n int, ops ...Op) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutAt, f.only = n, ops
}

// IsCut reports whether the power is gone.
func (f *FS) IsCut() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cut
}

// SetHook makes each step ask hook first, and fail with its error. It must not
// call the FS. Nil removes it.
func (f *FS) SetHook(hook func(op Op, name string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

// Watch makes each step tell watch first, if the power is there. It must not call
// the FS, but may take images through the Step. Nil removes it.
func (f *FS) Watch(watch func(s Step)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watch, f.changed = watch, true
}

// Stall makes each step of a file call stall first, which may wait as a disk does that hangs:
// nothing else of the FS waits with it. Nil removes it.
func (f *FS) Stall(stall func(op Op, name string)) {
	if stall == nil {
		f.stall.Store(nil)
		return
	}
	f.stall.Store(&stall)
}

// Restart is the death of the process, and not of the machine: locks are given
// up, a cut or hook is gone, and what was stored stays in the kernel's memory.
// Files of before must not be used any more.
func (f *FS) Restart() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutAt, f.only, f.cut, f.hook = 0, nil, false, nil
	for _, d := range f.dirs {
		for _, node := range d.names {
			node.owner = nil
		}
	}
}

// step counts an operation and says whether it may go on. f.mu is held.
func (f *FS) step(op Op, name string) error {
	if f.cutAt > 0 && !f.cut && (len(f.only) == 0 || slices.Contains(f.only, op)) {
		f.cutAt--
		f.cut = f.cutAt == 0
	}
	if f.cut {
		return &fs.PathError{Op: op, Path: name, Err: ErrCut}
	}
	if f.watch != nil {
		f.watch(Step{Op: op, Name: name, Changed: f.changed, fsys: f})
		f.changed = false
	}
	if f.hook != nil {
		if err := f.hook(op, name); err != nil {
			return &fs.PathError{Op: op, Path: name, Err: err}
		}
	}
	f.steps++
	return nil
}

// MkdirAll is vfs.FS's. It is durable at once, as the interface wants it.
func (f *FS) MkdirAll(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	dir = filepath.Clean(dir)
	if f.dirs[dir] != nil {
		return nil
	}
	if err := f.step(OpMkdir, dir); err != nil {
		return err
	}
	for ; f.dirs[dir] == nil; dir = filepath.Dir(dir) {
		f.dirs[dir] = newDirectory()
	}
	return nil
}

// OpenDir is vfs.FS's.
func (f *FS) OpenDir(dir string) (vfs.Dir, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, err := f.directory("open", dir)
	if err != nil {
		return nil, err
	}
	return openDir{files{fsys: f, open: d, path: filepath.Clean(dir)}}, nil
}

// openDir is an open directory.
type openDir struct{ files }

// SyncParents does nothing: MkdirAll has.
func (openDir) SyncParents() error { return nil }

// Lock does nothing: there is one process.
func (openDir) Lock() error   { return nil }
func (openDir) Unlock() error { return nil }
func (openDir) Close() error  { return nil }

// files are those of one open directory, or, if that is nil, those of all.
type files struct {
	fsys *FS
	open *directory
	path string
}

// List is vfs.Files'.
func (f files) List(dir string) ([]vfs.Info, error) {
	f.fsys.mu.Lock()
	defer f.fsys.mu.Unlock()
	d, err := f.directory("list", dir)
	if err != nil {
		return nil, err
	}
	var infos []vfs.Info
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		infos = append(infos, vfs.Info{Name: name, Size: d.names[name].size, Inode: 1 + d.names[name].copies})
	}
	for _, name := range f.inside(dir) {
		infos = append(infos, vfs.Info{Name: name, IsDir: true})
	}
	slices.SortFunc(infos, func(a, b vfs.Info) int { return strings.Compare(a.Name, b.Name) })
	return infos, nil
}

// inside returns the names of the directories in dir.
func (f files) inside(dir string) (names []string) {
	dir = filepath.Clean(dir)
	for path := range f.fsys.dirs {
		if path != dir && filepath.Dir(path) == dir {
			names = append(names, filepath.Base(path))
		}
	}
	return names
}

// directory returns the directory with the given path, or the one that is open.
func (f files) directory(op Op, path string) (*directory, error) {
	if f.open != nil {
		if filepath.Clean(path) != f.path {
			return nil, &fs.PathError{Op: op, Path: path, Err: syscall.EXDEV}
		}
		return f.open, nil
	}
	if d := f.fsys.dirs[filepath.Clean(path)]; d != nil {
		return d, nil
	}
	return nil, &fs.PathError{Op: op, Path: path, Err: fs.ErrNotExist}
}

// find returns the directory that holds name, and its file there, nil if none.
func (f files) find(op Op, name string) (*directory, *inode, error) {
	d, err := f.directory(op, filepath.Dir(name))
	if err != nil {
		return nil, nil, err
	}
	return d, d.names[filepath.Base(name)], nil
}

// Create is vfs.Files'.
func (f files) Create(name string) (vfs.File, error) {
	f.fsys.mu.Lock()
	defer f.fsys.mu.Unlock()
	d, node, err := f.find(OpCreate, name)
	if err == nil && node != nil {
		err = &fs.PathError{Op: OpCreate, Path: name, Err: fs.ErrExist}
	}
	if err == nil {
		err = f.fsys.step(OpCreate, name)
	}
	if err != nil {
		return nil, err
	}
	node = &inode{pages: make(map[int64]*page), fsys: f.fsys}
	f.fsys.changed = true
	d.do(change{to: filepath.Base(name), node: node})
	return &file{fsys: f.fsys, name: name, node: node, writable: true}, nil
}

// Open is vfs.Files'.
func (f files) Open(name string, readOnly bool) (vfs.File, error) {
	f.fsys.mu.Lock()
	defer f.fsys.mu.Unlock()
	_, node, err := f.find("open", name)
	if err == nil && node == nil {
		err = &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, err
	}
	return &file{fsys: f.fsys, name: name, node: node, writable: !readOnly}, nil
}

// Rename is vfs.Files'. What it does to each of two directories is lost or kept by itself.
func (f files) Rename(oldName, newName string) error {
	f.fsys.mu.Lock()
	defer f.fsys.mu.Unlock()
	if filepath.Dir(oldName) == filepath.Dir(newName) {
		return f.change(OpRename, oldName, filepath.Base(newName))
	}
	to, err := f.directory(OpRename, filepath.Dir(newName))
	if err != nil {
		return err
	}
	_, node, err := f.find(OpRename, oldName)
	if err != nil {
		return err
	}
	if err := f.change(OpRename, oldName, ""); err != nil {
		return err
	}
	to.do(change{to: filepath.Base(newName), node: node})
	return nil
}

// Remove is vfs.Files'. That of a directory is durable at once.
func (f files) Remove(name string) error {
	f.fsys.mu.Lock()
	defer f.fsys.mu.Unlock()
	d := f.fsys.dirs[filepath.Clean(name)]
	if f.open != nil || d == nil {
		return f.change(OpRemove, name, "")
	}
	if err := f.fsys.step(OpRemove, name); err != nil {
		return err
	}
	if len(d.names) > 0 || len(f.inside(name)) > 0 {
		return &fs.PathError{Op: OpRemove, Path: name, Err: syscall.ENOTEMPTY}
	}
	delete(f.fsys.dirs, filepath.Clean(name))
	f.fsys.changed = true
	return nil
}

// change takes a name from its file, and gives it the other one, if any.
func (f files) change(op Op, name, to string) error {
	d, node, err := f.find(op, name)
	if err != nil {
		return err
	}
	if node == nil {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	if err := f.fsys.step(op, name); err != nil {
		return err
	}
	d.do(change{from: filepath.Base(name), to: to, node: node})
	f.fsys.changed = true
	return nil
}

// SyncDir is vfs.Files'.
func (f files) SyncDir(dir string) error {
	f.fsys.mu.Lock()
	defer f.fsys.mu.Unlock()
	d, err := f.directory(OpSyncDir, dir)
	if err != nil {
		return err
	}
	if err := f.fsys.step(OpSyncDir, dir); err != nil {
		return err
	}
	if len(d.pending) > 0 {
		d.durable, d.pending, f.fsys.changed = maps.Clone(d.names), nil, true
	}
	return nil
}

// directory is the names of files, as they are now and on the disk.
type directory struct {
	names, durable map[string]*inode
	pending        []change // from durable to names
}

// change takes the name from off a file and gives it the name to; either may be
// missing.
type change struct {
	from, to string
	node     *inode
}

func (c change) String() string {
	switch {
	case c.from == "":
		return "create " + c.to
	case c.to == "":
		return "remove " + c.from
	}
	return c.from + " to " + c.to
}

func newDirectory() *directory {
	return &directory{names: make(map[string]*inode), durable: make(map[string]*inode)}
}

func (d *directory) do(c change) {
	c.apply(d.names)
	d.pending = append(d.pending, c)
}

func (c change) apply(names map[string]*inode) {
	if c.from != "" && names[c.from] == c.node {
		delete(names, c.from)
	}
	if c.to != "" {
		names[c.to] = c.node
	}
}
