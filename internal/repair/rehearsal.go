package repair

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"golang.org/x/sys/unix"
)

// rehearsal is a file system on which a repair is tried: it shows the files of one
// directory as they are on the disk, and keeps in memory what is done to them. It
// notes which of them would be changed.
type rehearsal struct {
	base vfs.FS
	dir  string

	mu      sync.Mutex
	content map[string]*content // by base name
	maps    [][]byte            // to be unmapped at the end
	touched map[string]bool     // names of the disk that were stored to, renamed, replaced or removed
}

// content is what a file holds. Pages of a file of the disk are private copies once
// they are stored to.
type content struct {
	origin string // its name on the disk; empty: it was made here
	mem    []byte
	data   int64 // all behind it is zero
}

// rehearse returns a rehearsal that begins with what dir holds.
func rehearse(base vfs.FS, dir string) (*rehearsal, error) {
	r := &rehearsal{base: base, dir: filepath.Clean(dir), content: make(map[string]*content), touched: make(map[string]bool)}
	infos, err := base.List(dir)
	if err != nil {
		return nil, err
	}
	for _, info := range infos {
		if info.IsDir {
			continue
		}
		if err := r.load(info.Name); err != nil {
			return nil, errors.Join(err, r.close())
		}
	}
	return r, nil
}

// load maps a file of the disk, privately.
func (r *rehearsal) load(name string) error {
	path := filepath.Join(r.dir, name)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil // a pipe, say: nothing of the log
	}
	c := &content{origin: name}
	r.content[name] = c
	if stat.Size == 0 {
		return nil
	}
	c.mem, err = unix.Mmap(fd, 0, int(stat.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return &fs.PathError{Op: "mmap", Path: path, Err: err}
	}
	r.maps = append(r.maps, c.mem)
	c.data, err = dataEnd(r.base, path)
	return err
}

// dataEnd returns where the last run of bytes of a file ends that may not be zero.
func dataEnd(fsys vfs.FS, path string) (end int64, err error) {
	f, err := fsys.Open(path, true)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for {
		start, next, err := f.Data(end)
		if err != nil || start >= next {
			return end, err
		}
		end = next
	}
}

// close gives the memory back.
func (r *rehearsal) close() error {
	var errs []error
	for _, mem := range r.maps {
		errs = append(errs, unix.Munmap(mem))
	}
	r.maps, r.content = nil, nil
	return errors.Join(errs...)
}

