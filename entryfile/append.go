package entryfile

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"go.etcd.io/raft/v3/raftpb"
)

// Room returns how many of the entries es, and how many bytes of records, the
// file still takes in its slots and its data region. es may replace a suffix.
func (f *File) Room(es []*raftpb.Entry) (count int, bytes int64) {
	if f.header.Sealed || len(es) == 0 {
		return 0, 0
	}
	slots := f.index.Len()
	if first := es[0].GetIndex(); f.index.Has(first) {
		slots = first - f.index.First()
	} else if slots > 0 && first != f.index.Last()+1 {
		return 0, 0 // replaces a suffix that starts in an older file
	}
	return fit(es, int(slots), f.header.Size-f.end, f.secret.overhead())
}

// Fit returns how many of es the empty file that s describes takes, and how many
// bytes of records they are.
func (s *Spec) Fit(es []*raftpb.Entry) (count int, bytes int64) {
	return fit(es, 0, s.DataBytes, s.overhead())
}

// RecordBytes returns what an entry with n bytes of data takes in the file.
func (s *Spec) RecordBytes(n int) int64 { return RecordBytes(n + s.overhead()) }

func (s *Spec) overhead() int {
	if s.Keys == nil {
		return 0
	}
	return encryption.TagBytes
}

func fit(es []*raftpb.Entry, slots int, free int64, overhead int) (count int, bytes int64) {
	for _, e := range es {
		n := RecordBytes(len(e.GetData()) + overhead)
		if slots+count == MaxSlots || bytes+n > free {
			break
		}
		bytes += n
		count++
	}
	return count, bytes
}

// Reserve makes blocks and pages ready for dataBytes of records of count
// entries, which Room granted. ENOSPC or a fault says that the disk is full;
// nothing has changed then, and it can be tried again.
func (f *File) Reserve(dataBytes int64, count int) error {
	if want := roundUp(f.end+dataBytes, page.Size); want > f.reserved {
		step := min(max(want, f.reserved+dataStep), f.header.Size)
		err := f.reserveData(step)
		if step > want && isFull(err) {
			err = f.reserveData(want) // there may be room for this much
		}
		if err != nil {
			return err
		}
	}
	want := roundUp(min(int64(f.index.Len())+int64(count), MaxSlots)*SlotBytes, page.Size)
	if want <= f.slotsEnd {
		return nil
	}
	want = min(max(want, f.slotsEnd+slotStep), headerPage0)
	if err := f.mem.Populate(f.slotsEnd, want-f.slotsEnd); err != nil {
		return f.explainFault(err)
	}
	f.slotsEnd = want
	return nil
}

func (f *File) reserveData(to int64) error {
	if err := f.file.Reserve(f.reserved, to-f.reserved); err != nil {
		return err
	}
	if err := f.mem.Populate(f.reserved, to-f.reserved); err != nil {
		return f.explainFault(err)
	}
	f.reserved = to
	return nil
}

// explainFault tells a file that somebody has cut short from a full disk.
func (f *File) explainFault(err error) error {
	size, sizeErr := f.file.Size()
	if !errors.Is(err, vfs.ErrFault) || sizeErr != nil || size >= f.header.Size {
		return err
	}
	return fmt.Errorf("%w (%w)", corrupt.At(f.path, size, "cut short while in use: %d bytes of %d are left", size, f.header.Size), err)
}

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// Append stores es, for which Reserve made room. The first index continues the
// file, or starts anew at one of its live entries: then the suffix from there on
// is replaced. Nothing is durable before Sync. After an error the file must not
// be written to again.
func (f *File) Append(es []*raftpb.Entry) error {
	if len(es) == 0 {
		return nil
	}
	slotsBefore := f.index.Len()
	f.index.truncate(es[0].GetIndex())
	kept := f.index.Len()
	for _, e := range es {
		r := recordOf(e, f.durable, f.secret.overhead())
		if err := f.storeRecord(r, e.GetData()); err != nil {
			return err
		}
		f.index.add(r.index, r.term, uint32(r.typ), f.end)
		f.end += r.bytes()
	}
	return f.storeSlots(kept, max(slotsBefore, f.index.Len()))
}

// storeRecord stores a record at the end: in one piece if it is small, the
// payload from where it is if not.
func (f *File) storeRecord(r record, data []byte) error {
	r.encode(f.buf[:])
	payload, err := f.secret.seal(f.buf[RecordHeaderBytes:], f.end, data, f.buf[:RecordHeaderBytes])
	if err != nil {
		return err
	}
	sealRecord(f.buf[:], payload, f.header.Salt)
	total := r.bytes()
	if total <= int64(len(f.buf)) {
		n := RecordHeaderBytes + copy(f.buf[RecordHeaderBytes:], payload)
		clear(f.buf[n:total])
		return f.mem.Store(f.end, f.buf[:total])
	}
	if err := f.mem.Store(f.end, f.buf[:RecordHeaderBytes]); err != nil {
		return err
	}
	if err := f.mem.Store(f.end+RecordHeaderBytes, payload); err != nil {
		return err
	}
	used := RecordHeaderBytes + int64(len(payload))
	clear(f.buf[:recordAlign])
	return f.mem.Store(f.end+used, f.buf[:total-used])
}

// storeSlots stores the slots [from, to); those without an entry become zero.
func (f *File) storeSlots(from, to uint64) error {
	const perBuffer = page.Size / SlotBytes
	for from < to {
		n := min(to-from, perBuffer-from%perBuffer)
		for k := range n {
			p := f.buf[k*SlotBytes : (k+1)*SlotBytes]
			if from+k < f.index.Len() {
				f.index.slot(f.index.First()+from+k).encode(p, f.header.Salt)
			} else {
				clear(p)
			}
		}
		if err := f.mem.Store(int64(from)*SlotBytes, f.buf[:n*SlotBytes]); err != nil {
			return err
		}
		from += n
	}
	return nil
}

// Sync makes the records durable: one sync of one contiguous range, and none if
// there is nothing new. After an error nothing of this file may be trusted or
// synced again before the next Open.
func (f *File) Sync() error {
	if f.durable == f.end {
		return nil
	}
	if err := f.mem.Sync(f.durable, f.end-f.durable); err != nil {
		return err
	}
	f.durable = f.end
	return nil
}
