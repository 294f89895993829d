package mmapwal

import (
	"sort"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"go.etcd.io/raft/v3/raftpb"
)

// cache holds the last entries as they were saved, so that reads copy nothing. It is a
// value that can be copied and then read while the original grows: what a copy shows
// is never changed.
type cache struct {
	limit   int64           // bytes
	bytes   int64           // of the entries, about
	entries []*raftpb.Entry // consecutive, up to the last of the log
	sizes   []uint64        // proto.Size of all entries up to this one, those that are gone included
	before  uint64          // the same, of those in front of entries
}

// overhead is about what an entry takes besides its data, in bytes.
const entryOverhead = 160

// add appends es, which may replace a suffix.
func (c *cache) add(es []*raftpb.Entry) {
	if c.limit == 0 {
		return
	}
	c.cut(es[0].GetIndex())
	if n := len(c.entries); n > 0 && es[0].GetIndex() != c.entries[n-1].GetIndex()+1 {
		c.clear()
	}
	for _, e := range es {
		c.entries = append(c.entries, e)
		c.sizes = append(c.sizes, c.total()+entryfile.EncodedSize(e))
		c.bytes += int64(len(e.GetData())) + entryOverhead
	}
	if c.bytes > c.limit {
		c.shrink()
	}
}

// total is the size of all entries up to the last.
func (c *cache) total() uint64 {
	if n := len(c.sizes); n > 0 {
		return c.sizes[n-1]
	}
	return c.before
}

// shrink drops the oldest entries, down to half of what is allowed, and the memory
// that holds them.
func (c *cache) shrink() {
	k := 0
	for ; k < len(c.entries) && c.bytes > c.limit/2; k++ {
		c.bytes -= int64(len(c.entries[k].GetData())) + entryOverhead
	}
	c.keep(k, len(c.entries))
}

// keep leaves the entries [from, to) in memory of their own.
func (c *cache) keep(from, to int) {
	if from > 0 {
		c.before = c.sizes[from-1]
	}
	c.entries = append(make([]*raftpb.Entry, 0, 2*(to-from)), c.entries[from:to]...)
	c.sizes = append(make([]uint64, 0, 2*(to-from)), c.sizes[from:to]...)
}

func (c *cache) clear() { *c = cache{limit: c.limit} }

// cut drops the entries from index first on.
func (c *cache) cut(first uint64) {
	k := c.find(first)
	if k == len(c.entries) {
		return
	}
	for _, e := range c.entries[k:] {
		c.bytes -= int64(len(e.GetData())) + entryOverhead
	}
	c.keep(0, k)
}

// dropBelow drops the entries below index first.
func (c *cache) dropBelow(first uint64) {
	k := c.find(first)
	for _, e := range c.entries[:k] {
		c.bytes -= int64(len(e.GetData())) + entryOverhead
	}
	if k > 0 {
		c.keep(k, len(c.entries))
	}
}

// find returns the position of the first entry whose index is at least i.
func (c *cache) find(i uint64) int {
	if len(c.entries) == 0 || i <= c.entries[0].GetIndex() {
		return 0
	}
	return int(min(i-c.entries[0].GetIndex(), uint64(len(c.entries))))
}

// read returns the entries [lo, hi), as many as have maxSize bytes in all, and at least
// one; ok is false if the cache does not hold them all.
func (c *cache) read(lo, hi, maxSize uint64) (es []*raftpb.Entry, ok bool) {
	if lo >= hi || len(c.entries) == 0 || lo < c.entries[0].GetIndex() {
		return nil, false
	}
	first := c.entries[0].GetIndex()
	if hi-first > uint64(len(c.entries)) {
		return nil, false
	}
	from, to := int(lo-first), int(hi-first)
	before := c.before
	if from > 0 {
		before = c.sizes[from-1]
	}
	if c.sizes[to-1]-before > maxSize {
		n := sort.Search(to-from, func(k int) bool { return c.sizes[from+k]-before > maxSize })
		to = from + max(n, 1)
	}
	return c.entries[from:to:to], true
}
