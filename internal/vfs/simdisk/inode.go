package simdisk

import (
	"bytes"
	"io"
	"slices"
)

const (
	pageSize   = 4096
	sectorSize = 512
	perPage    = pageSize / sectorSize
	// maxContents bounds how many contents of a sector are remembered.
	maxContents = 8
)

// pageData is the content of a page, and a sum of it.
type pageData struct {
	bytes [pageSize]byte
	sum   uint64
}

type sector [sectorSize]byte

// inode is a file's content.
type inode struct {
	mem   []byte          // the current content; nil: as pages have it, all of it durable
	size  int64           // now
	sizes []int64         // since the last sync, that on the disk first; empty: as it is now
	pages map[int64]*page // those that were ever stored to, by number
	owner *file           // of the lock
	fsys  *FS

	blocks []uint64 // a bit for each page: it is no hole
	copies uint64   // how often it was copied: its identity
}

// page is what the disk may hold of one page, besides the current content.
type page struct {
	durable  *pageData           // never changed, so images share it; nil: zeros
	dirty    bool                // the next sync writes it
	contents *[perPage][]*sector // of its sectors since the last sync
}

var zeros = func() *pageData {
	p := new(pageData)
	p.setSum()
	return p
}()

func (p *page) synced() *pageData {
	if p.durable == nil {
		return zeros
	}
	return p.durable
}

// load brings the content into memory, of at least n bytes. It never shrinks, so
// that mappings stay valid.
func (n *inode) load(size int64) {
	size = roundUp(max(size, n.size))
	if int64(len(n.mem)) >= size {
		return
	}
	mem := newBuffer(size)
	if n.mem != nil {
		copy(mem, n.mem)
	} else {
		n.fsys.loaded = append(n.fsys.loaded, n)
		for number, p := range n.pages {
			copy(mem[number*pageSize:], p.synced().bytes[:])
		}
	}
	n.mem = mem
}

func roundUp(n int64) int64 { return (n + pageSize - 1) / pageSize * pageSize }

// resize sets the length; what is cut off reads as zeros when it comes back.
func (n *inode) resize(size int64) {
	if size == n.size {
		return
	}
	n.load(size)
	if size < n.size {
		n.store(size, make([]byte, n.size-size))
	}
	if len(n.sizes) == 0 {
		n.sizes = append(n.sizes, n.size)
	}
	n.size = size
	n.sizes = append(n.sizes, size)
	n.fsys.changed = true
}

// ReadAt reads the current content, which is in memory.
func (n *inode) ReadAt(p []byte, off int64) (int, error) {
	if off >= n.size {
		return 0, io.EOF
	}
	count := copy(p, n.mem[off:n.size])
	if count < len(p) {
		return count, io.EOF
	}
	return count, nil
}

// WriteAt writes inside the file, which is in memory.
func (n *inode) WriteAt(p []byte, off int64) (int, error) {
	n.store(off, p)
	return len(p), nil
}

// store changes the current content, page by page.
func (n *inode) store(off int64, p []byte) {
	for len(p) > 0 {
		count := min(pageSize-off%pageSize, int64(len(p)))
		n.storePage(off, p[:count])
		off, p = off+count, p[count:]
	}
}

// clear stores zeros, where anything was stored before.
func (n *inode) clear(off, count int64) {
	for end := off + count; off < end; {
		count := min(pageSize-off%pageSize, end-off)
		if n.pages[off/pageSize] != nil {
			n.storePage(off, zeros.bytes[:count])
		}
		off += count
	}
}

// storePage stores to one page, and remembers the sectors that it changes.
func (n *inode) storePage(off int64, p []byte) {
	pg := n.pages[off/pageSize]
	if pg == nil {
		if bytes.Equal(n.mem[off:off+int64(len(p))], p) {
			return // zeros to a hole
		}
		pg = new(page)
		n.pages[off/pageSize] = pg
	}
	pg.dirty = true
	for len(p) > 0 {
		count := min(sectorSize-off%sectorSize, int64(len(p)))
		if !bytes.Equal(n.mem[off:off+count], p[:count]) {
			n.fsys.changed = true
			copy(n.mem[off:], p[:count])
			start := off &^ (sectorSize - 1)
			pg.remember(int(start%pageSize/sectorSize), sector(n.mem[start:start+sectorSize]))
		}
		off, p = off+count, p[count:]
	}
}

// remember notes a content of the page's k-th sector.
func (p *page) remember(k int, content sector) {
	if p.contents == nil {
		p.contents = new([perPage][]*sector)
	}
	list := &p.contents[k]
	if len(*list) == maxContents {
		*list = slices.Delete(*list, 0, 1)
	}
	*list = append(*list, &content)
}

// sync makes the dirty pages of [from, to) durable, and the length; or, if it
// failed, only calls them clean.
func (n *inode) sync(from, to int64, failed bool) {
	first, last := from/pageSize, (to-1)/pageSize
	if last-first > int64(len(n.pages)) {
		for number, p := range n.pages {
			if number >= first && number <= last {
				n.syncPage(number, p, failed)
			}
		}
	} else {
		for number := first; number <= last; number++ {
			if p := n.pages[number]; p != nil {
				n.syncPage(number, p, failed)
			}
		}
	}
	if !failed && n.sizes != nil {
		n.sizes, n.fsys.changed = nil, true
	}
}

func (n *inode) syncPage(number int64, p *page, failed bool) {
	if !p.dirty {
		return
	}
	p.dirty = false
	if failed || p.contents == nil {
		return
	}
	content := &pageData{bytes: [pageSize]byte(n.mem[number*pageSize : (number+1)*pageSize])}
	content.setSum()
	p.durable, p.contents, n.fsys.changed = content, nil, true
}

// data returns the first run of pages at or behind off that were stored to.
func (n *inode) data(off int64) (start, end int64) {
	number, last := off/pageSize, (n.size-1)/pageSize
	for number <= last && n.pages[number] == nil {
		number++
	}
	if n.size == 0 || number > last {
		return off, off
	}
	start = max(off, number*pageSize)
	for number <= last && n.pages[number] != nil {
		number++
	}
	return start, min(number*pageSize, n.size)
}

// allocate makes blocks for the pages of [from, to), those of them that are holes; false if the
// disk is full and there are any.
func (n *inode) allocate(from, to int64) bool {
	for number := from / pageSize; number*pageSize < to; number++ {
		for number/64 >= int64(len(n.blocks)) {
			n.blocks = append(n.blocks, 0)
		}
		word, bit := &n.blocks[number/64], uint64(1)<<(number%64)
		if *word&bit == 0 && n.fsys.full {
			return false
		}
		*word |= bit
	}
	return true
}

// giveBack makes holes of the pages that lie wholly in [from, to).
func (n *inode) giveBack(from, to int64) {
	for number := roundUp(from) / pageSize; (number+1)*pageSize <= to && number/64 < int64(len(n.blocks)); number++ {
		n.blocks[number/64] &^= 1 << (number % 64)
	}
}
