package entryfile

import (
	"fmt"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"go.etcd.io/raft/v3/raftpb"
)

// Location says where a live entry is.
type Location struct {
	Term   uint64
	Type   uint32
	Record int64 // offset in bytes
}

// Terms returns the runs of live entries of a sealed file that share a term, which must
// not be changed; nil if the seal does not tell them.
func (f *File) Terms() []Run {
	seal := f.seal.Load()
	if seal == nil || !seal.HasDigest {
		return nil
	}
	return seal.Terms
}

// Locate finds the live entry i: in x, the Index of a file that is not sealed,
// or, if x is nil, in the slots of a sealed one.
func (f *File) Locate(x *Index, i uint64) (loc Location, err error) {
	err = f.guard(func(mem []byte) error {
		loc, err = f.locate(mem, x, i)
		return err
	})
	return loc, err
}

func (f *File) locate(mem []byte, x *Index, i uint64) (Location, error) {
	if x == nil {
		x = f.healed.Load()
	}
	if x == nil {
		if s, ok := f.sealedSlot(mem, i); ok && f.slotsAuthentic(mem) {
			return Location{s.term, s.typ, s.data - dataOffset}, nil
		}
		var err error
		if x, err = f.heal(); err != nil {
			return Location{}, err
		}
	}
	if !x.Has(i) {
		return Location{}, f.damaged(i, 0, "the entry is not in the file")
	}
	return Location{x.Term(i), x.Type(i), x.Record(i)}, nil
}

// sealedSlot reads the slot of entry i; ok is false if it is damaged.
func (f *File) sealedSlot(mem []byte, i uint64) (s slot, ok bool) {
	seal := f.sealed()
	if i < seal.First || i > seal.Last {
		return slot{}, false
	}
	at := (i - seal.First) * SlotBytes
	f.touch(int64(at), SlotBytes)
	s, ok = decodeSlot(mem[at:at+SlotBytes], f.header.Salt)
	return s, ok && s.index == i && s.data >= DataStart+dataOffset && s.data < seal.End
}

// heal rebuilds the index of a sealed file from its records, once.
func (f *File) heal() (*Index, error) {
	f.healing.Lock()
	defer f.healing.Unlock()
	if x := f.healed.Load(); x != nil {
		return x, nil
	}
	x, err := f.sealedIndex()
	if err != nil {
		return nil, err
	}
	f.healed.Store(&x)
	return &x, nil
}

// Healed reports whether damaged slots were met and rebuilt in memory; Reseal
// writes them.
func (f *File) Healed() bool { return f.healed.Load() != nil }

func (f *File) damaged(i uint64, at int64, reason string, args ...any) error {
	return &corrupt.Error{File: f.path, Offset: at, First: i, Last: i, Reason: fmt.Sprintf(reason, args...)}
}

// A Batch collects the entries of one read. Measure finds out, file by file, how
// many fit; Allocate makes room for all of them at once; Fill copies them.
type Batch struct {
	MaxBytes uint64 // proto.Size of the entries; the first one always fits
	// Normal entries below the index ClearedBelow have no data, if their records
	// stand before the offset ClearedEnd of file ClearedFile, or in an earlier file.
	ClearedBelow uint64
	ClearedFile  uint64
	ClearedEnd   int64

	encoded uint64
	count   int
	room    int          // bytes of data
	runs    [maxRuns]run // of the first files
	files   int          // that were measured, and have entries
	filled  int          // files that were filled from

	opening *opening // for encrypted files
	items   []item
	entries []*raftpb.Entry
	data    []byte
}

// opening is the memory in which a record is decrypted, apart from the Batch so
// that a Batch of a plain file need not be allocated.
type opening struct {
	header  [RecordHeaderBytes]byte
	scratch encryption.Scratch
}

// maxRuns is how many runs a Batch knows: reads of more files are rare, and more than
// copying costs then.
const maxRuns = 4

// run is what Measure counted in one file.
type run struct {
	from, to int64 // offsets of the records
	count    int
	gaps     bool // something else stands between them, or some are cleared
	alone    int  // bytes of the records without their padding
}

