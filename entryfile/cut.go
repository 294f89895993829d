package entryfile

import (
	"errors"
	"fmt"
	"io"

	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/page"
)

// A Cut is a file as it was at one moment, for a backup that reads it while the
// file grows, or is sealed. The file stays mapped until Release. The methods of a Cut
// may be called beside those of the file, but for Clear, Punch, Recover and Reseal;
// they change nothing.
type Cut struct {
	file   *File
	header Header
	end    int64 // of the records
}

// A Piece is bytes of a file and the offset where they stand.
type Piece struct {
	Offset int64
	Bytes  []byte
}

var errClosed = errors.New("the file is closed")

// Cut returns the file as it is now. It may be called beside Seal, not beside what
// writes records.
func (f *File) Cut() (Cut, error) {
	if !f.Pin() {
		return Cut{}, fmt.Errorf("%s: %w", f.path, errClosed)
	}
	if _, err := f.memory(); err != nil { // later its name may be gone
		return Cut{}, errors.Join(err, f.Release())
	}
	h := f.header
	h.sequence, h.Sealed, h.Seal = 1, false, Seal{}
	if seal := f.seal.Load(); seal != nil {
		h.Sealed, h.Seal = true, *seal
	}
	return Cut{file: f, header: h, end: f.end.Load()}, nil
}

// Release lets go of the file.
func (c *Cut) Release() error { return c.file.Release() }

// Header returns the file's header.
func (c *Cut) Header() *Header { return &c.header }

// End returns where the records end, in bytes; DataStart if there are none.
func (c *Cut) End() int64 { return c.end }

// HeaderPage returns a header page for the copy. It tells the file from all others,
// and from itself at other times, but for records that were appended since.
func (c *Cut) HeaderPage() Piece {
	p := make([]byte, page.Size)
	c.header.encode(p, c.file.secret)
	return Piece{headerPage0, p}
}

// Slots returns the slots of a sealed file, from its start on. Those of a file that
// is not sealed are left out: whoever opens it rebuilds them. Damaged slots are
// rebuilt here: *corrupt.Error if the records they are rebuilt from are damaged.
func (c *Cut) Slots() ([]byte, error) {
	if c.header.Seal.Count == 0 { // empty, or not sealed
		return nil, nil
	}
	slots := make([]byte, c.header.Seal.Count*SlotBytes)
	err := c.file.load(slots, 0)
	if err != nil || c.sealedSlots(slots) {
		return slots, err
	}
	x, err := c.file.heal()
	if err != nil {
		return nil, err
	}
	for n := range min(c.header.Seal.Count, x.Len()) {
		slot := x.slot(x.First() + n)
		if slot.typ == 0 && slot.data-dataOffset < c.header.Seal.Punched {
			continue // cleared: where its record stood only the slot itself tells
		}
		slot.encode(slots[n*SlotBytes:], c.header.Salt)
	}
	if !c.sealedSlots(slots) {
		return nil, corrupt.At(c.file.path, 0, "the slots are damaged, and those rebuilt from the records are not what was sealed: "+
			"close the log, which writes them anew, and back it up again")
	}
	return slots, nil
}

func (c *Cut) sealedSlots(slots []byte) bool {
	seal := &c.header.Seal
	return page.Sum(0, slots) == seal.SlotsSum && c.file.secret.slotsMAC(slots) == seal.SlotsMAC
}

// Records returns where the records stand that a copy needs: all of them, but for
// those that may have been punched out.
func (c *Cut) Records() (extents []Extent, err error) {
	from := int64(DataStart)
	if c.header.Sealed {
		from = max(from, c.header.Seal.Punched)
	}
	err = c.file.guard(func(mem []byte) error {
		for _, o := range c.header.Seal.Others {
			if o.Record >= from {
				break
			}
			var r record
			ok := c.file.awaitIntact(&r, mem, o.Record, c.end)
			if !ok || r.index != o.Index {
				return c.file.damaged(o.Index, o.Record, "the record, which was spared when data was cleared, is damaged")
			}
			extents = append(extents, Extent{o.Record, o.Record + r.bytes()})
		}
		return nil
	})
	if c.end > from {
		extents = append(extents, Extent{from, c.end})
	}
	return extents, err
}

// checkStep is how many bytes of records Check reads, at least.
const checkStep = 1 << 20

// Check reads the records of e from its start on against their checksums, and
// returns where the last of those ends that it read. *corrupt.Error.
func (c *Cut) Check(e Extent) (to int64, err error) {
	to = e.From
	err = c.file.guard(func(mem []byte) error {
		read := reading{c.file, e.To, e.To, e.From} // a hole is damage: nothing is to be skipped
		for to < min(e.To, e.From+checkStep) {
			if err := read.record(mem, to); err != nil {
				return err
			}
			var r record
			if !r.intact(mem, to, e.To, c.header.Salt) {
				return &corrupt.Error{File: c.file.path, Offset: to, First: c.header.Seal.First, Last: c.header.Seal.Last,
					Reason: fmt.Sprintf("the record is damaged; those of the file end at %d", c.end)}
			}
			to += r.bytes()
		}
		return nil
	})
	return to, err
}

// ReadAt implements io.ReaderAt.
func (c *Cut) ReadAt(p []byte, off int64) (n int, err error) {
	err = c.file.guard(func(mem []byte) error {
		if off < 0 || off > int64(len(mem)) {
			return io.EOF
		}
		c.file.await(off, min(int64(len(p)), int64(len(mem))-off))
		if n = copy(p, mem[off:]); n < len(p) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

// Changed reports whether another process, the owner of a log that is open for
// reading only here, has used the file anew or cleared records of it since.
func (c *Cut) Changed() (bool, error) {
	changed := false
	err := c.file.guard(func(mem []byte) error {
		for _, at := range HeaderPages {
			c.file.await(at, page.Size)
			h, err := decodeHeader(mem[at : at+page.Size])
			if err == nil && (h.Salt != c.header.Salt || h.Seal.Punched > max(c.header.Seal.Punched, DataStart)) {
				changed = true
			}
		}
		return nil
	})
	return changed, err
}
