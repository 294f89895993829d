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
// notes which of them would be changed. A file that nothing is done to is read from the disk,
// and takes neither memory nor a mapping while nobody has it open.
type rehearsal struct {
	base vfs.FS
	dir  string

	mu      sync.Mutex
	content map[string]*content // by base name
	maps    [][]byte            // to be unmapped at the end
	touched map[string]bool     // names of the disk that were stored to, renamed, replaced or removed
}

// content is what a file holds.
type content struct {
	origin string // its name on the disk; empty: it was made here
	size   int64
	own    bool   // what it holds is in mem, and was copied there from the disk if need be
	mem    []byte // size bytes; pages of a file of the disk are private copies once they are stored to
	data   int64  // all behind it is zero
}

// rehearse returns a rehearsal that begins with what dir holds.
func rehearse(base vfs.FS, dir string) (*rehearsal, error) {
	r := &rehearsal{base: base, dir: filepath.Clean(dir), content: make(map[string]*content), touched: make(map[string]bool)}
	infos, err := base.List(dir)
	if err != nil {
		return nil, err
	}
	for _, info := range infos {
		if !info.IsDir {
			r.content[info.Name] = &content{origin: info.Name, size: info.Size}
		}
	}
	return r, nil
}

// take copies a file of the disk, before it is stored to.
func (r *rehearsal) take(c *content) (err error) {
	if c.own {
		return nil
	}
	path := filepath.Join(r.dir, c.origin)
	f, err := r.base.Open(path, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if c.data, err = dataEnd(f); err != nil {
		return err
	}
	if c.size > 0 {
		if c.mem, err = r.copyOf(f, path, c); err != nil {
			return err
		}
		r.maps = append(r.maps, c.mem)
	}
	c.own = true
	return nil
}

// copyOf returns memory that holds what a file does. The system copies only the pages that
// are stored to.
func (r *rehearsal) copyOf(f vfs.File, path string, c *content) ([]byte, error) {
	if r.base == vfs.OS() {
		return mapPrivate(path, c.size)
	}
	mem, err := unix.Mmap(-1, 0, int(c.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	if _, err := f.ReadAt(mem[:min(c.data, c.size)], 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.Join(err, unix.Munmap(mem))
	}
	return mem, nil
}

// mapPrivate maps a file, for stores that it does not see.
func mapPrivate(path string, size int64) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	mem, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return nil, &fs.PathError{Op: "mmap", Path: path, Err: err}
	}
	return mem, nil
}

// dataEnd returns where the last run of bytes of a file ends that may not be zero.
func dataEnd(f vfs.File) (end int64, err error) {
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
	if size == c.size {
		return nil
	}
	if err := r.take(c); err != nil {
		return err
	}
	data := min(c.data, size)
	if size == 0 {
		c.mem, c.size, c.data = nil, 0, 0
		return nil
	}
	mem, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	r.maps = append(r.maps, mem)
	old := c.mem // the disk may fail to give what it holds
	if err := vfs.Guard(filepath.Join(r.dir, c.origin), old, func() error { copy(mem, old[:data]); return nil }); err != nil {
		return err
	}
	c.mem, c.size, c.data = mem, size, data
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
		infos = append(infos, vfs.Info{Name: name, Size: c.size})
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
	c := &content{own: true}
	r.content[filepath.Base(name)] = c
	return &rehearsedFile{r: r, c: c, name: name}, nil
}

// Open is vfs.FS's.
func (r *rehearsal) Open(name string, _ bool) (vfs.File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.find("open", name)
	if err != nil {
		return nil, err
	}
	f := &rehearsedFile{r: r, c: c, name: name}
	if !c.own {
		f.disk, err = r.base.Open(filepath.Join(r.dir, c.origin), true)
	}
	return f, err
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
	disk vfs.File // to read from until something is stored; nil: it was by the time of Open
}

// Renamed is vfs.File's.
func (f *rehearsedFile) Renamed(name string) { f.name = name }

// Lock, Reserve and Sync are vfs.File's; nothing is shared, and memory keeps nothing durable.
func (f *rehearsedFile) Lock() error                { return nil }
func (f *rehearsedFile) Reserve(off, n int64) error { return nil }
func (f *rehearsedFile) Sync() error                { return nil }

// Detach is vfs.File's.
func (f *rehearsedFile) Detach() error {
	if f.disk == nil {
		return nil
	}
	return f.disk.Detach()
}

// Close is vfs.File's.
func (f *rehearsedFile) Close() error {
	if f.disk == nil {
		return nil
	}
	return f.disk.Close()
}

// Size is vfs.File's.
func (f *rehearsedFile) Size() (int64, error) {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	return f.c.size, nil
}

// ReadAt is vfs.File's.
func (f *rehearsedFile) ReadAt(p []byte, off int64) (n int, err error) {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	if !f.c.own {
		return f.disk.ReadAt(p, off)
	}
	if off >= f.c.size {
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
	if err := f.r.resize(f.c, max(f.c.size, off+int64(len(p)))); err != nil {
		return 0, f.pathError("write", err)
	}
	if err := f.r.take(f.c); err != nil {
		return 0, err
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
	if !f.c.own {
		return f.disk.Data(off)
	}
	return off, max(off, f.c.data), nil
}

// Map is vfs.File's.
func (f *rehearsedFile) Map(size int64) (vfs.Mapping, error) {
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	m := &rehearsedMapping{file: f, size: size}
	switch {
	case size <= 0 || size > f.c.size:
		return nil, f.pathError("mmap", fmt.Errorf("%w: %d bytes of %d", syscall.EINVAL, size, f.c.size))
	case f.c.own:
		m.mem = f.c.mem[:size]
		return m, nil
	}
	var err error
	m.disk, err = f.disk.Map(size)
	return m, err
}

// rehearsedMapping is the memory of a rehearsed file: that of the disk until something is
// stored.
type rehearsedMapping struct {
	file *rehearsedFile
	size int64
	mem  []byte      // private; nil: what disk shows
	disk vfs.Mapping // nil: something was stored by the time of Map
}

// Bytes is vfs.Mapping's.
func (m *rehearsedMapping) Bytes() []byte {
	m.file.r.mu.Lock()
	defer m.file.r.mu.Unlock()
	return m.bytes()
}

func (m *rehearsedMapping) bytes() []byte {
	switch c := m.file.c; {
	case m.mem != nil:
	case c.own && c.size >= m.size:
		m.mem = c.mem[:m.size]
	default:
		return m.disk.Bytes()
	}
	return m.mem
}

// Prefetch, PopulateRead and Sync are vfs.Mapping's.
func (m *rehearsedMapping) Prefetch(off, n int64)           {}
func (m *rehearsedMapping) PopulateRead(off, n int64) error { return nil }
func (m *rehearsedMapping) Sync(off, n int64) error         { return nil }

// Close is vfs.Mapping's.
func (m *rehearsedMapping) Close() error {
	if m.disk == nil {
		return nil
	}
	return m.disk.Close()
}
