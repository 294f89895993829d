// Package damage is for tests of damaged logs: a file system in memory that goes
// back to a state it had in the time of a few stores, so that a log can be
// damaged, opened and read some ten thousand times a second.
package damage

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

const (
	pageSize = 4096
	// freshBytes is the memory of a new file: an entry file of the smallest size.
	freshBytes = 2 << 20
)

type block [pageSize]byte

var zeros block

// Content is a file's content. It is never changed, so images share it.
type Content struct {
	Size  int64
	pages map[int64]*block // those that are not zero
}

// Image is what a directory holds, by base name.
type Image map[string]*Content

// Disk is a file system of one directory, in memory, without a power to lose.
// It is not for concurrent use.
type Disk struct {
	// Changes counts what changed names or contents. A store of what is there
	// already is no change.
	Changes int

	dir   string
	names map[string]*node
	nodes map[*Content][]*node // of earlier loads, by what they hold, to be used again
	used  []*node              // since the last Load
	fresh []*node              // empty
}

var _ vfs.FS = (*Disk)(nil)

// NewDisk returns an empty file system for files in dir.
func NewDisk(dir string) *Disk {
	return &Disk{dir: dir, names: make(map[string]*node), nodes: make(map[*Content][]*node)}
}

// node is a file's memory.
type node struct {
	mem   []byte
	size  int64
	base  *Content // as it was loaded; nil: empty
	has   []bool   // pages that may differ from zero
	dirty []bool   // pages that may differ from base
	list  []int    // of the dirty ones
	owner *file    // of the lock
}

func newNode(bytes int64) *node {
	n := new(node)
	n.grow(bytes)
	return n
}

// grow makes room; mappings of before are not valid any more.
func (n *node) grow(size int64) {
	pages := int((size + pageSize - 1) / pageSize)
	if pages <= len(n.has) {
		return
	}
	n.mem = append(n.mem, make([]byte, pages*pageSize-len(n.mem))...)
	n.has = append(n.has, make([]bool, pages-len(n.has))...)
	n.dirty = append(n.dirty, make([]bool, pages-len(n.dirty))...)
}

// load makes a node hold c, which no page of it is dirty against.
func (n *node) load(c *Content) {
	n.grow(c.Size)
	n.base, n.size = c, c.Size
	for number, p := range c.pages {
		copy(n.mem[number*pageSize:], p[:])
		n.has[number] = true
	}
}

// reset undoes all stores since the load.
func (n *node) reset() {
	for _, k := range n.list {
		p := n.basePage(k)
		copy(n.mem[k*pageSize:], p[:])
		n.has[k], n.dirty[k] = p != &zeros, false
	}
	n.list, n.size, n.owner = n.list[:0], 0, nil
	if n.base != nil {
		n.size = n.base.Size
	}
}

func (n *node) basePage(k int) *block {
	if n.base != nil && n.base.pages[int64(k)] != nil {
		return n.base.pages[int64(k)]
	}
	return &zeros
}

// store copies p to offset off, and reports whether that changed anything.
func (n *node) store(off int64, p []byte) bool {
	n.grow(off + int64(len(p)))
	if bytes.Equal(n.mem[off:off+int64(len(p))], p) {
		return false
	}
	for k := int(off / pageSize); k <= int((off+int64(len(p))-1)/pageSize); k++ {
		if !n.dirty[k] {
			n.dirty[k] = true
			n.list = append(n.list, k)
		}
		n.has[k] = true
	}
	copy(n.mem[off:], p)
	return true
}

// clear zeroes [from, to) where it is not zero.
func (n *node) clear(from, to int64) (changed bool) {
	for k := from / pageSize; k*pageSize < to; k++ {
		if n.has[k] {
			start, end := max(from, k*pageSize), min(to, (k+1)*pageSize)
			changed = n.store(start, zeros[:end-start]) || changed
		}
	}
	return changed
}

func (n *node) resize(size int64) bool {
	if size == n.size {
		return false
	}
	n.grow(size)
	if size < n.size {
		n.clear(size, n.size)
	}
	n.size = size
	return true
}

