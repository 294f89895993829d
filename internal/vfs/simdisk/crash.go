package simdisk

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// UnitKind says what a Unit is.
type UnitKind string

// The kinds of units.
const (
	UnitSector UnitKind = "sector" // of a file
	UnitName   UnitKind = "name"   // a creation, rename or removal
	UnitSize   UnitKind = "size"   // of a file
)

// Unit is a part of the disk that a power cut takes or leaves by itself.
type Unit struct {
	Kind   UnitKind
	Name   string // of the file, or what the change of a name does
	Offset int64  // of a sector
	// States is how many contents it has had since the last one that is durable,
	// at least 1; the last one is the current one.
	States int
}

func (u Unit) String() string {
	if u.Kind == UnitSector {
		return fmt.Sprintf("%s %s+%d", u.Kind, u.Name, u.Offset)
	}
	return fmt.Sprintf("%s %s", u.Kind, u.Name)
}

// Fate is what a power cut makes of a unit.
type Fate struct {
	// State is what it holds: 0 what was durable, Unit.States what is current. A
	// change of a name is lost or kept, 0 or 1.
	State int
	// Tear is for a sector: its first bytes only, if it is positive, or its last,
	// if negative, are of State, and the others as they were. 0: all are. It is a
	// multiple of 8.
	Tear int
}

// Remains is what a power cut at one moment can leave: what is durable, and the
// units that may or may not be. It does not change when the FS does.
type Remains struct {
	units []Unit
	dirs  []dirRemains
	files []fileRemains
	plain bool
}

// dirRemains is a directory; unit is that of its first pending change.
type dirRemains struct {
	path    string
	durable map[string]*inode
	pending []change
	unit    int
}

// fileRemains is a file; unit is that of its size, or if that is durable of its
// first sector.
type fileRemains struct {
	node    *inode
	size    int64
	sizes   []int64
	blocks  []uint64
	durable map[int64]*pageData
	sectors []sectorRemains
	unit    int
}

type sectorRemains struct {
	offset   int64
	contents []*sector
}

// Remains returns what a power cut now can leave.
func (f *FS) Remains() *Remains {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.remains()
}

func (f *FS) remains() *Remains {
	r := &Remains{plain: f.plain}
	names := make(map[*inode]string)
	var nodes []*inode
	add := func(name string, node *inode) {
		if names[node] == "" {
			names[node] = name
			nodes = append(nodes, node)
		}
	}
	for _, path := range slices.Sorted(maps.Keys(f.dirs)) {
		d := f.dirs[path]
		r.addDirectory(path, d)
		for _, name := range slices.Sorted(maps.Keys(d.durable)) {
			add(name, d.durable[name])
		}
		for _, c := range d.pending {
			add(c.from+c.to, c.node)
		}
	}
	for _, node := range nodes {
		r.addFile(names[node], node)
	}
	return r
}

func (r *Remains) addDirectory(path string, d *directory) {
	r.dirs = append(r.dirs, dirRemains{path: path, durable: maps.Clone(d.durable), pending: slices.Clone(d.pending), unit: len(r.units)})
	for _, c := range d.pending {
		r.units = append(r.units, Unit{Kind: UnitName, Name: c.String(), States: 1})
	}
}

func (r *Remains) addFile(name string, node *inode) {
	file := fileRemains{node: node, size: node.size, blocks: slices.Clone(node.blocks), unit: len(r.units), durable: make(map[int64]*pageData, len(node.pages))}
	if len(node.sizes) > 0 {
		file.sizes = slices.Clone(node.sizes)
		r.units = append(r.units, Unit{Kind: UnitSize, Name: name, States: len(file.sizes) - 1})
	}
	var changed []int64
	for number, p := range node.pages {
		if p.durable != nil {
			file.durable[number] = p.durable
		}
		if p.contents != nil {
			changed = append(changed, number)
		}
	}
	slices.Sort(changed) // maps have no order, and units shall have one
	for _, number := range changed {
		for k, contents := range node.pages[number].contents {
			if len(contents) == 0 {
				continue
			}
			offset := number*pageSize + int64(k)*sectorSize
			file.sectors = append(file.sectors, sectorRemains{offset, slices.Clone(contents)})
			r.units = append(r.units, Unit{Kind: UnitSector, Name: name, Offset: offset, States: len(contents)})
		}
	}
	r.files = append(r.files, file)
}

// Units returns the units, in an order that is the same for the same history.
func (r *Remains) Units() []Unit { return r.units }

// Image returns what is found after a power cut, all of it durable, when fate
// decides for each unit, by its place in Units. Images share pages, so they cost
// little.
func (r *Remains) Image(fate func(unit int) Fate) *FS {
	image := newFS(make(map[string]*directory, len(r.dirs)))
	image.plain = r.plain
	found := make(map[*inode]*inode, len(r.files))
	for k := range r.files {
		found[r.files[k].node] = r.files[k].image(image, fate)
	}
	for k := range r.dirs {
		d := newDirectory()
		for name, node := range r.dirs[k].names(fate) {
			d.names[name], d.durable[name] = found[node], found[node]
		}
		image.dirs[r.dirs[k].path] = d
	}
	return image
}

