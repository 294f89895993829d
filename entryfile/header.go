package entryfile

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/page"
)

// A header page. What is not listed is zero, the last 16 bytes always, since
// Dgraph looks for a key there.
//
//	at  size  field
//	 0     8  magic "RAFTWALe"
//	 8     4  format version
//	12     4  CRC-32C of the page, without this field
//	16     8  sequence number of this page
//	24     8  number of the file
//	32     8  number of the file before it; 0: none
//	40     8  log ID, as in wal.meta
//	48     8  size of the file in bytes
//	56     4  salt, random
//	60     4  flags: 1 sealed, 2 the digest below is complete, 4 encrypted,
//	          8 the file before it was sealed when this one got its name,
//	          16 the data region was not zero then, since the file is used again
//	116    4  salt of the file before it
//	          and of a sealed file:
//	64     8  live entries
//	72     8  first index; 0: no entries
//	80     8  last index
//	88     8  end of the data, in bytes
//	96     8  start of the first record that is surely there: what lies before
//	          it may have been punched out, and is told by the digest
//	104    4  CRC-32C of the slots in use
//	108    4  digest: number of terms (at most 96)
//	112    4  digest: number of entries that are not normal ones (at most 96)
//	128    -  a term: u64 first index, u64 term
//	1664   -  an entry: u64 index, u32 record offset in units of 8 bytes, u32 type
//	          and of an encrypted file:
//	3200    4  length of the wrapped data key
//	3204    -  the data key, wrapped by the directory key (at most 60 bytes)
//	3264   32  if sealed: MAC of the slots in use
//	3296   32  MAC of the page, without this field and the CRC-32C
type Header struct {
	Number, Prev uint64
	LogID        uint64
	Size         int64 // bytes
	Salt         uint32
	PrevSalt     uint32 // of the file before it
	PrevSealed   bool   // that one was sealed when this one got its name
	Reused       bool   // the data region held something when the file was made
	WrappedKey   []byte // the file's data key; empty: not encrypted
	Sealed       bool
	Seal         Seal // zero unless Sealed

	sequence uint64
}

// Seal is what is known for good of a file that takes no more entries.
type Seal struct {
	Count       uint64
	First, Last uint64 // indexes; 0 if Count is 0
	End         int64  // of the data, in bytes from the start of the file
	Punched     int64  // records that start below it may be gone
	SlotsSum    uint32
	SlotsMAC    [encryption.MACBytes]byte // zero in a plain file
	// Digest says in brief what the slots say, if it fits: enough to rebuild
	// them where the records were punched out.
	HasDigest bool
	Terms     []Run
	Others    []Other
}

// Run is the first entry of those that share a term.
type Run struct{ First, Term uint64 }

// Other is an entry that is not a normal one.
type Other struct {
	Index  uint64
	Record int64 // offset in bytes
	Type   uint32
}

const (
	headerMagic   = "RAFTWALe"
	Version       = 1 // of the format that this package writes, and the newest it reads
	atHeaderSum   = 12
	atTerms       = 128
	atOthers      = 1664
	maxDigest     = 96
	digestBytes   = 16
	flagSealed    = 1
	flagHasDigest = 2
	flagEncrypted = 4
	flagPrevSeal  = 8
	flagReused    = 16

	atWrapped  = 3200
	atSlotsMAC = 3264
	atMAC      = 3296
	maxWrapped = atSlotsMAC - atWrapped - 4
)

var (
	_ [atWrapped - (atOthers + maxDigest*digestBytes)]byte // the digest fits
	_ [page.Size - 16 - (atMAC + encryption.MACBytes)]byte
)

var (
	errHeader        = errors.New("the header page's magic number or checksum is wrong")
	errContradiction = errors.New("the header page contradicts itself")
)

// ErrVersion: the file was written by a newer version of this package.
var ErrVersion = errors.New("written by a newer version")

// encode writes the header to p, with the MAC if the file is encrypted.
func (h *Header) encode(p []byte, s *secret) {
	clear(p)
	put := func(at int, v uint64) { page.Order.PutUint64(p[at:], v) }
	copy(p, headerMagic)
	page.Order.PutUint32(p[8:], Version)
	put(16, h.sequence)
	put(24, h.Number)
	put(32, h.Prev)
	put(40, h.LogID)
	put(48, uint64(h.Size))
	page.Order.PutUint32(p[56:], h.Salt)
	page.Order.PutUint32(p[116:], h.PrevSalt)
	if h.Sealed {
		h.Seal.encode(p)
	}
	if len(h.WrappedKey) > 0 {
		page.Order.PutUint32(p[60:], page.Order.Uint32(p[60:])|flagEncrypted)
		page.Order.PutUint32(p[atWrapped:], uint32(len(h.WrappedKey)))
		copy(p[atWrapped+4:], h.WrappedKey)
	}
	if h.PrevSealed {
		page.Order.PutUint32(p[60:], page.Order.Uint32(p[60:])|flagPrevSeal)
	}
	if h.Reused {
		page.Order.PutUint32(p[60:], page.Order.Uint32(p[60:])|flagReused)
	}
	s.sign(p)
	page.Seal(p, atHeaderSum)
}

