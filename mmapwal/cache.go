package mmapwal

import (
	"math"

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
}

// overhead is about what an entry takes besides its data, in bytes.
const entryOverhead = 160

func cachedBytes(e *raftpb.Entry) int64 { return int64(len(e.GetData())) + entryOverhead }

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
		c.bytes += cachedBytes(e)
	}
	c.entries = append(c.entries, es...)
	if c.bytes > c.limit {
		c.shrink(len(es))
	}
}

// shrink drops the oldest entries, down to half of what is allowed, and the memory
// that holds them. What it leaves has room for as many again, and for another add of so
// many. It looks only at those that it keeps: the others have left the processor's cache.
func (c *cache) shrink(added int) {
	k := len(c.entries)
	c.bytes = 0
	for ; k > 0; k-- {
		n := cachedBytes(c.entries[k-1])
		if c.bytes+n > c.limit/2 {
			break
		}
		c.bytes += n
	}
	c.keep(c.entries[k:], added)
}

// keep leaves the entries es in memory of their own.
func (c *cache) keep(es []*raftpb.Entry, room int) {
	c.entries = append(make([]*raftpb.Entry, 0, 2*len(es)+room), es...)
}

func (c *cache) clear() { *c = cache{limit: c.limit} }

// cut drops the entries from index first on.
func (c *cache) cut(first uint64) {
	k := c.find(first)
	if k == len(c.entries) {
		return
	}
	for _, e := range c.entries[k:] {
		c.bytes -= cachedBytes(e)
	}
	c.keep(c.entries[:k], 0)
}

// dropBelow drops the entries below index first.
func (c *cache) dropBelow(first uint64) {
	k := c.find(first)
	for _, e := range c.entries[:k] {
		c.bytes -= cachedBytes(e)
	}
	if k > 0 {
		c.keep(c.entries[k:], 0)
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
	es = c.entries[lo-first : hi-first]
	n := fitting(es, maxSize)
	return es[:n:n], true
}

// fitting returns how many of es have a proto.Size of maxSize in all; one at least.
func fitting(es []*raftpb.Entry, maxSize uint64) int {
	if maxSize == math.MaxUint64 {
		return len(es)
	}
	size := uint64(0)
	for n, e := range es {
		if size += entryfile.EncodedSize(e); size > maxSize {
			return max(n, 1)
		}
	}
	return len(es)
}
