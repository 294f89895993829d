package entryfile

import (
	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/page"
)

// What follows is for tools that look at a file piece by piece, however damaged
// it is. Nothing of it writes, keeps state, or judges more than one piece.

// HeaderPages says where the two header pages stand, in bytes.
var HeaderPages = [2]int64{headerPage0, headerPage1}

// RecordAlign is what record offsets are multiples of, in bytes.
const RecordAlign = recordAlign

// InspectHeader reads a header page of page.Size bytes, and returns its sequence
// number besides. The MAC is not checked; see InspectSecrets. ErrVersion.
func InspectHeader(p []byte) (h Header, sequence uint64, err error) {
	h, err = decodeHeader(p)
	return h, h.sequence, err
}

// Record is a record as it stands in a file.
type Record struct {
	Offset  int64
	Index   uint64
	Term    uint64
	Type    uint32
	Payload int64 // bytes, with the tag in an encrypted file
	Mark    int64 // bytes of the file that it vouches for
	Ends    bool  // it has no entry, but says that no more follow
}

// End returns where the record ends, padding included.
func (r Record) End() int64 { return r.Offset + RecordBytes(int(r.Payload)) }

// Padded returns where the padding begins.
func (r Record) Padded() int64 { return r.Offset + RecordHeaderBytes + r.Payload }

// InspectRecord reads the record at an offset in mem, the content of a file, that
// ends by limit. ok says that it is whole; without sum, that it looks like one.
func InspectRecord(mem []byte, at, limit int64, salt uint32, sum bool) (r Record, ok bool) {
	raw, ok := inspectRecord(mem, at, limit)
	if !ok || sum && raw.sum != raw.sumOf(mem, at, salt) {
		return Record{}, false
	}
	return raw.inspected(at), true
}

// InspectRecordBy is InspectRecord by sums of mem, for who looks at one place after another:
// each costs a few bytes only, whatever length stands there. sums is called when it is needed.
func InspectRecordBy(sums func() (*page.Sums, error), mem []byte, at, limit int64, salt uint32) (r Record, ok bool, err error) {
	raw, ok := inspectRecord(mem, at, limit)
	if !ok {
		return Record{}, false, nil
	}
	by, err := sums()
	if err != nil || !raw.matches(by, at, salt) || raw.sum != raw.sumOf(mem, at, salt) {
		return Record{}, false, err
	}
	return raw.inspected(at), true, nil
}

// inspectRecord reads the header of a record; ok says that it looks like one.
func inspectRecord(mem []byte, at, limit int64) (raw record, ok bool) {
	limit = min(limit, int64(len(mem)))
	if at < DataStart || at%recordAlign != 0 || at+RecordHeaderBytes > limit {
		return record{}, false
	}
	raw = decodeRecord(mem[at:])
	return raw, raw.plausible(at, limit)
}

func (r *record) inspected(at int64) Record {
	return Record{
		Offset: at, Index: r.index, Term: r.term, Type: uint32(r.typ),
		Payload: int64(r.payload), Mark: r.mark, Ends: r.flags&flagEnd != 0,
	}
}

// Slot is a slot that is in use.
type Slot struct {
	Index, Term uint64
	Type        uint32
	Record      int64 // offset of the record
}

// InspectSlot reads slot number n of mem, the content of a file; ok is false if
// it is empty or damaged.
func InspectSlot(mem []byte, n uint64, salt uint32) (s Slot, ok bool) {
	raw, ok := decodeSlot(mem[n*SlotBytes:(n+1)*SlotBytes], salt)
	return Slot{Index: raw.index, Term: raw.term, Type: raw.typ, Record: raw.data - dataOffset}, ok
}

// InspectSlots returns the checksum of the first n slots, as a seal has it.
func InspectSlots(mem []byte, n uint64) uint32 { return page.Sum(0, mem[:n*SlotBytes]) }

// Secrets checks and opens what an encrypted file holds. It is for one goroutine
// at a time.
type Secrets struct {
	secret *secret
	opener opener
}

// InspectSecrets checks the header page p, which says h, against its MAC, and
// unwraps the file's key. encryption.ErrTampered.
func InspectSecrets(h *Header, p []byte, keys *encryption.DirectoryKey) (*Secrets, error) {
	s, err := openSecret(h, p, keys)
	if err != nil {
		return nil, err
	}
	return &Secrets{secret: s}, nil
}

// SlotsAuthentic reports whether the slots in mem are those that seal is about.
func (s *Secrets) SlotsAuthentic(mem []byte, seal *Seal) bool {
	return s.secret.slotsMAC(mem[:seal.Count*SlotBytes]) == seal.SlotsMAC
}

// Open returns the data of a whole record of mem, valid until the next call.
// encryption.ErrTampered.
func (s *Secrets) Open(mem []byte, r Record) ([]byte, error) {
	header := [RecordHeaderBytes]byte(mem[r.Offset:])
	s.opener.buf = append(s.opener.buf[:0], mem[r.Offset+RecordHeaderBytes:r.Padded()]...)
	return s.secret.open(&s.opener.scratch, r.Offset, s.opener.buf, header[:])
}

// Wipe makes the file's key unusable.
func (s *Secrets) Wipe() { s.secret.wipe() }
