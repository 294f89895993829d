package entryfile

import (
	"errors"
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
	if loc, ok := f.known(mem, x, i); ok {
		return loc, nil
	}
	if x == nil {
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

// ErrCleared: the data of an entry was cleared, so that it cannot be read.
var ErrCleared = errors.New("entryfile: the entry's data was cleared")

// A Batch collects the entries of one read, file by file.
type Batch struct {
	MaxBytes uint64 // proto.Size of the entries; the first one always fits
	// Normal entries below the index ClearedBelow are cleared, if their records
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
// keeps alive those that were copied with it, a megabyte of records at most.
func (b *Batch) Entries() []*raftpb.Entry { return b.entries }

// maxPiece is how many bytes of records are copied at once, unless one is larger: enough
// for what a read costs besides to be little, and not much for an entry to keep alive.
const maxPiece = 1 << 20

// Read adds the live entries [lo, hi) of the file to b, up to the first that no longer
// fits: then full is true. Each is copied, and the copy compared with its checksum and
// with the index. See Locate for x. ErrCleared if one of them is cleared, unless b is full before.
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
	from := first.Record
	if from < DataStart || from+RecordHeaderBytes > int64(len(mem)) {
		return lo, false, f.damaged(lo, from, "the slot points outside of the file")
	}
	if b.cleared(lo, f.header.Number, first) {
		return lo, false, ErrCleared
	}
	hi = f.untilCleared(mem, x, lo, hi, b)
	n, to := f.piece(mem, x, lo, hi, first, b)
	if to == 0 {
		r, ok := f.headerAt(mem, lo, first)
		if ok && !b.fits(&r, f.secret.overhead()) {
			return lo, true, nil
		}
		to = from + RecordHeaderBytes
		if ok {
			to = from + r.bytes()
		}
	}
	f.touch(from, to-from)
	copied := append([]byte(nil), mem[from:to]...)
	b.entries = slices.Grow(b.entries, n)
	for items := make([]item, n); len(items) > 0; items = items[1:] {
		full, err = f.readRecord(mem, x, lo, from, copied, b, &items[0])
		if err == errElsewhere && len(items) < n {
			return lo, false, nil // where the data of others is cleared; the next piece begins with it
		}
		if err == errElsewhere {
			err = f.damaged(lo, from, "the slot points to where the record cannot be")
		}
		if full || err != nil {
			return lo, full, err
		}
		lo++
	}
	return lo, false, nil
}

// untilCleared returns up to where none of the entries [lo, hi) is cleared, as far as that is
// known. The first is not.
func (f *File) untilCleared(mem []byte, x *Index, lo, hi uint64, b *Batch) uint64 {
	if lo >= b.ClearedBelow {
		return hi
	}
	for lo++; lo < hi; lo++ {
		loc, ok := f.known(mem, x, lo)
		if !ok || b.cleared(lo, f.header.Number, loc) {
			break
		}
	}
	return lo
}

// piece returns how many of the entries [lo, hi), of which the first is at first, are
// copied at once, and where the last of them ends at the latest: as many as may fit, as
// far as the index tells. If it is one only, to is 0 unless that is near: then its header
// tells more, and it is worth waiting for.
func (f *File) piece(mem []byte, x *Index, lo, hi uint64, first Location, b *Batch) (n int, to int64) {
	room := b.MaxBytes - min(b.encoded, b.MaxBytes)
	header := RecordBytes(f.secret.overhead())
	least := record{term: first.Term, index: lo, flags: flagTypeUnset}
	more := sort.Search(int(min(hi-lo-1, MaxSlots)), func(k int) bool {
		n := int64(k) + 2
		end, ok := f.endOf(mem, x, lo+uint64(k)+1)
		span := end - first.Record
		return !ok || span > maxPiece || uint64(n)*least.encodedSize(0) > room || span-n*header > 0 && uint64(span-n*header) > room
	})
	n = more + 1
	to, ok := f.endOf(mem, x, lo+uint64(more))
	span := to - first.Record
	if !ok || span < int64(n)*header || to > int64(len(mem)) || n == 1 && span > page.Size {
		return 1, 0
	}
	return n, to
}

// endOf returns where the record of entry i ends at the latest: where the next one begins;
// ok is false if the index does not tell.
func (f *File) endOf(mem []byte, x *Index, i uint64) (end int64, ok bool) {
	last := f.sealed().Last
	if x != nil {
		last = x.Last()
	}
	if i == last {
		return f.end.Load(), true
	}
	loc, ok := f.known(mem, x, i+1)
	return loc.Record, ok
}

// known is locate for an entry whose slot need not be rebuilt; ok is false if it must be.
func (f *File) known(mem []byte, x *Index, i uint64) (loc Location, ok bool) {
	if x == nil {
		x = f.healed.Load()
	}
	if x == nil {
		s, ok := f.sealedSlot(mem, i)
		return Location{s.term, s.typ, s.data - dataOffset}, ok && f.slotsAuthentic(mem)
	}
	if !x.Has(i) {
		return Location{}, false
	}
	return Location{x.Term(i), x.Type(i), x.Record(i)}, true
}

// headerAt reads the header of the record of entry i, which is at loc; ok is false if it is
// damaged for sure.
func (f *File) headerAt(mem []byte, i uint64, loc Location) (r record, ok bool) {
	f.touch(loc.Record, RecordHeaderBytes)
	r.decode(mem[loc.Record:])
	return r, f.matches(&r, i, loc, min(int64(len(mem)), f.end.Load()))
}

// matches compares the header of the record of entry i with the index; the record ends by
// end.
func (f *File) matches(r *record, i uint64, loc Location, end int64) bool {
	return r.index == i && r.term == loc.Term && uint32(r.typ) == loc.Type && r.plausible(loc.Record, end)
}

// errElsewhere: the record is not in what was copied.
var errElsewhere = errors.New("the record is elsewhere")

// readRecord adds entry i, whose record is in copied, a copy of what begins at the offset
// from, to b, if it fits, in the memory of it.
func (f *File) readRecord(mem []byte, x *Index, i uint64, from int64, copied []byte, b *Batch, it *item) (full bool, err error) {
	loc, err := f.locate(mem, x, i)
	if err != nil {
		return false, err
	}
	at := loc.Record - from
	if at < 0 || at+RecordHeaderBytes > int64(len(copied)) {
		return false, errElsewhere
	}
	var r record
	if r.decode(copied[at:]); !f.matches(&r, i, loc, from+int64(len(copied))) {
		return false, f.damaged(i, loc.Record, "the record does not match its slot: it says entry %d, term %d", r.index, r.term)
	}
	if !b.fits(&r, f.secret.overhead()) {
		return true, nil
	}
	end := at + RecordHeaderBytes + int64(r.payload)
	data, err := f.open(b, &r, loc.Record, mem, copied[at:end:end])
	if err != nil {
		return false, err
	}
	if b.add(&r, f.secret.overhead(), it); len(data) > 0 || r.flags&flagDataEmpty != 0 {
		it.entry.Data = data
	}
	return false, nil
}

// fits reports whether the entry of the record r fits.
func (b *Batch) fits(r *record, overhead int) bool {
	return len(b.entries) == 0 || b.encoded+r.encodedSize(overhead) <= b.MaxBytes
}

// add adds the entry of the record r, without its data.
func (b *Batch) add(r *record, overhead int, it *item) {
	b.encoded += r.encodedSize(overhead)
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
