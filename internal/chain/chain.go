// Package chain says which entries of a chain of entry files count. Recovery, readers and
// the tools all go by it.
//
// A file supersedes the entries of all files in front of it, from its own first index on. What is
// left of the files must follow one another without a gap, from the compaction on. That can be
// judged only when all files are known: a file that is superseded as a whole may begin anywhere,
// the files in front of it may be gone, and it says nothing about the entries around it.
package chain

// Range is a range of indexes. It is empty if Last is below First, or First is 0.
type Range struct{ First, Last uint64 }

// Empty reports whether there is no index in the range.
func (r Range) Empty() bool { return r.First == 0 || r.Last < r.First }

// Cut returns what is left of the range of a file when a later file begins at first; the zero
// Range if nothing is.
func (r Range) Cut(first uint64) Range {
	switch {
	case r.Empty() || r.First >= first:
		return Range{}
	case r.Last >= first:
		r.Last = first - 1
	}
	return r
}

// Chain is the entries of files that follow one another. The zero Chain has no file, and
// nothing is compacted.
type Chain struct {
	compacted uint64
	files     int
	parts     []part // of which entries count, in order; their ranges rise
	gaps      int    // how many parts do not continue the one in front of them
}

// part is what counts of a file.
type part struct {
	file int // its place in the chain, from 0 on
	Range
	missing Range // in front of it
}

// New returns a Chain without files, of a log whose entries up to the index compacted are gone.
func New(compacted uint64) *Chain { return &Chain{compacted: compacted} }

// Add adds the file behind the last one. It holds the entries of a range, which may be empty.
func (c *Chain) Add(held Range) {
	p := part{file: c.files, Range: held}
	c.files++
	if held.Empty() {
		return
	}
	reach := c.compacted
	for n := len(c.parts); n > 0; n-- {
		before := &c.parts[n-1]
		if before.Range = before.Cut(held.First); !before.Empty() {
			reach = max(reach, before.Last)
			break
		}
		c.drop(n - 1)
	}
	if held.First > reach && held.First-1 > reach {
		p.missing = Range{reach + 1, held.First - 1}
		c.gaps++
	}
	c.parts = append(c.parts, p)
}

// drop takes the last part, number n, out.
func (c *Chain) drop(n int) {
	if !c.parts[n].missing.Empty() {
		c.gaps--
	}
	c.parts = c.parts[:n]
}

// Whole reports whether no entry is missing between those that count.
func (c *Chain) Whole() bool { return c.gaps == 0 }

// Gap is entries that are missing in front of a file.
type Gap struct {
	File    int // counted from 0
	Missing Range
}

// Gaps returns where what counts of a file does not continue what is in front of it.
func (c *Chain) Gaps() (all []Gap) {
	for _, p := range c.parts {
		if !p.missing.Empty() {
			all = append(all, Gap{p.file, p.missing})
		}
	}
	return all
}
