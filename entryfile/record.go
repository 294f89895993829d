package entryfile

import (
	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// A record: 32 bytes, the payload, and zeros up to the next multiple of 8.
//
//	at  size  field
//	 0     4  CRC-32C of all that follows up to the end of the payload, seeded
//	          with the file's salt
//	 4     1  entry type
//	 5     1  flags: 1 the entry's Type field was not set, 2 its Data was empty
//	          but not nil (so that entries read back as they were saved), 4 no
//	          entry, but the end of the file: index and term are those of the
//	          last entry, or 1, and the payload is empty
//	 6     2  zero
//	 8     8  term, never 0
//	16     8  index, never 0
//	24     4  mark: the end of this file's data that was known durable when the
//	          record was appended, in units of 8 bytes; a mark at or beyond the
//	          start of the data vouches for all earlier files as well
//	28     4  length of the payload
//	32     -  payload: the entry's data, or in an encrypted file its ciphertext and
//	          tag
type record struct {
	sum     uint32
	typ     uint8
	flags   uint8
	zero    uint16
	term    uint64
	index   uint64
	mark    int64 // bytes from the start of the file
	payload uint32
}

const (
	flagTypeUnset = 1 << 0
	flagDataEmpty = 1 << 1
	flagEnd       = 1 << 2
	knownFlags    = flagTypeUnset | flagDataEmpty | flagEnd

	recordSumBytes = 4 // the checksum does not cover itself

	maxPayload = MaxEntryBytes + encryption.TagBytes // so that no sum overflows where an int has 32 bits
)

// describe makes r, a zero record or one that described another entry, the header of the
// record for e; index and term are present. overhead is how much longer than the entry's
// data the payload is. It is field by field since the processor waits where what was
// just stored in pieces is copied as a whole; so do pointers to records.
func (r *record) describe(e *raftpb.Entry, mark int64, overhead int) {
	r.typ, r.flags, r.term, r.index = uint8(e.GetType()), 0, e.GetTerm(), e.GetIndex()
	r.mark, r.payload = mark, uint32(len(e.Data)+overhead)
	if e.Type == nil {
		r.flags |= flagTypeUnset
	}
	if e.Data != nil && len(e.Data) == 0 {
		r.flags |= flagDataEmpty
	}
}

// encode writes the header to p, but for the checksum.
func (r *record) encode(p []byte) {
	_ = p[RecordHeaderBytes-1]
	p[4], p[5] = r.typ, r.flags
	page.Order.PutUint16(p[6:], 0)
	page.Order.PutUint64(p[8:], r.term)
	page.Order.PutUint64(p[16:], r.index)
	page.Order.PutUint32(p[24:], uint32(r.mark/recordAlign))
	page.Order.PutUint32(p[28:], r.payload)
}

// sealRecord puts the checksum over the record in p, and over what of its payload is not
// in p but follows, into p.
func sealRecord(p, follows []byte, salt uint32) {
	sum := page.Sum(salt, p[recordSumBytes:])
	if len(follows) > 0 {
		sum = page.Sum(sum, follows)
	}
	page.Order.PutUint32(p, sum)
}

func decodeRecord(p []byte) (r record) {
	r.decode(p)
	return r
}

func (r *record) decode(p []byte) {
	_ = p[RecordHeaderBytes-1]
	r.sum, r.typ, r.flags, r.zero = page.Order.Uint32(p), p[4], p[5], page.Order.Uint16(p[6:])
	r.term, r.index = page.Order.Uint64(p[8:]), page.Order.Uint64(p[16:])
	r.mark, r.payload = int64(page.Order.Uint32(p[24:]))*recordAlign, page.Order.Uint32(p[28:])
}

// plausible is what holds for every record that was ever written, and for
// hardly anything else: it spares most checksums.
func (r *record) plausible(at, end int64) bool {
	return r.index != 0 && r.term != 0 && r.zero == 0 && r.flags&^knownFlags == 0 &&
		r.mark <= at && r.payload <= maxPayload && at+RecordBytes(int(r.payload)) <= end
}

// bytes returns what the record takes in the data region.
func (r *record) bytes() int64 { return RecordBytes(int(r.payload)) }

// encodedSize returns proto.Size of the entry as it was saved, by which raft
// limits what a read returns.
func (r *record) encodedSize(overhead int) uint64 {
	n := max(int(r.payload)-overhead, 0)
	return encodedSize(r.term, r.index, uint64(r.typ), n, r.flags&flagTypeUnset == 0, n > 0 || r.flags&flagDataEmpty != 0)
}

// EncodedSize returns proto.Size of an entry without unknown fields; index and term are
// present.
func EncodedSize(e *raftpb.Entry) uint64 {
	return encodedSize(e.GetTerm(), e.GetIndex(), uint64(e.GetType()), len(e.Data), e.Type != nil, e.Data != nil)
}

func encodedSize(term, index, typ uint64, data int, hasType, hasData bool) uint64 {
	size := 2 + protowire.SizeVarint(term) + protowire.SizeVarint(index)
	if hasType {
		size += 1 + protowire.SizeVarint(typ)
	}
	if hasData {
		size += 1 + protowire.SizeBytes(data)
	}
	return uint64(size)
}

// intact reports whether mem holds a whole record at offset at that ends by end, and
// makes r its header.
func (r *record) intact(mem []byte, at, end int64, salt uint32) bool {
	if at+RecordHeaderBytes > end {
		return false
	}
	r.decode(mem[at:])
	return r.plausible(at, end) && r.sum == r.sumOf(mem, at, salt)
}

// sumOf returns the checksum that the record r at offset at should have.
func (r *record) sumOf(mem []byte, at int64, salt uint32) uint32 {
	return page.Sum(salt, mem[at+recordSumBytes:at+RecordHeaderBytes+int64(r.payload)])
}

// matches is whether the record r at offset at has its checksum, by sums.
func (r *record) matches(sums *page.Sums, at int64, salt uint32) bool {
	return r.sum == sums.Sum(salt, at+recordSumBytes, at+RecordHeaderBytes+int64(r.payload))
}
