package entryfile

import (
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

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

// slotState says what the slots show. They are written when the file is sealed or closed, all
// at once: until then the index is in memory, and after a crash it is rebuilt from the records.
type slotState struct {
	right  uint64 // so many slots show the index
	used   uint64 // all slots behind so many are zero
	unseen bool   // and perhaps more: nobody has looked
}

// unknown notes that the slots may hold anything.
func (s *slotState) unknown() { *s = slotState{used: MaxSlots, unseen: true} }

// truncated notes that so many entries are left.
func (s *slotState) truncated(n uint64) { s.right = min(s.right, n) }

// show reports whether the slots show an index of n entries.
func (s *slotState) show(n uint64) bool { return s.right == n && s.used <= n }

// slotBuffer is how many bytes of slots are encoded at once.
const slotBuffer = 64 << 10

// writeSlots writes the slots that do not show the index, and zeros behind them, to file,
// which is f, open.
func (f *File) writeSlots(file vfs.File) error {
	if err := f.checkLength(file); err != nil {
		return err
	}
	live := f.index.Len()
	at := int64(f.slots.right) * SlotBytes &^ (page.Size - 1)
	end := roundUp(int64(max(live, f.slots.used))*SlotBytes, page.Size)
	f.ways.begin(false)
	defer f.ways.end()
	for p := make([]byte, min(slotBuffer, end-at)); at < end; at += int64(len(p)) {
		p = p[:min(int64(len(p)), end-at)]
		f.encodeSlots(p, uint64(at)/SlotBytes, live)
		if _, err := file.WriteAt(p, at); err != nil {
			return err
		}
	}
	f.slots = slotState{right: live, used: live}
	return nil
}

// encodeSlots fills p with the slots from the n-th on, of an index of so many entries.
func (f *File) encodeSlots(p []byte, n, live uint64) {
	for ; len(p) > 0 && n < live; n++ {
		f.index.slot(f.index.First()+n).encode(p, f.header.Salt)
		p = p[SlotBytes:]
	}
	clear(p)
}