// changed returns the names of the files of the disk that would be changed, sorted.
// A spare file, which every Open may use or remove, is none: it holds no part of the log.
func (r *rehearsal) changed() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.touched {
		if !strings.HasSuffix(name, entryfile.SpareSuffix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// touch notes that a file of the disk would be changed.
func (r *rehearsal) touch(c *content) {
	if c != nil && c.origin != "" {
		r.touched[c.origin] = true
	}
}

func (r *rehearsal) find(op, path string) (*content, error) {
	if c := r.content[filepath.Base(path)]; c != nil && filepath.Dir(filepath.Clean(path)) == r.dir {
		return c, nil
	}
	return nil, &fs.PathError{Op: op, Path: path, Err: fs.ErrNotExist}
}

// resize gives c another size. Mappings go on showing what they showed.
func (r *rehearsal) resize(c *content, size int64) error {
	if size == int64(len(c.mem)) {
		return nil
	}
	old := c.mem
	c.mem, c.data = nil, min(c.data, size)
	if size == 0 {
		return nil
	}
	mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	copy(mem, old[:c.data])
	c.mem, r.maps = mem, append(r.maps, mem)
	return nil
}

// MkdirAll is vfs.FS's: the directory is there.
func (r *rehearsal) MkdirAll(string) error { return nil }

// OpenDir is vfs.FS's: nobody moves the directory.
func (r *rehearsal) OpenDir(string) (vfs.Dir, error) { return vfs.FixedDir(r), nil }

// SyncDir is vfs.FS's.
func (r *rehearsal) SyncDir(string) error { return nil }

// List is vfs.FS's.
func (r *rehearsal) List(dir string) ([]vfs.Info, error) {
	infos, err := r.base.List(dir)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	infos = slices.DeleteFunc(infos, func(i vfs.Info) bool { return !i.IsDir })
	for name, c := range r.content {
		infos = append(infos, vfs.Info{Name: name, Size: int64(len(c.mem))})
	}
	slices.SortFunc(infos, func(a, b vfs.Info) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return infos, nil
}

// Create is vfs.FS's.
func (r *rehearsal) Create(name string) (vfs.File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := r.find("create", name); err == nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	c := &content{}
	r.content[filepath.Base(name)] = c
	return &rehearsedFile{r, c, name}, nil
}

// Open is vfs.FS's.
func (r *rehearsal) Open(name string, _ bool) (vfs.File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.find("open", name)
	if err != nil {
		return nil, err
	}
	return &rehearsedFile{r, c, name}, nil
}

// Rename is vfs.FS's.
func (r *rehearsal) Rename(oldName, newName string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.find("rename", oldName)
	if err != nil {
		return err
	}
	r.touch(c)
	r.touch(r.content[filepath.Base(newName)])
	delete(r.content, filepath.Base(oldName))
	r.content[filepath.Base(newName)] = c
	return nil
}

// Remove is vfs.FS's.
func (r *rehearsal) Remove(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.find("remove", name)
	if err != nil {
		return err
	}
	r.touch(c)
	delete(r.content, filepath.Base(name))
	return nil
}

// rehearsedFile is an open file of a rehearsal.
type rehearsedFile struct {
	r    *rehearsal
	c    *content
	name string
}

// Renamed is vfs.File's.
func (f *rehearsedFile) Renamed(name string) { f.name = name }

// Lock, Reserve, Sync, Detach and Close are vfs.File's; nothing is shared, and memory keeps
// nothing durable.
func (f *rehearsedFile) Lock() error                { return nil }
func (f *rehearsedFile) Reserve(off, n int64) error { return nil }
func (f *rehearsedFile) Sync() error                { return nil }
func (f *rehearsedFile) Detach() error              { return nil }
func (f *rehearsedFile) Close() error               { return nil }

// Size is vfs.File's.
func (f *rehearsedFile) Size() (int64, error) {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	return int64(len(f.c.mem)), nil
}

// ReadAt is vfs.File's.
func (f *rehearsedFile) ReadAt(p []byte, off int64) (n int, err error) {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	if off >= int64(len(f.c.mem)) {
		return 0, io.EOF
	}
	err = vfs.Guard(f.name, f.c.mem, func() error { n = copy(p, f.c.mem[off:]); return nil })
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// WriteAt is vfs.File's.
func (f *rehearsedFile) WriteAt(p []byte, off int64) (int, error) {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	if err := f.r.resize(f.c, max(int64(len(f.c.mem)), off+int64(len(p)))); err != nil {
		return 0, f.pathError("write", err)
	}
	f.r.touch(f.c)
	f.c.data = max(f.c.data, off+int64(len(p)))
	return len(p), vfs.Guard(f.name, f.c.mem, func() error { copy(f.c.mem[off:], p); return nil })
}

// Truncate is vfs.File's.
func (f *rehearsedFile) Truncate(size int64) error {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	f.r.touch(f.c)
	return f.pathError("truncate", f.r.resize(f.c, size))
}

func (f *rehearsedFile) pathError(op string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

// WriteZeros is vfs.File's.
func (f *rehearsedFile) WriteZeros(off, n, _ int64) error {
	_, err := f.WriteAt(make([]byte, n), off)
	return err
}

// CanDirect is vfs.File's.
func (f *rehearsedFile) CanDirect() bool { return false }

// WriteDirect is vfs.File's.
func (f *rehearsedFile) WriteDirect(p []byte, off int64) error {
	_, err := f.WriteAt(p, off)
	return err
}

// StartWrite is vfs.File's.
func (f *rehearsedFile) StartWrite(int64, int64) {}

// Punch is vfs.File's: nothing is given back here.
func (f *rehearsedFile) Punch(int64, int64) error { return errors.ErrUnsupported }

// Data is vfs.File's.
func (f *rehearsedFile) Data(off int64) (start, end int64, err error) {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	return off, max(off, f.c.data), nil
}

// Map is vfs.File's.
func (f *rehearsedFile) Map(size int64) (vfs.Mapping, error) {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	if size <= 0 || size > int64(len(f.c.mem)) {
		return nil, f.pathError("mmap", fmt.Errorf("%w: %d bytes of %d", syscall.EINVAL, size, len(f.c.mem)))
	}
	return rehearsedMapping(f.c.mem[:size]), nil
}

// rehearsedMapping is the memory of a rehearsed file.
type rehearsedMapping []byte

// Bytes is vfs.Mapping's.
func (m rehearsedMapping) Bytes() []byte { return m }

// Prefetch, PopulateRead, Sync and Close are vfs.Mapping's.
func (m rehearsedMapping) Prefetch(off, n int64)           {}
func (m rehearsedMapping) PopulateRead(off, n int64) error { return nil }
func (m rehearsedMapping) Sync(off, n int64) error         { return nil }
func (m rehearsedMapping) Close() error                    { return nil }