// add counts a record of so many bytes at the offset at.
func (u *run) add(at int64, r record) {
	if u.count == 0 {
		u.from, u.to = at, at
	}
	u.gaps = u.gaps || at != u.to || at < 0
	u.count++
	if at >= 0 {
		u.to = at + r.bytes()
		u.alone += RecordHeaderBytes + int(r.payload)
	}
}

// data returns how many bytes of data are copied.
func (u *run) data() int {
	if u.gaps {
		return u.alone
	}
	return int(u.to - u.from)
}

// item is an entry together with what its fields point to.
type item struct {
	entry       raftpb.Entry
	term, index uint64
	typ         raftpb.EntryType
}

// Measure counts the live entries [lo, hi) of the file into b, up to the first
// that no longer fits: then full is true. See Locate for x.
func (f *File) Measure(x *Index, lo, hi uint64, b *Batch) (full bool, err error) {
	var u run
	err = f.guard(func(mem []byte) error {
		for i := lo; i < hi && !full; i++ {
			r, at, err := f.recordFor(mem, x, i, b)
			if err != nil {
				return err
			}
			size := r.encodedSize(f.secret.overhead())
			if full = b.count > 0 && b.encoded+size > b.MaxBytes; !full {
				b.encoded += size
				b.count++
				u.add(at, r)
			}
		}
		return nil
	})
	b.add(u)
	return full, err
}

// add takes what was counted in one file.
func (b *Batch) add(u run) {
	if u.count == 0 {
		return
	}
	if u.gaps = u.gaps || b.files >= maxRuns; !u.gaps {
		b.runs[b.files] = u
	}
	b.files++
	b.room += u.data()
}

// next returns what was counted in the next file that is filled from; one with gaps
// if it has to be looked at again.
func (b *Batch) next() run {
	k := b.filled
	b.filled++
	if k >= maxRuns || b.runs[k].count == 0 {
		return run{gaps: true}
	}
	return b.runs[k]
}

// recordFor reads the header of entry i's record and compares it with the index;
// the payload is not checked. A cleared entry's record is not looked at.
func (f *File) recordFor(mem []byte, x *Index, i uint64, b *Batch) (record, int64, error) {
	loc, err := f.locate(mem, x, i)
	if err != nil {
		return record{}, 0, err
	}
	if loc.Type == uint32(raftpb.EntryNormal) && b.cleared(i, f.header.Number, loc.Record) {
		return record{term: loc.Term, index: i}, -1, nil
	}
	if loc.Record < DataStart || loc.Record+RecordHeaderBytes > int64(len(mem)) {
		return record{}, 0, f.damaged(i, loc.Record, "the slot points outside of the file")
	}
	f.touch(loc.Record, RecordHeaderBytes)
	r := decodeRecord(mem[loc.Record:])
	if r.index != i || r.term != loc.Term || uint32(r.typ) != loc.Type || !r.plausible(loc.Record, int64(len(mem))) {
		return record{}, 0, f.damaged(i, loc.Record, "the record does not match its slot: it says entry %d, term %d", r.index, r.term)
	}
	return r, loc.Record, nil
}

// cleared reports whether the data of a normal entry is cleared.
func (b *Batch) cleared(i, file uint64, record int64) bool {
	return i < b.ClearedBelow && (file < b.ClearedFile || file == b.ClearedFile && record < b.ClearedEnd)
}

// Allocate makes room for all that Measure counted: three allocations, however
// many entries.
func (b *Batch) Allocate() {
	b.items = make([]item, b.count)
	b.entries = make([]*raftpb.Entry, 0, b.count)
	if b.files > 1 || b.runs[0].count == 0 {
		b.data = make([]byte, 0, b.room)
	} // else Fill makes it, and need not clear it
}

// Count returns how many entries Measure counted.
func (b *Batch) Count() int { return b.count }

// Entries returns what Fill collected. The entries are the caller's, but share
// memory: each keeps the whole batch alive.
func (b *Batch) Entries() []*raftpb.Entry { return b.entries }

