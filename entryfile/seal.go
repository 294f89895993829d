package entryfile

import (
	"errors"

	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// Seal ends the file for good: data and slots are synced first, then the header
// that says so. It drops the index, since from now on the slots are it; copies
// stay valid.
func (f *File) Seal() error {
	if err := f.sealDurably(); err != nil {
		return err
	}
	if f.trims {
		_ = f.Trim() // only space depends on it
	}
	return nil
}

func (f *File) sealDurably() error {
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.SyncSlots(); err != nil {
		return err
	}
	return f.writeSeal(&f.index)
}

// SyncSlots makes the slots show the live entries, durably.
func (f *File) SyncSlots() error {
	stale := f.Stale()
	if stale {
		if err := f.findSlots(); err != nil {
			return err
		}
	}
	end := int64(max(f.index.Len(), f.slots.used)) * SlotBytes
	if stale {
		if err := f.withFile(f.writeSlots); err != nil {
			return err
		}
	}
	for from := int64(0); from < end; from += slotPiece {
		if err := f.sync(from, min(slotPiece, end-from)); err != nil {
			return err
		}
	}
	return nil
}

// slotPiece is how many bytes of slots are synced at once: so long does a Save beside it
// wait for the disk.
const slotPiece = 256 << 10

// withFile calls use with the file, open: a sealed one has no descriptor.
func (f *File) withFile(use func(vfs.File) error) error {
	if !f.Sealed() {
		return use(f.file)
	}
	file, err := f.fsys.Open(f.path, false)
	if err != nil {
		return err
	}
	return errors.Join(use(file), file.Close())
}

func (f *File) writeSeal(x *Index) error {
	seal := &Seal{
		Count: x.Len(), First: x.First(), Last: x.Last(),
		End: f.end.Load(), Punched: max(f.punched.Load(), DataStart),
	}
	if len(x.terms) <= maxDigest && len(x.others) <= maxDigest {
		seal.HasDigest, seal.Terms, seal.Others = true, x.terms, x.others
	}
	err := f.guard(func(mem []byte) error {
		slots := mem[:seal.Count*SlotBytes]
		f.await(0, int64(len(slots)))
		seal.SlotsSum, seal.SlotsMAC = page.Sum(0, slots), f.secret.slotsMAC(slots)
		return nil
	})
	if err != nil {
		return err
	}
	if err := f.writeHeader(seal); err != nil {
		return err
	}
	f.index = Index{}
	f.startTouching()
	if err := f.closeBeside(); err != nil {
		return err
	}
	return f.file.Detach()
}

// writeHeader stores the header with that seal in the page whose turn it is, synced.
// Before the first time, the other page is made sure of. If the file cannot be opened
// (vfs.OpenFailed), nothing has changed.
func (f *File) writeHeader(seal *Seal) error {
	if _, err := f.memory(); err != nil {
		return err
	}
	return f.withFile(func(file vfs.File) error {
		if !f.restored {
			if err := f.load(f.buf[:], f.page); err != nil {
				return err
			}
			if err := f.restorePage(file); err != nil {
				return err
			}
		}
		if err := f.storeHeader(file, seal); err != nil {
			return err
		}
		if err := f.sync(f.page, page.Size); err != nil {
			return err
		}
		f.seal.Store(seal)
		return nil
	})
}

// storeHeader writes the header to the page whose turn it is.
func (f *File) storeHeader(file vfs.File, seal *Seal) error {
	f.page = headerPage0 + headerPage1 - f.page
	f.sequence++
	f.encodeHeader(seal)
	return f.storePage(file)
}

// storePage writes f.buf as the header page that counts.
func (f *File) storePage(file vfs.File) error {
	if err := f.checkLength(file); err != nil {
		return err
	}
	_, err := file.WriteAt(f.buf[:], f.page)
	return err
}

// encodeHeader puts the header page into f.buf.
func (f *File) encodeHeader(seal *Seal) {
	h := f.header
	h.sequence = f.sequence
	if h.Sealed = seal != nil; h.Sealed {
		h.Seal = *seal
	}
	h.encode(f.buf[:], f.secret)
}

// RestoreHeader stores the header page that counts again, in place, synced:
// after a crash the page cache may hold what the disk does not.
func (f *File) RestoreHeader() error {
	f.encodeHeader(f.seal.Load())
	return f.withFile(f.restorePage)
}

// LostPage reports whether one of the two header pages could not be read when the file was
// opened: a store that a power cut interrupted, or damage.
func (f *File) LostPage() bool { return f.lostPage }

// HealPage writes the header anew in the place of the page that was lost, durably. The one that
// counts stays as it is, whatever becomes of that.
func (f *File) HealPage() error {
	if err := f.writeHeader(f.seal.Load()); err != nil {
		return err
	}
	f.lostPage = false
	return nil
}

// EnsureHeader is RestoreHeader if that was not done yet, of a file that was opened.
func (f *File) EnsureHeader() error {
	if f.restored {
		return nil
	}
	return f.RestoreHeader()
}

// restorePage stores f.buf as the header page that counts, synced.
func (f *File) restorePage(file vfs.File) error {
	if err := f.storePage(file); err != nil {
		return err
	}
	if err := f.sync(f.page, page.Size); err != nil {
		return err
	}
	f.restored = true
	return nil
}

// Reseal rewrites the slots and the seal of a sealed file so that they show the
// live entries up to last only, for Dgraph, which knows no other sign that a
// later file supersedes the rest; and heals damaged slots on the way. It does
// nothing if the file shows that already.
func (f *File) Reseal(last uint64) error {
	if !f.Sealed() || last >= f.sealed().Last && f.healed.Load() == nil {
		return nil
	}
	x, err := f.sealedIndex()
	if err != nil {
		return err
	}
	slots := x.Len()
	x.truncate(last + 1)
	f.index, f.slots = x, slotState{used: slots}
	if err := f.SyncSlots(); err != nil {
		return err
	}
	f.healed.Store(nil)
	return f.writeSeal(&x)
}

// Extent is a range of bytes in a file.
type Extent struct{ From, To int64 }

// ClearEnd returns the offset up to which records may go when the entries below
// the index are cleared, for Clear; 0 if none may: if the file is not sealed, or
// its terms and other entries do not fit into the header, without which the
// slots could not be rebuilt.
func (f *File) ClearEnd(below uint64) (int64, error) {
	seal := f.sealed()
	switch {
	case !f.Sealed() || !seal.HasDigest || seal.Count == 0 || below <= seal.First:
		return 0, nil
	case below > seal.Last:
		return seal.End, nil
	}
	loc, err := f.Locate(nil, below)
	return loc.Record, err
}

// Clear records, durably, that the records of normal entries that start below
// the offset until may go, and returns where those are, for Punch. Other entries
// keep theirs.
func (f *File) Clear(until int64) ([]Extent, error) {
	seal := f.sealed()
	if until == 0 || until <= seal.Punched {
		return nil, nil
	}
	from, next := seal.Punched, *seal
	next.Punched = until
	if err := f.writeHeader(&next); err != nil {
		return nil, err
	}
	f.healing.Lock() // a healing that is under way must not meet the holes
	f.punched.Store(until)
	f.healing.Unlock()
	return f.between(from, until)
}

// between returns the extents of [from, until) around the records to be spared.
func (f *File) between(from, until int64) (extents []Extent, err error) {
	err = f.guard(func(mem []byte) error {
		for _, o := range f.sealed().Others {
			if o.Record < from || o.Record >= until {
				continue
			}
			if o.Record > from {
				extents = append(extents, Extent{from, o.Record})
			}
			f.await(o.Record, RecordHeaderBytes)
			r := decodeRecord(mem[o.Record:])
			from = o.Record + r.bytes()
		}
		return nil
	})
	if until > from {
		extents = append(extents, Extent{from, until})
	}
	return extents, err
}

// Punch gives the blocks of extents that Clear returned back to the disk. An
// error, errors.ErrUnsupported among them, leaves the log whole: the data is
// dead either way.
func (f *File) Punch(extents []Extent) error {
	if len(extents) == 0 {
		return nil
	}
	return f.withFile(func(file vfs.File) error {
		for _, e := range extents {
			if err := file.Punch(e.From, e.To-e.From); err != nil {
				return err
			}
		}
		return nil
	})
}