func (s *Seal) encode(p []byte) {
	put := func(at int, v uint64) { page.Order.PutUint64(p[at:], v) }
	flags := uint32(flagSealed)
	put(64, s.Count)
	put(72, s.First)
	put(80, s.Last)
	put(88, uint64(s.End))
	put(96, uint64(s.Punched))
	page.Order.PutUint32(p[104:], s.SlotsSum)
	copy(p[atSlotsMAC:], s.SlotsMAC[:])
	if s.HasDigest {
		flags |= flagHasDigest
		page.Order.PutUint32(p[108:], uint32(len(s.Terms)))
		page.Order.PutUint32(p[112:], uint32(len(s.Others)))
		for i, run := range s.Terms {
			put(atTerms+i*digestBytes, run.First)
			put(atTerms+i*digestBytes+8, run.Term)
		}
		for i, o := range s.Others {
			at := atOthers + i*digestBytes
			put(at, o.Index)
			page.Order.PutUint32(p[at+8:], uint32(o.Record/recordAlign))
			page.Order.PutUint32(p[at+12:], o.Type)
		}
	}
	page.Order.PutUint32(p[60:], flags)
}

// decodeHeader reads a header page of page.Size bytes. It trusts no field before
// the checksum is checked, and then only those within bounds.
func decodeHeader(p []byte) (Header, error) {
	if string(p[:len(headerMagic)]) != headerMagic || !page.Sealed(p[:page.Size], atHeaderSum) {
		return Header{}, errHeader
	}
	if v := page.Order.Uint32(p[8:]); v != Version {
		return Header{}, fmt.Errorf("%w (format %d; this one reads %d)", ErrVersion, v, Version)
	}
	get := func(at int) uint64 { return page.Order.Uint64(p[at:]) }
	h := Header{
		sequence: get(16), Number: get(24), Prev: get(32), LogID: get(40),
		Size: int64(get(48)), Salt: page.Order.Uint32(p[56:]), PrevSalt: page.Order.Uint32(p[116:]),
		PrevSealed: page.Order.Uint32(p[60:])&flagPrevSeal != 0,
		Reused:     page.Order.Uint32(p[60:])&flagReused != 0,
	}
	if page.Order.Uint32(p[60:])&flagEncrypted != 0 {
		n := page.Order.Uint32(p[atWrapped:])
		if n == 0 || n > maxWrapped {
			return h, fmt.Errorf("%w: the wrapped key has %d bytes, 1 to %d fit", errContradiction, n, maxWrapped)
		}
		h.WrappedKey = bytes.Clone(p[atWrapped+4 : atWrapped+4+n])
	}
	if page.Order.Uint32(p[60:])&flagSealed == 0 {
		return h, nil
	}
	h.Sealed = true
	return h, h.Seal.decode(p, h.Size)
}

func (s *Seal) decode(p []byte, size int64) error {
	get := func(at int) uint64 { return page.Order.Uint64(p[at:]) }
	*s = Seal{
		Count: get(64), First: get(72), Last: get(80), End: int64(get(88)), Punched: int64(get(96)),
		SlotsSum:  page.Order.Uint32(p[104:]),
		HasDigest: page.Order.Uint32(p[60:])&flagHasDigest != 0,
	}
	copy(s.SlotsMAC[:], p[atSlotsMAC:])
	empty := s.Count == 0 && s.First == 0 && s.Last == 0
	if s.Count > MaxSlots || s.End < DataStart || s.End > size || s.Punched < DataStart || s.Punched > s.End ||
		!empty && (s.First == 0 || s.Last-s.First+1 != s.Count) {
		return fmt.Errorf("%w: the seal has %d entries, %d to %d, data end %d of %d", errContradiction, s.Count, s.First, s.Last, s.End, size)
	}
	terms, others := page.Order.Uint32(p[108:]), page.Order.Uint32(p[112:])
	if terms > maxDigest || others > maxDigest {
		return fmt.Errorf("%w: the digest has %d and %d items, at most %d fit", errContradiction, terms, others, maxDigest)
	}
	for i := range int(terms) {
		at := atTerms + i*digestBytes
		s.Terms = append(s.Terms, Run{get(at), get(at + 8)})
	}
	for i := range int(others) {
		at := atOthers + i*digestBytes
		s.Others = append(s.Others, Other{
			Index:  get(at),
			Record: int64(page.Order.Uint32(p[at+8:])) * recordAlign,
			Type:   page.Order.Uint32(p[at+12:]),
		})
	}
	return s.checkDigest()
}

// checkDigest: what was punched out, or will be, can be told by the digest only.
func (s *Seal) checkDigest() error {
	if s.Count > 0 && (s.HasDigest || s.Punched > DataStart) && (len(s.Terms) == 0 || s.Terms[0].First != s.First) {
		return fmt.Errorf("%w: the digest does not tell the term of entry %d", errContradiction, s.First)
	}
	for _, o := range s.Others {
		if o.Record < DataStart || o.Record+RecordHeaderBytes > s.End {
			return fmt.Errorf("%w: the digest has entry %d at %d, outside of the data", errContradiction, o.Index, o.Record)
		}
	}
	return nil
}