// content returns what the node holds; base if that is it.
func (n *node) content() *Content {
	c := &Content{Size: n.size, pages: make(map[int64]*block)}
	if n.base != nil {
		maps.Copy(c.pages, n.base.pages)
	}
	changed := n.base == nil || n.base.Size != n.size
	for _, k := range n.list {
		now := (*block)(n.mem[k*pageSize : (k+1)*pageSize])
		if *now == *n.basePage(k) {
			continue
		}
		changed = true
		if *now == zeros {
			delete(c.pages, int64(k))
		} else {
			p := *now
			c.pages[int64(k)] = &p
		}
	}
	if !changed {
		return n.base
	}
	return c
}

// Load makes the disk hold img, with no file open, and no change counted.
func (d *Disk) Load(img Image) {
	for _, n := range d.used {
		n.reset()
		if n.base == nil {
			d.fresh = append(d.fresh, n)
		} else {
			d.nodes[n.base] = append(d.nodes[n.base], n)
		}
	}
	d.used = d.used[:0]
	clear(d.names)
	for name, c := range img {
		d.names[name] = d.nodeOf(c)
	}
	d.Changes = 0
}

func (d *Disk) nodeOf(c *Content) *node {
	var n *node
	if free := d.nodes[c]; len(free) > 0 {
		n, d.nodes[c] = free[len(free)-1], free[:len(free)-1]
	} else {
		n = newNode(c.Size)
		n.load(c)
	}
	d.used = append(d.used, n)
	return n
}

// Restart is the death of the process: locks are given up, and what was stored
// stays. Files of before must not be used any more.
func (d *Disk) Restart() {
	for _, n := range d.used {
		n.owner = nil
	}
}

// Forget drops what was kept of the contents that are not in use now.
func (d *Disk) Forget() { clear(d.nodes) }

// Image returns what the disk holds.
func (d *Disk) Image() Image {
	img := make(Image, len(d.names))
	for name, n := range d.names {
		img[name] = n.content()
	}
	return img
}

// Put writes to a file from outside of the log. It counts as no change.
func (d *Disk) Put(name string, off int64, p []byte) { d.names[name].store(off, p) }

// Flip flips bits of a byte. It counts as no change.
func (d *Disk) Flip(name string, off int64, bits byte) {
	d.Put(name, off, []byte{d.names[name].mem[off] ^ bits})
}

// MkdirAll is vfs.FS's.
func (d *Disk) MkdirAll(string) error { return nil }

// OpenDir is vfs.FS's.
func (d *Disk) OpenDir(string) (vfs.Dir, error) { return vfs.FixedDir(d), nil }

// SyncDir is vfs.FS's.
func (d *Disk) SyncDir(string) error { return nil }

// List is vfs.FS's.
func (d *Disk) List(string) ([]vfs.Info, error) {
	infos := make([]vfs.Info, 0, len(d.names))
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		infos = append(infos, vfs.Info{Name: name, Size: d.names[name].size})
	}
	return infos, nil
}

func (d *Disk) find(op, path string) (*node, error) {
	if n := d.names[filepath.Base(path)]; n != nil && filepath.Dir(path) == d.dir {
		return n, nil
	}
	return nil, &fs.PathError{Op: op, Path: path, Err: fs.ErrNotExist}
}

