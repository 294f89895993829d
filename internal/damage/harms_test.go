package damage

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/page"
)

// harm is a damage to a directory, larger than a bit.
type harm struct {
	kind, what string
	img        Image
	files      []string // that are damaged
}

// harms are the damages to one variant.
type harms struct {
	v     variant
	other Image // of another log, with files of the same names
	r     *rand.Rand
	all   []harm
}

func (h *harms) add(kind, what string, img Image, files ...string) {
	if !img.Equal(h.v.Image) {
		h.all = append(h.all, harm{kind, what, img, files})
	}
}

func (h *harms) edit(kind, what, name string, edit func(p []byte) []byte) {
	h.add(kind, fmt.Sprintf("%s %s", name, what), h.v.Image.With(name, h.v.Image[name].Edit(edit)), name)
}

// collect returns all of them.
func (h *harms) collect() []harm {
	for _, name := range h.v.Image.Names() {
		h.overwrite(name)
		h.copyPages(name)
		h.cut(name)
		h.add("file missing", name, h.v.Image.With(name, nil), name)
		if c := h.other[name]; c != nil {
			h.add("file of another log", name, h.v.Image.With(name, c), name)
		}
	}
	h.swap()
	h.duplicate()
	h.snapshots()
	h.older()
	return h.all
}

// pagesOf returns the offsets of a file's pages that are in use.
func pagesOf(c *Content) (offsets []int64) {
	for k := range c.pages {
		offsets = append(offsets, k*pageSize)
	}
	slices.Sort(offsets)
	return offsets
}

// overwrite fills sectors and pages with zeros or ones.
func (h *harms) overwrite(name string) {
	for _, start := range pagesOf(h.v.Image[name]) {
		for _, size := range []int64{512, pageSize} {
			for at := start; at < start+pageSize; at += size {
				for _, fill := range []byte{0, 0xff} {
					kind := fmt.Sprintf("%d bytes of %#x", size, fill)
					h.edit(kind, fmt.Sprintf("at %d", at), name, func(p []byte) []byte {
						part := p[min(at, int64(len(p))):min(at+size, int64(len(p)))]
						copy(part, bytes.Repeat([]byte{fill}, len(part)))
						return p
					})
				}
			}
		}
	}
}

// copyPages puts other pages, of this file and of others, in the place of pages.
func (h *harms) copyPages(name string) {
	for _, at := range pagesOf(h.v.Image[name]) {
		for _, from := range h.v.Image.Names() {
			sources := pagesOf(h.v.Image[from])
			h.r.Shuffle(len(sources), func(i, k int) { sources[i], sources[k] = sources[k], sources[i] })
			kind := "page of another file"
			if from == name {
				kind = "page of the same file elsewhere"
			} else if slices.Contains(sources, at) {
				sources = append([]int64{at}, sources...)
			}
			for _, source := range sources[:min(4, len(sources))] {
				data := *h.v.Image[from].pages[source/pageSize]
				h.edit(kind, fmt.Sprintf("at %d from %s at %d", at, from, source), name, func(p []byte) []byte {
					copy(p[at:], data[:])
					return p
				})
			}
		}
	}
}

// cut ends a file early, or leaves its length and nothing else.
func (h *harms) cut(name string) {
	size := h.v.Image[name].Size
	lengths := []int64{1, 47, 48, 100, 511, 4095, entryfile.DataStart - 1, entryfile.DataStart, size - 4096, size - 8, size - 1}
	for _, at := range pagesOf(h.v.Image[name]) {
		lengths = append(lengths, at, at+8*h.r.Int64N(pageSize/8))
	}
	slices.Sort(lengths)
	for _, n := range slices.Compact(lengths) {
		if n > 0 && n < size {
			h.edit("file cut short", fmt.Sprintf("to %d", n), name, func(p []byte) []byte { return p[:n] })
		}
	}
	h.edit("file emptied", "", name, func(p []byte) []byte { return nil })
	h.edit("file zeroed", "", name, func(p []byte) []byte { return make([]byte, len(p)) })
	h.edit("file longer", "", name, func(p []byte) []byte { return append(p, 'x') })
}

// swap exchanges two files; whether the names or the contents makes no difference.
func (h *harms) swap() {
	names := h.v.Image.Names()
	for k, a := range names {
		for _, b := range names[:k] {
			img := h.v.Image.With(a, h.v.Image[b]).With(b, h.v.Image[a])
			h.add("files exchanged", a+" "+b, img, a, b)
		}
	}
}

// duplicate puts a copy of an entry file under another number.
func (h *harms) duplicate() {
	for _, name := range h.v.Image.Names() {
		for _, number := range []uint64{1, 2, 3, 4, 5, 6, 12} {
			copied := entryfile.Name(number)
			if !strings.HasSuffix(name, entryfile.Suffix) || h.v.Image[copied] != nil {
				continue
			}
			h.add("file under another number, too", name+" "+copied, h.v.Image.With(copied, h.v.Image[name]), copied)
		}
	}
}

// snapshots gives the snapshot file the content, or the name, of another one.
func (h *harms) snapshots() {
	for _, name := range h.v.Image.Names() {
		if !strings.HasSuffix(name, ".snap") {
			continue
		}
		h.edit("snapshot of another index", "", name, func(p []byte) []byte {
			page.Order.PutUint64(p[32:], 3)
			page.Order.PutUint32(p[12:], page.Sum(0, p[16:]))
			return p
		})
		renamed := h.v.Image.With("0000000000000001-0000000000000003.snap", h.v.Image[name]).With(name, nil)
		h.add("snapshot of another index", "renamed", renamed, name)
	}
}

// older brings files back from earlier: each by itself, all but one, and all.
func (h *harms) older() {
	for k, m := range h.v.log.Moments {
		if m.State == h.v.State {
			return // not of earlier
		}
		time := fmt.Sprintf("from %d, %s", k, m.Name)
		h.add("whole directory of earlier", time, m.Image, m.Image.Names()...)
		for _, name := range m.Image.Names() {
			h.add("file of earlier", name+" "+time, h.v.Image.With(name, m.Image[name]), name)
		}
		for _, name := range h.v.Image.Names() {
			img := m.Image.With(name, h.v.Image[name])
			h.add("all but one file of earlier", name+" not "+time, img, append(m.Image.Names(), name)...)
		}
	}
}
