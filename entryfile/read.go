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

// Term returns the term of entry i of a sealed file; ok is false if the seal does not
// tell it.
func (f *File) Term(i uint64) (term uint64, ok bool) {
	seal := f.seal.Load()
	if seal == nil || !seal.HasDigest || i < seal.First || i > seal.Last {
		return 0, false
	}
	return termIn(seal.Terms, i), true
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
	payload int

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

// item is an entry together with what its fields point to.
type item struct {
	entry       raftpb.Entry
	term, index uint64
	typ         raftpb.EntryType
}

// Measure counts the live entries [lo, hi) of the file into b, up to the first
// that no longer fits: then full is true. See Locate for x.
func (f *File) Measure(x *Index, lo, hi uint64, b *Batch) (full bool, err error) {
	err = f.guard(func(mem []byte) error {
		for i := lo; i < hi && !full; i++ {
			r, _, err := f.recordFor(mem, x, i, b)
			if err != nil {
				return err
			}
			size := r.encodedSize(f.secret.overhead())
			if full = b.count > 0 && b.encoded+size > b.MaxBytes; !full {
				b.encoded += size
				b.count++
				b.payload += int(r.payload)
			}
		}
		return nil
	})
	return full, err
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
	b.data = make([]byte, 0, b.payload)
}

// Count returns how many entries Measure counted.
func (b *Batch) Count() int { return b.count }

// Entries returns what Fill collected. The entries are the caller's, but share
// memory: each keeps the whole batch alive.
func (b *Batch) Entries() []*raftpb.Entry { return b.entries }

// Fill copies the live entries [lo, hi), or as many of them as Measure counted,
// and checks the checksum of each over the copy.
func (f *File) Fill(x *Index, lo, hi uint64, b *Batch) error {
	return f.guard(func(mem []byte) error {
		for i := lo; i < hi && len(b.entries) < cap(b.entries); i++ {
			if err := f.fill(mem, x, i, b); err != nil {
				return err
			}
		}
		return nil
	})
}

func (f *File) fill(mem []byte, x *Index, i uint64, b *Batch) error {
	r, at, err := f.recordFor(mem, x, i, b)
	if err != nil {
		return err
	}
	it := &b.items[len(b.entries)]
	it.term, it.index, it.typ = r.term, r.index, raftpb.EntryType(r.typ)
	it.entry.Term, it.entry.Index = &it.term, &it.index
	if r.flags&flagTypeUnset == 0 {
		it.entry.Type = &it.typ
	}
	if at >= 0 {
		if it.entry.Data, err = f.payload(mem, r, at, b); err != nil {
			return err
		}
	}
	b.entries = append(b.entries, &it.entry)
	return nil
}

// payload copies and checks the payload of the record r at offset at.
func (f *File) payload(mem []byte, r record, at int64, b *Batch) ([]byte, error) {
	n := int(r.payload)
	if n > cap(b.data)-len(b.data) {
		return nil, f.damaged(r.index, at, "the record's length changed while it was read")
	}
	start, from := len(b.data), at+RecordHeaderBytes
	f.touch(from, int64(n))
	stored := mem[from : from+int64(n)]
	b.data = append(b.data, stored...)
	data, err := f.open(b, r, at, mem[at:from], stored, b.data[start:start+n:start+n])
	if err != nil {
		return nil, err
	}
	if len(data) == 0 && r.flags&flagDataEmpty == 0 {
		return nil, nil
	}
	return data, nil
}

// open returns the data of the record r at offset at, in the memory of payload,
// which is a copy of stored. The tag of an encrypted one tells what the checksum does, and more; which of them is
// wrong is asked only if something is.
func (f *File) open(b *Batch, r record, at int64, header, stored, payload []byte) ([]byte, error) {
	if f.secret == nil {
		return payload, f.checkSum(r, at, header, payload)
	}
	if b.opening == nil {
		b.opening = new(opening)
	}
	copy(b.opening.header[:], header)
	data, err := f.secret.open(&b.opening.scratch, at, payload, b.opening.header[:])
	if err == nil {
		return data[:len(data):len(data)], nil
	}
	if err := f.checkSum(r, at, header, stored); err != nil {
		return nil, err
	}
	return nil, f.tampered(r.index, at, err)
}

func (f *File) checkSum(r record, at int64, header, payload []byte) error {
	if page.Sum(page.Sum(f.header.Salt, header[recordSumBytes:]), payload) != r.sum {
		return f.damaged(r.index, at, "the record's checksum does not match: the data is damaged; fetch the entry from another node")
	}
	return nil
}