// names returns the names that are found.
func (d *dirRemains) names(fate func(unit int) Fate) map[string]*inode {
	names := maps.Clone(d.durable)
	for k, c := range d.pending {
		if fate(d.unit+k).State > 0 {
			c.apply(names)
		}
	}
	return names
}

// image returns the file that is found.
func (f *fileRemains) image(fsys *FS, fate func(unit int) Fate) *inode {
	image := &inode{fsys: fsys, copies: f.node.copies, blocks: slices.Clone(f.blocks), size: f.size, pages: make(map[int64]*page, len(f.durable)+1)}
	unit := f.unit
	if len(f.sizes) > 0 {
		image.size = f.sizes[fate(unit).State]
		unit++
	}
	changed := make(map[int64]*pageData)
	for k := range f.sectors {
		s := &f.sectors[k]
		if to := fate(unit + k); to.State > 0 {
			number := s.offset / pageSize
			if changed[number] == nil {
				changed[number] = f.copyOf(number)
			}
			s.apply(changed[number].bytes[s.offset%pageSize:], to)
		}
	}
	for number, p := range f.durable {
		if changed[number] == nil {
			image.addPage(number, p, false)
		}
	}
	for number, p := range changed {
		image.addPage(number, p, true)
	}
	return image
}

// copyOf returns a copy of what is durable of a page.
func (f *fileRemains) copyOf(number int64) *pageData {
	content := new(pageData)
	if p := f.durable[number]; p != nil {
		content.bytes = p.bytes
	}
	return content
}

// apply stores to place what the fate leaves of a sector.
func (s *sectorRemains) apply(place []byte, to Fate) {
	content := s.contents[to.State-1]
	switch {
	case to.Tear > 0:
		copy(place[:to.Tear], content[:])
	case to.Tear < 0:
		copy(place[sectorSize+to.Tear:], content[sectorSize+to.Tear:])
	default:
		copy(place, content[:])
	}
}

// addPage adds a durable page to an image, as far as its size reaches. A page
// that is own belongs to the image alone, and its sum is not known yet.
func (n *inode) addPage(number int64, p *pageData, own bool) {
	beyond := n.size - number*pageSize
	if beyond <= 0 {
		return
	}
	if beyond < pageSize {
		if !own {
			p, own = &pageData{bytes: p.bytes}, true
		}
		clear(p.bytes[beyond:])
	}
	if own {
		p.setSum()
	}
	n.pages[number] = &page{durable: p}
}

// Crash returns what is found after a power cut, all of it durable. What is lost
// is r's choice. The FS stays as it is, and any number of images can be taken.
func (f *FS) Crash(r *rand.Rand) *FS { return f.Remains().Random(r) }

// Random is Image with r deciding, sectors torn and held between two contents
// among the fates.
func (r *Remains) Random(random *rand.Rand) *FS {
	fates := make([]Fate, len(r.units))
	kept, torn, of := 0.0, 0.0, ""
	for k, u := range r.units {
		if group := u.group(); k == 0 || group != of {
			kept, torn, of = chance(random), 0.3*chance(random), group
		}
		fates[k] = u.random(random, kept, torn)
	}
	return r.Image(func(k int) Fate { return fates[k] })
}

// group names what shares a chance: the changes of names, or a file.
func (u Unit) group() string {
	if u.Kind == UnitName {
		return ""
	}
	return u.Name
}

// chance is how likely something is: nearly always, never, or in between, so
// that some images lose one sector, and others all but one.
func chance(r *rand.Rand) float64 {
	return []float64{0, 0.02, 0.2, 0.5, 0.8, 0.98, 1}[r.IntN(7)]
}

// random decides for a unit.
func (u Unit) random(r *rand.Rand, kept, torn float64) Fate {
	if u.Kind == UnitSize {
		return Fate{State: r.IntN(u.States + 1)}
	}
	if r.Float64() >= kept {
		return Fate{}
	}
	fate := Fate{State: u.States}
	if r.IntN(3) == 0 { // less often, one of those before
		fate.State = 1 + r.IntN(u.States)
	}
	if u.Kind == UnitSector && r.Float64() < torn {
		fate.Tear = 8 * (1 + r.IntN(sectorSize/8-1)) * (1 - 2*r.IntN(2))
	}
	return fate
}

// Fingerprint sums up the names, sizes and contents as they are now. Equal file
// systems have equal fingerprints, in every run.
func (f *FS) Fingerprint() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	sum := uint64(0)
	for path, d := range f.dirs {
		at := mixString(1, path)
		sum += mix(at, 0)
		for name, node := range d.names {
			sum += mix(mixString(at, name), node.fingerprint())
		}
	}
	return sum
}

// fingerprint does not depend on the order of the pages, nor on pages of zeros.
func (n *inode) fingerprint() uint64 {
	sum := mix(2, uint64(n.size))
	for number, p := range n.pages {
		content := p.synced()
		if p.contents != nil {
			content = &pageData{bytes: [pageSize]byte(n.mem[number*pageSize : (number+1)*pageSize])}
			content.setSum()
		}
		if content.sum != zeros.sum {
			sum += mix(uint64(number)+3, content.sum)
		}
	}
	return sum
}
