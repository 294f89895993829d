package entryfile

import (
	"errors"
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
	if f.Sealed() || len(es) == 0 {
		return 0, 0
	}
	slots := f.index.Len()
	if first := es[0].GetIndex(); f.index.Has(first) {
		slots = first - f.index.First()
	} else if slots > 0 && first != f.index.Last()+1 {
		return 0, 0 // replaces a suffix that starts in an older file
	}
	return fit(es, int(slots), f.header.Size-f.end.Load(), f.secret.overhead())
}

// Fit returns how many of es the empty file that s describes takes, and how many
// bytes of records they are.
func (s *Spec) Fit(es []*raftpb.Entry) (count int, bytes int64) {
	return fit(es, 0, s.DataBytes, s.overhead())
}

// Hold returns how many bytes of records a file has to take that is to hold an
// entry with n bytes of data, and the record that ends it.
func (s *Spec) Hold(n int) int64 { return s.RecordBytes(n) + s.RecordBytes(0) }

// RecordBytes returns how much the record of an entry with n bytes of data takes.
func (s *Spec) RecordBytes(n int) int64 { return RecordBytes(n + s.overhead()) }

func (s *Spec) overhead() int {
	if s.Keys == nil {
		return 0
	}
	return encryption.TagBytes
}

// recordBytes returns how many bytes of records es are.
func (f *File) recordBytes(es []*raftpb.Entry) (n int64) {
	for _, e := range es {
		n += RecordBytes(len(e.GetData()) + f.secret.overhead())
	}
	return n
}

// fit leaves room for the record that ends the file.
func fit(es []*raftpb.Entry, slots int, free int64, overhead int) (count int, bytes int64) {
	free -= RecordBytes(overhead)
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

// Reserve makes room for dataBytes of records, which Room granted, and for the one that
// ends the file. ENOSPC says that the disk is full, a *corrupt.Error that somebody has cut
// the file short; nothing has changed then, and it can be tried again.
func (f *File) Reserve(dataBytes int64) error {
	f.outrun = f.Ready() < dataBytes
	if err := f.reserve(dataBytes); err != nil {
		return err
	}
	end := f.end.Load()
	if f.synced && f.Unsynced() > 0 || !f.synced && end+dataBytes <= roundUp(end, page.Size) {
		return nil // once for those that share a sync, or a page
	}
	return f.checkLength(f.file)
}

// reserve makes blocks for dataBytes of records, and for the one that ends the file. No zeros
// are written there from then on.
func (f *File) reserve(dataBytes int64) error {
	to := min(roundUp(f.end.Load()+dataBytes+RecordBytes(f.secret.overhead()), page.Size), f.header.Size)
	if to <= f.taken.Load() && to <= f.reserved.Load() {
		return nil
	}
	f.growing.Lock() // zeros may be on their way there at this moment
	defer f.growing.Unlock()
	if err := f.growTo(to); err != nil {
		return err
	}
	f.taken.Store(max(f.taken.Load(), to))
	return nil
}

// growTo makes blocks up to the offset to, and some more if there is room; growing is held,
// or nobody else knows the file. In a new file those in front of the data are made with the
// first of the data, so that they are likely to lie together: where a file has few extents,
// less of the file system's own is written when the disk gets records for the first time.
func (f *File) growTo(to int64) error {
	from := f.reserved.Load()
	if to <= from {
		return nil
	}
	data := max(from, DataStart)
	step := min(max(to, data+dataStep, data+4*(to-data)), f.header.Size)
	err := f.file.Reserve(from, step-from)
	if step > to && isFull(err) {
		step = to
		err = f.file.Reserve(from, step-from)
	}
	if err == nil {
		f.reserved.Store(step)
	}
	return err
}

// checkLength: WriteAt would quietly lengthen a file that somebody has cut short; file is f,
// open.
func (f *File) checkLength(file vfs.File) error {
	size, err := file.Size()
	if err != nil || size >= f.header.Size {
		return err
	}
	return f.cutShort(size)
}

func (f *File) cutShort(size int64) error {
	return corrupt.At(f.path, size, "cut short while in use: %d bytes of %d are left", size, f.header.Size)
}

func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// Append stores es, for which Reserve made room. The first index continues the
// file, or starts anew at one of its live entries: then the suffix from there on
// is replaced. Nothing is durable before Sync. Up to maxDirect bytes of records that
// are many go around the page cache: Append waits for the disk then, and Sync for less.
// After an error the file must not be written to again.
func (f *File) Append(es []*raftpb.Entry, maxDirect int64) error {
	if len(es) == 0 {
		return nil
	}
	f.index.truncate(es[0].GetIndex())
	f.slots.truncated(f.index.Len())
	end := f.end.Load()
	if err := f.begin(f.recordBytes(es), end, maxDirect); err != nil {
		return err
	}
	mark, overhead := f.durable.Load(), f.secret.overhead()
	var r record
	for _, e := range es {
		r.describe(e, mark, overhead)
		if err := f.storeRecord(&r, e.GetData(), end); err != nil {
			return err
		}
		f.index.add(r.index, r.term, uint32(r.typ), end)
		end += r.bytes()
	}
	if err := f.finish(end); err != nil {
		return err
	}
	f.end.Store(end)
	return nil
}

// Terminate appends the record that says that no more follow, for which Reserve
// made room. It is durable with the next Sync.
func (f *File) Terminate() error {
	r := record{flags: flagEnd, term: 1, index: 1, mark: f.durable.Load(), payload: uint32(f.secret.overhead())}
	if last := f.index.Last(); last != 0 {
		r.index, r.term = last, f.index.Term(last)
	}
	end := f.end.Load()
	if err := f.begin(r.bytes(), end, 0); err != nil {
		return err
	}
	if err := f.storeRecord(&r, nil, end); err != nil {
		return err
	}
	end += r.bytes()
	if err := f.finish(end); err != nil {
		return err
	}
	f.out, f.unfinished = nil, nil
	f.end.Store(end)
	return nil
}

// Direct reports whether the last Append went around the page cache; false once the file has
// ended.
func (f *File) Direct() bool { return f.direct.Load() }

// Unsynced returns how many bytes of records were not synced yet.
func (f *File) Unsynced() int64 { return f.end.Load() - max(f.durable.Load(), DataStart) }

// Sync makes the records durable that were appended before it began: one sync of
// one contiguous range, and none if there is nothing new. The records of earlier
// files are durable already. After an error nothing of this file may be trusted or
// synced again before the next Open.
func (f *File) Sync() error {
	f.syncing.Lock()
	defer f.syncing.Unlock()
	from, to := max(f.durable.Load(), DataStart), f.end.Load()
	if from == to {
		return nil
	}
	if err := f.sync(from, to-from); err != nil {
		return err
	}
	f.durable.Store(to)
	return nil
}