// Create is vfs.FS's.
func (d *Disk) Create(path string) (vfs.File, error) {
	if _, err := d.find("create", path); err == nil {
		return nil, &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	var n *node
	if k := len(d.fresh); k > 0 {
		n, d.fresh = d.fresh[k-1], d.fresh[:k-1]
	} else {
		n = newNode(freshBytes)
	}
	d.used = append(d.used, n)
	d.names[filepath.Base(path)] = n
	d.Changes++
	return &file{disk: d, path: path, node: n, writable: true}, nil
}

// Open is vfs.FS's.
func (d *Disk) Open(path string, readOnly bool) (vfs.File, error) {
	n, err := d.find("open", path)
	if err != nil {
		return nil, err
	}
	return &file{disk: d, path: path, node: n, writable: !readOnly}, nil
}

// Rename is vfs.FS's.
func (d *Disk) Rename(from, to string) error {
	n, err := d.find("rename", from)
	if err != nil {
		return err
	}
	delete(d.names, filepath.Base(from))
	d.names[filepath.Base(to)] = n
	d.Changes++
	return nil
}

// Remove is vfs.FS's.
func (d *Disk) Remove(path string) error {
	if _, err := d.find("remove", path); err != nil {
		return err
	}
	delete(d.names, filepath.Base(path))
	d.Changes++
	return nil
}

func (d *Disk) count(changed bool) {
	if changed {
		d.Changes++
	}
}

// file is an open file.
type file struct {
	disk     *Disk
	path     string
	node     *node
	writable bool
}

// Renamed is vfs.File's.
func (f *file) Renamed(name string) { f.path = name }

// Detach is vfs.File's.
func (f *file) Detach() error { return nil }

func (f *file) write(op string) error {
	if f.writable {
		return nil
	}
	return &fs.PathError{Op: op, Path: f.path, Err: fs.ErrPermission}
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if off >= f.node.size {
		return 0, io.EOF
	}
	n := copy(p, f.node.mem[off:f.node.size])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.write("write"); err != nil {
		return 0, err
	}
	f.disk.count(f.node.resize(max(f.node.size, off+int64(len(p)))))
	f.disk.count(f.node.store(off, p))
	return len(p), nil
}

func (f *file) Size() (int64, error) { return f.node.size, nil }

func (f *file) Lock() error {
	if f.node.owner != nil && f.node.owner != f {
		return &fs.PathError{Op: "lock", Path: f.path, Err: vfs.ErrLocked}
	}
	f.node.owner = f
	return nil
}

func (f *file) Truncate(size int64) error {
	if err := f.write("truncate"); err != nil {
		return err
	}
	f.disk.count(f.node.resize(size))
	return nil
}

func (f *file) Reserve(off, n int64) error {
	if err := f.write("reserve"); err != nil {
		return err
	}
	f.disk.count(f.node.resize(max(f.node.size, off+n)))
	return nil
}

func (f *file) WriteZeros(off, n, _ int64) error {
	if err := f.write("write"); err != nil {
		return err
	}
	f.disk.count(f.node.clear(off, off+n))
	return nil
}

func (f *file) CanDirect() bool { return true }

func (f *file) WriteDirect(p []byte, off int64) error {
	_, err := f.WriteAt(p, off)
	return err
}

func (f *file) StartWrite(int64, int64) {}

func (f *file) Punch(off, n int64) error {
	if err := f.write("punch"); err != nil {
		return err
	}
	f.disk.count(f.node.clear(off, min(off+n, f.node.size)))
	return nil
}

func (f *file) Data(off int64) (start, end int64, err error) {
	has := f.node.has[:(f.node.size+pageSize-1)/pageSize]
	k := int(off / pageSize)
	for k < len(has) && !has[k] {
		k++
	}
	if k >= len(has) {
		return off, off, nil
	}
	start = max(off, int64(k)*pageSize)
	for k < len(has) && has[k] {
		k++
	}
	return start, min(int64(k)*pageSize, f.node.size), nil
}

func (f *file) Sync() error { return nil }

func (f *file) Map(size int64) (vfs.Mapping, error) {
	if size > f.node.size {
		return nil, &fs.PathError{Op: "map", Path: f.path, Err: errors.ErrUnsupported} // it would fault
	}
	return &mapping{f.node.mem[:size:size]}, nil
}

func (f *file) Close() error {
	if f.node.owner == f {
		f.node.owner = nil
	}
	return nil
}

type mapping struct{ mem []byte }

func (m *mapping) Bytes() []byte { return m.mem }

func (m *mapping) Prefetch(int64, int64)           {}
func (m *mapping) PopulateRead(int64, int64) error { return nil }
func (m *mapping) Sync(int64, int64) error         { return nil }
func (m *mapping) Close() error                    { m.mem = nil; return nil }
