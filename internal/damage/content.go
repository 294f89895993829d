package damage

import (
	"bytes"
	"maps"
	"slices"
)

// NewContent returns a content of these bytes.
func NewContent(p []byte) *Content { return new(Content).With(p) }

// Bytes returns a copy of the whole content.
func (c *Content) Bytes() []byte {
	p := make([]byte, c.Size)
	for number, data := range c.pages {
		copy(p[number*pageSize:], data[:])
	}
	return p
}

// With returns a content of these bytes, which shares with c what is the same.
func (c *Content) With(p []byte) *Content {
	next := &Content{Size: int64(len(p)), pages: make(map[int64]*block)}
	for k := int64(0); k*pageSize < next.Size; k++ {
		data := p[k*pageSize : min((k+1)*pageSize, next.Size)]
		if bytes.Equal(data, zeros[:len(data)]) {
			continue
		}
		if old := c.pages[k]; old != nil && bytes.Equal(data, old[:len(data)]) && len(data) == pageSize {
			next.pages[k] = old
			continue
		}
		pg := new(block)
		copy(pg[:], data)
		next.pages[k] = pg
	}
	return next
}

// Edit returns a content that a function made of a copy of c's bytes.
func (c *Content) Edit(edit func(p []byte) []byte) *Content { return c.With(edit(c.Bytes())) }

// Equal reports whether two contents are the same.
func (c *Content) Equal(other *Content) bool {
	if c == other {
		return true
	}
	if c == nil || other == nil || c.Size != other.Size || len(c.pages) != len(other.pages) {
		return false
	}
	for k, p := range c.pages {
		q := other.pages[k]
		if q == nil || p != q && *p != *q {
			return false
		}
	}
	return true
}

// Equal reports whether two directories hold the same.
func (img Image) Equal(other Image) bool { return maps.EqualFunc(img, other, (*Content).Equal) }

// Names returns the names of the files, sorted.
func (img Image) Names() []string { return slices.Sorted(maps.Keys(img)) }

// With returns an image in which a file has another content; nil: none.
func (img Image) With(name string, c *Content) Image {
	next := maps.Clone(img)
	if c == nil {
		delete(next, name)
	} else {
		next[name] = c
	}
	return next
}
