package entryfile

import "github.com/seed-2fef92ad/raftwal/internal/page"

// A slot, 32 bytes. Slot i belongs to the i-th live entry of the file.
//
//	at  size  field
//	 0     8  term
//	 8     8  index; 0: the slot is empty
//	16     8  data offset: of the payload's length in the record
//	24     4  CRC-32C of the rest of the slot, seeded with the file's salt
//	28     4  entry type
//
// Dgraph reads the last eight bytes as one number and keeps its low 32 bits.
type slot struct {
	term, index uint64
	data        int64 // bytes from the start of the file
	typ         uint32
}

// dataOffset is where, inside a record, slots point.
const dataOffset = 28

func (s slot) encode(p []byte, salt uint32) {
	_ = p[SlotBytes-1]
	page.Order.PutUint64(p[0:], s.term)
	page.Order.PutUint64(p[8:], s.index)
	page.Order.PutUint64(p[16:], uint64(s.data))
	page.Order.PutUint32(p[24:], s.typ) // for one checksum of one piece
	sum := page.Sum(salt, p[:28])
	page.Order.PutUint32(p[24:], sum)
	page.Order.PutUint32(p[28:], s.typ)
}

// decodeSlot reads a slot; ok is false if it is empty or damaged.
func decodeSlot(p []byte, salt uint32) (s slot, ok bool) {
	_ = p[SlotBytes-1]
	s = slot{
		term:  page.Order.Uint64(p[0:]),
		index: page.Order.Uint64(p[8:]),
		data:  int64(page.Order.Uint64(p[16:])),
		typ:   page.Order.Uint32(p[28:]),
	}
	return s, s.index != 0 && page.Order.Uint32(p[24:]) == slotSum(p, salt)
}

func slotSum(p []byte, salt uint32) uint32 {
	return page.Sum(page.Sum(salt, p[:24]), p[28:SlotBytes])
}

// writtenByDgraph: a slot that is in use and carries no checksum.
func writtenByDgraph(p []byte) bool {
	return page.Order.Uint64(p[8:]) != 0 && page.Order.Uint32(p[24:]) == 0
}
