package entryfile

import "github.com/seed-2fef92ad/raftwal/internal/page"

// Trim gives back the blocks that a file holds no records and no slots in, once its end is
// durable and it takes no more: those that were made for records that did not come, and what a
// torn write left. So what a start costs that did not get far is what it stored. Before it is
// sealed a file keeps the slots that it may still write; Seal gives back the rest. An
// error, errors.ErrUnsupported among them, leaves the file whole.
func (f *File) Trim() error {
	f.trims = true
	slots, err := f.slotsEnd()
	if err != nil {
		return err
	}
	extents := make([]Extent, 0, 2)
	if slots < headerPage0 {
		extents = append(extents, Extent{slots, headerPage0})
	}
	if end := roundUp(f.end.Load(), page.Size); end < f.header.Size {
		extents = append(extents, Extent{end, f.header.Size})
	}
	return f.Punch(extents)
}

// slotsEnd returns the end of the pages that hold slots, or may have to be written because
// they hold what earlier entries left.
func (f *File) slotsEnd() (int64, error) {
	if f.header.Reused && !f.Sealed() {
		return headerPage0, nil
	}
	if err := f.findSlots(); err != nil {
		return 0, err
	}
	return roundUp(int64(max(f.index.Len(), f.slots.used))*SlotBytes, page.Size), nil
}

// reserveSlots makes sure of the blocks of the slots that are still to be written, and of the
// header.
func (f *File) reserveSlots() error {
	end, err := f.slotsEnd()
	if err != nil {
		return err
	}
	if end == headerPage0 {
		return f.file.Reserve(0, DataStart)
	}
	if end > 0 {
		if err := f.file.Reserve(0, end); err != nil {
			return err
		}
	}
	return f.file.Reserve(headerPage0, DataStart-headerPage0)
}