// Fill copies the live entries [lo, hi), or as many of them as Measure counted, and
// checks the checksum of each over the copy. The files come in the order of Measure.
func (f *File) Fill(x *Index, lo, hi uint64, b *Batch) error {
	u := b.next()
	return f.guard(func(mem []byte) error {
		if !u.gaps {
			return f.fillRun(mem, u, lo, b)
		}
		for i := lo; i < hi && len(b.entries) < cap(b.entries); i++ {
			if err := f.fill(mem, x, i, b); err != nil {
				return err
			}
		}
		return nil
	})
}

// fillRun copies records that stand one behind the other at once.
func (f *File) fillRun(mem []byte, u run, i uint64, b *Batch) error {
	f.touch(u.from, u.to-u.from)
	start := len(b.data)
	b.data = append(b.data, mem[u.from:u.to]...)
	copied := b.data[start:len(b.data):len(b.data)]
	at := u.from
	for range u.count {
		if len(copied) < RecordHeaderBytes {
			return f.changed(i, at)
		}
		r := decodeRecord(copied)
		if r.index != i || !r.plausible(at, u.to) {
			return f.changed(i, at)
		}
		if err := f.fillRecord(mem, r, at, copied, b); err != nil {
			return err
		}
		i, at, copied = i+1, at+r.bytes(), copied[r.bytes():]
	}
	return nil
}

// fill copies entry i.
func (f *File) fill(mem []byte, x *Index, i uint64, b *Batch) error {
	r, at, err := f.recordFor(mem, x, i, b)
	if err != nil {
		return err
	}
	if at < 0 {
		b.entry(r)
		return nil
	}
	start, n := len(b.data), RecordHeaderBytes+int(r.payload)
	if n > cap(b.data)-start {
		return f.changed(i, at)
	}
	f.touch(at, int64(n))
	b.data = append(b.data, mem[at:at+int64(n)]...)
	return f.fillRecord(mem, r, at, b.data[start:], b)
}

func (f *File) changed(i uint64, at int64) error {
	return f.damaged(i, at, "the record changed while it was read")
}

// fillRecord adds the entry of the record r at offset at, whose copy, and maybe more, is
// copied.
func (f *File) fillRecord(mem []byte, r record, at int64, copied []byte, b *Batch) error {
	end := RecordHeaderBytes + int(r.payload)
	data, err := f.open(b, r, at, mem, copied[:end:end])
	if err != nil {
		return err
	}
	if e := b.entry(r); len(data) > 0 || r.flags&flagDataEmpty != 0 {
		e.Data = data
	}
	return nil
}

// entry adds the entry of the record r, without its data.
func (b *Batch) entry(r record) *raftpb.Entry {
	it := &b.items[len(b.entries)]
	it.term, it.index, it.typ = r.term, r.index, raftpb.EntryType(r.typ)
	it.entry.Term, it.entry.Index = &it.term, &it.index
	if r.flags&flagTypeUnset == 0 {
		it.entry.Type = &it.typ
	}
	b.entries = append(b.entries, &it.entry)
	return &it.entry
}

// open returns the data of the record r at offset at, in the memory of its copy. The
// tag of an encrypted one tells what the checksum does, and more; which of them is wrong
// is asked only if something is.
func (f *File) open(b *Batch, r record, at int64, mem, copied []byte) ([]byte, error) {
	payload := copied[RecordHeaderBytes:]
	if f.secret == nil {
		return payload, f.checkSum(r, at, copied)
	}
	if b.opening == nil {
		b.opening = new(opening)
	}
	copy(b.opening.header[:], copied)
	data, err := f.secret.open(&b.opening.scratch, at, payload, b.opening.header[:])
	if err == nil {
		return data[:len(data):len(data)], nil
	}
	if err := f.checkSum(r, at, mem[at:at+int64(len(copied))]); err != nil {
		return nil, err
	}
	return nil, f.tampered(r.index, at, err)
}

// checkSum checks the checksum of a whole record, without its padding.
func (f *File) checkSum(r record, at int64, stored []byte) error {
	if page.Sum(f.header.Salt, stored[recordSumBytes:]) != r.sum {
		return f.damaged(r.index, at, "the record's checksum does not match: the data is damaged; fetch the entry from another node")
	}
	return nil
}
