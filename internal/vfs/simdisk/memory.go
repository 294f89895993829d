package simdisk

import (
	"math/bits"
	"sync"
)

// Memory of files is used again, since a test that takes many images would
// else spend its time on clearing it.

// buffers holds zeroed memory, by the logarithm of its size.
var buffers [64]sync.Pool

// newBuffer returns n zeroed bytes.
func newBuffer(n int64) []byte {
	if n == 0 {
		return nil
	}
	class := bits.Len64(uint64(n - 1))
	if b, ok := buffers[class].Get().(*[]byte); ok {
		return (*b)[:n]
	}
	return make([]byte, n, int64(1)<<class)
}

// Free gives the memory of all files back. Neither the FS nor a file or mapping
// of it may be used any more; images of it may.
func (f *FS) Free() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, node := range f.loaded {
		node.free()
	}
	f.loaded = nil
}

// free clears the pages that were stored to; the others are zero.
func (n *inode) free() {
	if n.mem == nil {
		return
	}
	for number := range n.pages {
		clear(n.mem[number*pageSize : (number+1)*pageSize])
	}
	mem := n.mem
	n.mem = nil
	buffers[bits.Len64(uint64(cap(mem)-1))].Put(&mem)
}
