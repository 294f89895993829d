package simdisk

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// Crash returns what is found after a power cut, all of it durable. What is lost
// is r's choice. The FS stays as it is, and any number of images can be taken;
// they cost little, since they share the pages.
func (f *FS) Crash(r *rand.Rand) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	image := &FS{dirs: make(map[string]*directory)}
	found := make(map[*inode]*inode)
	for _, path := range slices.Sorted(maps.Keys(f.dirs)) {
		d := newDirectory()
		names := f.dirs[path].crash(r)
		for _, name := range slices.Sorted(maps.Keys(names)) {
			node := names[name]
			if found[node] == nil {
				found[node] = node.crash(r)
			}
			d.names[name], d.durable[name] = found[node], found[node]
		}
		image.dirs[path] = d
	}
	return image
}

// chance is how likely something is: nearly always, never, or in between, so
// that some images lose one sector, and others all but one.
func chance(r *rand.Rand) float64 {
	return []float64{0, 0.02, 0.2, 0.5, 0.8, 0.98, 1}[r.IntN(7)]
}

// crash returns the names that are found.
func (d *directory) crash(r *rand.Rand) map[string]*inode {
	names := maps.Clone(d.durable)
	kept := chance(r)
	for _, c := range d.pending {
		if r.Float64() < kept {
			c.apply(names)
		}
	}
	return names
}

// crash returns the file that is found.
func (n *inode) crash(r *rand.Rand) *inode {
	image := &inode{size: n.size, pages: make(map[int64]*page, len(n.pages))}
	if len(n.sizes) > 0 {
		image.size = n.sizes[r.IntN(len(n.sizes))]
	}
	kept, torn := chance(r), 0.3*chance(r)
	var changed []int64
	for number, p := range n.pages {
		switch {
		case number*pageSize >= image.size:
		case p.contents != nil:
			changed = append(changed, number)
		case p.durable != nil:
			image.pages[number] = &page{durable: p.durable}
		}
	}
	slices.Sort(changed) // maps have no order, and r shall choose the same again
	for _, number := range changed {
		content := n.pages[number].crash(r, kept, torn)
		if beyond := image.size - number*pageSize; beyond < pageSize {
			clear(content[beyond:])
		}
		image.pages[number] = &page{durable: content}
	}
	return image
}

// crash returns what is found of a page with contents.
func (p *page) crash(r *rand.Rand, kept, torn float64) *pageData {
	found := *p.synced()
	for k, contents := range p.contents {
		if len(contents) == 0 || r.Float64() >= kept {
			continue
		}
		place := found[k*sectorSize : (k+1)*sectorSize]
		if r.Float64() < torn {
			tear(r, place, pick(r, contents))
			continue
		}
		copy(place, pick(r, contents)[:])
	}
	return &found
}

// pick returns the last content, or, less often, one before it.
func pick(r *rand.Rand, contents []*sector) *sector {
	if r.IntN(3) == 0 {
		return contents[r.IntN(len(contents))]
	}
	return contents[len(contents)-1]
}

// tear copies a part of content, of a multiple of 8 bytes, to place: its head or
// its tail.
func tear(r *rand.Rand, place []byte, content *sector) {
	at := 8 * r.IntN(sectorSize/8+1)
	if r.IntN(2) == 0 {
		copy(place[:at], content[:at])
	} else {
		copy(place[at:], content[at:])
	}
}
