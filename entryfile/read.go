package entryfile

import (
	"fmt"
	"slices"
	"sort"

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

// A Batch collects the entries of one read, file by file.
type Batch struct {
	MaxBytes uint64 // proto.Size of the entries; the first one always fits
	// Normal entries below the index ClearedBelow have no data, if their records
	// stand before the offset ClearedEnd of file ClearedFile, or in an earlier file.
	ClearedBelow uint64
	ClearedFile  uint64
	ClearedEnd   int64

	encoded uint64
	entries []*raftpb.Entry
	opening *opening // for encrypted files
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

// Entries returns what was read. The entries are the caller's, but share memory: each
// keeps alive those that were copied with it, some megabyte at most.
func (b *Batch) Entries() []*raftpb.Entry { return b.entries }

// maxPiece is how many bytes of records are copied at once, unless one is larger: enough
// for what a read costs besides to be little, and not much for an entry to keep alive.
const maxPiece = 1 << 20

// Read adds the live entries [lo, hi) of the file to b, up to the first that no longer
// fits: then full is true. Each is copied, and the copy compared with its checksum and
// with the index. See Locate for x.
func (f *File) Read(x *Index, lo, hi uint64, b *Batch) (full bool, err error) {
	err = f.guard(func(mem []byte) (err error) {
		for lo < hi && !full && err == nil {
			lo, full, err = f.readPiece(mem, x, lo, hi, b)
		}
		return err
	})
	return full, err
}

// readPiece reads some of the entries [lo, hi), and returns the index of the next.
func (f *File) readPiece(mem []byte, x *Index, lo, hi uint64, b *Batch) (next uint64, full bool, err error) {
	first, err := f.locate(mem, x, lo)
	if err != nil {
		return lo, false, err
	}
	if b.cleared(lo, f.header.Number, first) {
		r := record{term: first.Term, index: lo}
		if !b.takes(&r, 0) {
			return lo, true, nil
		}
		b.add(&r, new(item))
		return lo + 1, false, nil
	}
	n := f.piece(mem, x, lo, hi, first, b)
	copied, err := f.copyRecords(mem, x, lo, lo+uint64(n)-1, first.Record)
	if err != nil {
		return lo, false, err
	}
	b.entries = slices.Grow(b.entries, n)
	for items := make([]item, n); len(items) > 0 && !full; items = items[1:] {
		if full, err = f.readRecord(mem, x, lo, first.Record, copied, b, &items[0]); err != nil {
			return lo, false, err
		}
		lo++
	}
	return lo, full, nil
}

// piece returns how many of the entries [lo, hi), of which the first is at first, are
// copied at once: those that may fit, as far as the index tells.
func (f *File) piece(mem []byte, x *Index, lo, hi uint64, first Location, b *Batch) int {
	if lo < b.ClearedBelow {
		return 1
	}
	room := b.MaxBytes - min(b.encoded, b.MaxBytes)
	least := record{term: first.Term, index: lo, flags: flagTypeUnset}
	more := sort.Search(int(min(hi-lo-1, MaxSlots)), func(k int) bool {
		before := int64(k) + 1
		loc, err := f.locate(mem, x, lo+uint64(before)) // an error is met again, if it matters
		span := loc.Record - first.Record
		data := max(span-before*(RecordBytes(f.secret.overhead())+recordAlign), 0)
		return err != nil || span > maxPiece || uint64(before)*least.encodedSize(0)+uint64(data) > room
	})
	return more + 1
}

// copyRecords copies from the offset from up to the end of the record of entry last, as
// far as that can be told.
func (f *File) copyRecords(mem []byte, x *Index, lo, last uint64, from int64) ([]byte, error) {
	loc, err := f.locate(mem, x, last)
	if err != nil {
		return nil, err
	}
	to := loc.Record + RecordHeaderBytes
	if from < DataStart || loc.Record < from || to > int64(len(mem)) {
		return nil, f.damaged(lo, from, "the slots point outside of the file, or to the wrong side of each other")
	}
	f.touch(loc.Record, RecordHeaderBytes)
	if r := decodeRecord(mem[loc.Record:]); r.plausible(loc.Record, int64(len(mem))) {
		to = loc.Record + r.bytes()
	}
	f.touch(from, to-from)
	return append([]byte(nil), mem[from:to]...), nil
}

// readRecord adds entry i, whose record is in copied, a copy of what begins at the offset
// from, to b, if it fits, in the memory of it.
func (f *File) readRecord(mem []byte, x *Index, i uint64, from int64, copied []byte, b *Batch, it *item) (full bool, err error) {
	loc, err := f.locate(mem, x, i)
	if err != nil {
		return false, err
	}
	at := loc.Record - from
	if at < 0 || at+RecordHeaderBytes > int64(len(copied)) {
		return false, f.damaged(i, loc.Record, "the slot points to where the record cannot be")
	}
	r := decodeRecord(copied[at:])
	if r.index != i || r.term != loc.Term || uint32(r.typ) != loc.Type || !r.plausible(loc.Record, from+int64(len(copied))) {
		return false, f.damaged(i, loc.Record, "the record does not match its slot: it says entry %d, term %d", r.index, r.term)
	}
	if !b.takes(&r, f.secret.overhead()) {
		return true, nil
	}
	end := at + RecordHeaderBytes + int64(r.payload)
	data, err := f.open(b, &r, loc.Record, mem, copied[at:end:end])
	if err != nil {
		return false, err
	}
	if b.add(&r, it); len(data) > 0 || r.flags&flagDataEmpty != 0 {
		it.entry.Data = data
	}
	return false, nil
}

// takes reports whether the entry of the record r fits, and counts it then.
func (b *Batch) takes(r *record, overhead int) bool {
	size := r.encodedSize(overhead)
	if len(b.entries) > 0 && b.encoded+size > b.MaxBytes {
		return false
	}
	b.encoded += size
	return true
}

// add adds the entry of the record r, without its data.
func (b *Batch) add(r *record, it *item) {
	it.term, it.index, it.typ = r.term, r.index, raftpb.EntryType(r.typ)
	it.entry.Term, it.entry.Index = &it.term, &it.index
	if r.flags&flagTypeUnset == 0 {
		it.entry.Type = &it.typ
	}
	b.entries = append(b.entries, &it.entry)
}

// cleared reports whether the data of entry i, which is at loc, is cleared.
func (b *Batch) cleared(i, file uint64, loc Location) bool {
	return i < b.ClearedBelow && loc.Type == uint32(raftpb.EntryNormal) &&
		(file < b.ClearedFile || file == b.ClearedFile && loc.Record < b.ClearedEnd)
}

// open returns the data of the record r at offset at, in the memory of its copy. The
// tag of an encrypted one tells what the checksum does, and more; which of them is wrong
// is asked only if something is.
func (f *File) open(b *Batch, r *record, at int64, mem, copied []byte) ([]byte, error) {
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
func (f *File) checkSum(r *record, at int64, stored []byte) error {
	if page.Sum(f.header.Salt, stored[recordSumBytes:]) != r.sum {
		return f.damaged(r.index, at, "the record's checksum does not match: the data is damaged; fetch the entry from another node")
	}
	return nil
}
