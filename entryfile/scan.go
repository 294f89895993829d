package entryfile

import (
	"bytes"
	"fmt"
	"syscall"

	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// Scan is what the records of a file say.
type Scan struct {
	Index Index // the live entries
	End   int64 // of the last whole record, in bytes
	// Mark is the furthest end of data that a record of this file vouches for;
	// 0 if there is no record. A mark of DataStart or more vouches for all
	// earlier files.
	Mark int64
	// Witness is a record behind End that proves that what lies at End was once
	// durable; 0 if there is none. Then the file is damaged at End.
	Witness int64
	// Ended: the last record says that no more were to follow.
	Ended bool
	// Rest is how many bytes behind End are not zero: a torn write, or damage.
	Rest int64

	summed int64 // bytes that the search for a witness read for checksums
}

// Scan reads the records of a file that is not sealed, up to the first that is
// not whole, and looks for a witness behind it. It changes nothing. A record
// that is whole but contradicts the one before it is a *corrupt.Error.
func (f *File) Scan() (Scan, error) {
	s := Scan{End: DataStart}
	err := f.guard(func(mem []byte) error {
		limit := min(int64(len(mem)), f.header.Size)
		if err := f.scan(mem, limit, &s); err != nil {
			return err
		}
		if err := f.searchRest(mem, limit, &s); err != nil || s.Witness == 0 {
			return err
		}
		// A reader beside a live owner may have met a record half stored.
		if err := f.scan(mem, limit, &s); err != nil {
			return err
		}
		return f.searchRest(mem, limit, &s)
	})
	return s, err
}

const (
	// fetchStep is how many bytes of data are asked for at once, so far ahead of the scan.
	fetchStep = 4 << 20
	// awaitStep is for how many of them the scan waits at once.
	awaitStep = 256 << 10
)

// reading is what a scan has asked the system for. It waits for that in the kernel, where a
// load would keep other goroutines from running.
type reading struct {
	f       *File
	limit   int64
	fetched int64 // up to here the system has begun to read
	awaited int64 // up to here it has read
}

// need returns when what the file holds up to the offset to is in memory, as far as may be.
func (r *reading) need(to int64) (err error) {
	for r.fetched < min(to+fetchStep, r.limit) {
		if r.fetched, err = r.f.fetch(r.fetched, r.limit); err != nil {
			return err
		}
	}
	for r.awaited < min(to, r.fetched) {
		n := min(max(awaitStep, to-r.awaited), r.fetched-r.awaited)
		r.f.await(r.awaited, n)
		r.awaited += n
	}
	return nil
}

// record returns when the record at that offset is in memory, as far as may be, if it looks as
// if there were one.
func (r *reading) record(mem []byte, at int64) error {
	if err := r.need(at + RecordHeaderBytes); err != nil || at+RecordHeaderBytes > r.limit {
		return err
	}
	if rec := decodeRecord(mem[at:]); rec.plausible(at, r.limit) {
		return r.need(at + rec.bytes())
	}
	return nil
}

// await has the pages of [at, at+n) in memory. What cannot be had the access finds out.
func (f *File) await(at, n int64) { _ = (*f.mem.Load()).PopulateRead(at, n) }

// load copies what the file holds from the offset at on to p.
func (f *File) load(p []byte, at int64) error {
	return f.guard(func(mem []byte) error {
		f.await(at, int64(len(p)))
		copy(p, mem[at:])
		return nil
	})
}

// awaitIntact is intact of a record that the system may have to get from the disk.
func (f *File) awaitIntact(r *record, mem []byte, at, end int64) bool {
	if at+RecordHeaderBytes > end {
		return false
	}
	f.await(at, RecordHeaderBytes)
	if r.decode(mem[at:]); !r.plausible(at, end) {
		return false
	}
	f.await(at, r.bytes())
	return r.intact(mem, at, end, f.header.Salt)
}

// fetch has the system begin to read the data that follows at, which it would else do bit by
// bit, and returns up to where. A sealed file is not open.
func (f *File) fetch(at, limit int64) (int64, error) {
	if f.Sealed() {
		return limit, nil
	}
	start, end, err := f.file.Data(at)
	if err != nil || start >= min(end, limit) {
		return limit, err
	}
	end = min(end, start+fetchStep, limit)
	(*f.mem.Load()).Prefetch(start, end-start)
	return end, nil
}

// Prefetch has the system begin to read what Scan is going to look at first; of a sealed file
// nothing.
func (f *File) Prefetch() {
	_, _ = f.fetch(DataStart, f.header.Size) // Scan meets the same error
}

// searchRest looks at what lies behind s.End, for a witness and for the last
// byte that is not zero.
func (f *File) searchRest(mem []byte, limit int64, s *Scan) error {
	s.Witness, s.Rest = 0, 0
	if f.header.Reused {
		s.Rest = f.torn(mem, limit, s)
	}
	w := &witnesses{f: f, mem: mem, s: s, limit: limit}
	return f.eachRun(s.End, limit, func(start, end int64) (err error) {
		if s.Witness == 0 {
			s.Witness, err = w.search(start, end)
		}
		if n := usedBytes(mem[start:end]); n > 0 && !f.header.Reused {
			s.Rest = start + n - s.End
		}
		return err
	})
}

// eachRun calls visit with the runs of bytes of [from, limit) that may differ from zero, when
// they are in memory, as far as may be.
func (f *File) eachRun(from, limit int64, visit func(start, end int64) error) error {
	for at := from; at < limit; {
		start, end, err := f.file.Data(at)
		if err != nil {
			return err
		}
		start, end = max(start, at), min(end, limit)
		if start >= end {
			return nil
		}
		f.await(start, end-start)
		if err := visit(start, end); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// torn returns how many bytes of a record that is not whole stand at the end of s in
// a file that is used again, and holds older records there; 0 if it does not look as
// if there were one.
func (f *File) torn(mem []byte, limit int64, s *Scan) int64 {
	if s.Ended || s.End+RecordHeaderBytes > limit {
		return 0
	}
	r := decodeRecord(mem[s.End:])
	if !r.plausible(s.End, limit) || !s.mayHold(r.index) || s.Index.Len() == 0 {
		return 0
	}
	return r.bytes()
}

// mayHold: an entry of that index can stand in the file of s.
func (s *Scan) mayHold(i uint64) bool {
	return s.Index.Len() == 0 || i >= s.Index.First() && i-s.Index.First() < MaxSlots
}

// scan goes on from s.End, record by record, until one is not whole.
func (f *File) scan(mem []byte, limit int64, s *Scan) error {
	var o opener
	var r record
	for read := (reading{f, limit, s.End, s.End}); !s.Ended; {
		if err := read.record(mem, s.End); err != nil {
			return err
		}
		if !r.intact(mem, s.End, limit, f.header.Salt) {
			return nil
		}
		if err := f.authentic(&o, mem, s.End, &r); err != nil {
			return err
		}
		if err := f.inOrder(&s.Index, &r, s.End); err != nil && r.flags&flagEnd == 0 {
			return err
		}
		s.Mark = max(s.Mark, r.mark)
		if r.flags&flagEnd != 0 {
			s.Ended = true
			s.End += r.bytes()
			return nil
		}
		s.Index.truncate(r.index)
		s.Index.add(r.index, r.term, uint32(r.typ), s.End)
		s.End += r.bytes()
	}
	return nil
}

// Damaged returns the indexes that the damaged record where s ends may have: the one that
// its slot says; or of a sealed file those of damaged slots, of another the next one, if the
// record says so itself; or else all that could stand there; 0 and 0 if that is not known.
func (f *File) Damaged(s *Scan) (first, last uint64) {
	first, last = f.possible(s)
	_ = f.guard(func(mem []byte) error { // after a fault the answer is only less exact
		if !f.Sealed() && s.End+RecordHeaderBytes <= int64(len(mem)) {
			f.await(s.End, RecordHeaderBytes)
			r := decodeRecord(mem[s.End:])
			if last != 0 && r.index == last && r.plausible(s.End, int64(len(mem))) {
				first = last
			}
		}
		var lost []uint64
		f.await(0, MaxSlots*SlotBytes)
		for n := range uint64(MaxSlots) {
			slot, ok := decodeSlot(mem[n*SlotBytes:(n+1)*SlotBytes], f.header.Salt)
			switch {
			case ok && slot.data-dataOffset == s.End:
				first, last = slot.index, slot.index
				return nil
			case !ok && n < f.sealed().Count:
				lost = append(lost, f.sealed().First+n)
			}
		}
		if len(lost) > 0 {
			first, last = lost[0], lost[len(lost)-1]
		}
		return nil
	})
	return first, last
}

// possible returns the indexes that a record behind those of s may have.
func (f *File) possible(s *Scan) (first, last uint64) {
	switch {
	case f.Sealed():
		return f.sealed().First, f.sealed().Last
	case s.Index.Len() > 0:
		return s.Index.First(), s.Index.Last() + 1
	}
	return 0, 0
}

func (f *File) inOrder(x *Index, r *record, at int64) error {
	if x.Len() == 0 {
		return nil
	}
	switch {
	case r.index < x.First() || r.index > x.Last()+1:
		return f.damaged(r.index, at, "the record does not continue entries %d to %d", x.First(), x.Last())
	case r.index > x.First() && r.term < x.Term(r.index-1):
		return f.damaged(r.index, at, "the record's term %d is below %d, that of the entry before it", r.term, x.Term(r.index-1))
	case r.index-x.First() >= MaxSlots:
		return f.damaged(r.index, at, "the file has more than %d entries", MaxSlots)
	}
	return nil
}

// witnesses looks for records behind the end of s that vouch for what is not whole there.
// What stands there may be a payload, and so anybody's choice: what it costs grows with its
// bytes only, whatever they pretend.
type witnesses struct {
	f     *File
	mem   []byte
	s     *Scan
	limit int64
	sums  *page.Sums // of all behind the end of s; nil: not needed yet
}

// search looks in [from, to), which a hole follows if not the limit, for the start of a
// whole record, behind the end of s, whose mark lies beyond that.
func (w *witnesses) search(from, to int64) (at int64, err error) {
	mem, end := w.mem, w.s.End
	var r record
	from = roundUp(max(from, end+1), recordAlign)
	for pos := from; pos+RecordHeaderBytes <= to; pos += recordAlign { // a mark in a hole is 0
		if pos%page.Size == 0 && pos+page.Size <= to && bytes.Equal(mem[pos:pos+page.Size], zeroPage[:]) {
			pos += page.Size - 2*recordAlign // what starts in its last 8 bytes goes on behind it
			continue
		}
		if mark := int64(page.Order.Uint32(mem[pos+24:])) * recordAlign; mark <= end || mark > pos {
			continue
		}
		if !w.s.mayHold(page.Order.Uint64(mem[pos+16:])) {
			continue // of an earlier life of the file
		}
		if r.decode(mem[pos:]); !r.plausible(pos, w.limit) {
			continue
		}
		if ok, err := w.matches(&r, pos); err != nil || ok && r.intact(mem, pos, w.limit, w.f.header.Salt) {
			return pos, err
		}
	}
	return 0, nil
}

// matches reports whether the record at pos has the checksum that it says.
func (w *witnesses) matches(r *record, pos int64) (bool, error) {
	if w.sums == nil {
		w.sums = page.NewSums(w.mem)
		err := w.f.eachRun(w.s.End, w.limit, func(start, end int64) error {
			w.sums.Add(start, end)
			return nil
		})
		if err != nil {
			return false, err
		}
	}
	ok := r.matches(w.sums, pos, w.f.header.Salt)
	w.s.summed = w.sums.Summed()
	return ok, nil
}

var zeroPage [page.Size]byte

// usedBytes returns the length of p without the zeros at its end.
func usedBytes(p []byte) int64 {
	for len(p) >= page.Size && bytes.Equal(p[len(p)-page.Size:], zeroPage[:]) {
		p = p[:len(p)-page.Size]
	}
	return int64(len(bytes.TrimRight(p, "\x00")))
}

// Resume takes the result of Scan as what the file holds, in memory only.
func (f *File) Resume(s Scan) {
	f.index = s.Index
	f.end.Store(s.End)
}

// Continue makes a file that was closed cleanly ready to be appended to, from
// its slots alone; end is where its data ended then, and synced says whether each append
// is going to be synced. If the slots are damaged they are rebuilt from the records, and
// written with the next Seal or Close.
func (f *File) Continue(end int64, synced bool) error {
	x, ok, err := f.tailIndex(end)
	if err != nil {
		return err
	}
	if !ok {
		s, err := f.Scan()
		if err != nil {
			return err
		}
		if s.End != end {
			return &corrupt.Error{File: f.path, Offset: min(s.End, end), First: s.Index.Last() + 1, Last: s.Index.Last() + 1,
				Reason: fmt.Sprintf("the data ends at %d, but at the last close it ended at %d", s.End, end)}
		}
		x = s.Index
	}
	f.index, f.synced = x, synced
	f.end.Store(end)
	f.durable.Store(end)
	f.reserved.Store(roundUp(end, page.Size))
	f.ready.Store(roundUp(end, page.Size))
	f.taken.Store(roundUp(end, page.Size))
	f.slots = slotState{right: x.Len(), used: x.Len()}
	if !ok {
		f.slots.unknown()
	}
	f.startTouching()
	return nil
}

// Stale reports whether the slots do not show the live entries: SyncSlots would write them.
// It is the writer's.
func (f *File) Stale() bool { return !f.slots.show(f.index.Len()) }

// tailIndex reads the index of a file that is not sealed from its slots; ok is
// false if they do not fit together, or do not end where the data does.
func (f *File) tailIndex(end int64) (x Index, ok bool, err error) {
	err = f.guard(func(mem []byte) error {
		next := int64(DataStart) // where the next record starts, at the least
		n := 0
		for ; n < MaxSlots; n++ {
			at := int64(n) * SlotBytes
			if at%touchChunk == 0 {
				f.await(at, touchChunk)
			}
			p := mem[at : at+SlotBytes]
			s, valid := decodeSlot(p, f.header.Salt)
			if !valid {
				if writtenByDgraph(p) {
					return corrupt.At(f.path, at, "the slot has no checksum: it is damaged, or Dgraph wrote to the log since it was closed; "+
						"if it was Dgraph, use `mmapwal import --from dgraph`")
				}
				break
			}
			record := s.data - dataOffset
			if n > 0 && s.index != x.Last()+1 || record < next || record > min(end, int64(len(mem)))-RecordHeaderBytes {
				return nil
			}
			x.add(s.index, s.term, s.typ, record)
			next = record + RecordHeaderBytes
		}
		if n > 0 {
			last := x.Record(x.Last())
			f.await(last, RecordHeaderBytes)
			r := decodeRecord(mem[last:])
			next = last + r.bytes()
		}
		ok = next == end && (n == MaxSlots || page.Order.Uint64(mem[n*SlotBytes+8:]) == 0)
		return nil
	})
	return x, ok, err
}

// Check reads all records of the file, sealed or not. If they are damaged the
// error is a *corrupt.Error, and the Scan says what comes before it.
func (f *File) Check() (Scan, error) {
	if !f.Sealed() {
		return f.Scan()
	}
	s, err := f.scanSealed()
	if err == nil {
		err = f.compareSeal(&s)
	}
	if err == nil {
		err = f.checkSpared(&s)
	}
	return s, err
}

// checkSpared reads the records that were spared when those around them were
// punched out. With a damaged one s ends in front of it.
func (f *File) checkSpared(s *Scan) error {
	return f.guard(func(mem []byte) error {
		for _, o := range f.sealed().Others {
			if o.Record >= f.punched.Load() {
				return nil // the scan has read it
			}
			var r record
			ok := f.awaitIntact(&r, mem, o.Record, f.sealed().End)
			var err error
			if !ok || r.index != o.Index {
				err = f.damaged(o.Index, o.Record, "the record, which was spared when data was cleared, is damaged")
			} else {
				err = f.authentic(new(opener), mem, o.Record, &r)
			}
			if err != nil {
				s.Index.truncate(o.Index)
				return err
			}
		}
		return nil
	})
}

// sealedIndex rebuilds the index of a sealed file.
func (f *File) sealedIndex() (Index, error) {
	s, err := f.Check()
	return s.Index, err
}

// scanSealed reads the records of a sealed file, and the digest where they were
// punched out.
func (f *File) scanSealed() (Scan, error) {
	seal := f.sealed()
	s := Scan{End: max(f.punched.Load(), DataStart)}
	err := f.guard(func(mem []byte) error {
		if s.End > DataStart && seal.Count > 0 {
			next := seal.Last + 1
			if s.End < seal.End {
				var r record
				if !f.awaitIntact(&r, mem, s.End, seal.End) {
					return f.damaged(0, s.End, "the first record behind the cleared ones is damaged")
				}
				if err := f.authentic(new(opener), mem, s.End, &r); err != nil {
					return err
				}
				if r.index < seal.First || r.index-seal.First > MaxSlots {
					return f.damaged(r.index, s.End, "the record does not continue the cleared ones from %d on", seal.First)
				}
				next = r.index
			}
			f.fromDigest(&s.Index, next)
		}
		return f.scan(mem, seal.End, &s)
	})
	s.Index.truncate(seal.Last + 1) // the rest was superseded before the seal was written anew
	return s, err
}

func (f *File) compareSeal(s *Scan) error {
	seal := f.sealed()
	if s.End == seal.End && s.Index.First() == seal.First && s.Index.Last() == seal.Last {
		return nil
	}
	first, last := f.Damaged(s)
	return &corrupt.Error{File: f.path, Offset: s.End, First: first, Last: last, Reason: "the record is damaged"}
}

// fromDigest adds the entries below the index next as the digest tells them. The
// records of the normal ones are gone, so any offset serves.
func (f *File) fromDigest(x *Index, next uint64) {
	seal := f.sealed()
	record, others := int64(DataStart), seal.Others
	for i := seal.First; i < next; i++ {
		typ := uint32(0)
		if len(others) > 0 && others[0].Index == i {
			record, typ = others[0].Record, others[0].Type
			others = others[1:]
		}
		x.add(i, termIn(seal.Terms, i), typ, record)
	}
}

// Recover ends a file for good, after a crash, where Scan found the end of its
// records: it is Restore and Seal. What a torn write left behind the end stays there:
// nothing beyond a seal is read.
func (f *File) Recover(s Scan, from int64) error {
	if err := f.Restore(s, from); err != nil {
		return err
	}
	return f.Seal()
}

// Restore takes over what Scan found after a crash, and stores the records from offset from
// on again: the page cache may hold what the disk does not. Those in front of it are durable,
// and so are earlier files; these are after the next Sync. What the slots show is not known.
// Entries are not to be appended.
func (f *File) Restore(s Scan, from int64) error {
	f.Resume(s)
	f.slots.unknown()
	from = max(min(from, s.End), DataStart) &^ (page.Size - 1)
	f.durable.Store(from)
	return f.withFile(func(file vfs.File) error { return f.restore(file, from, s.End) })
}

// TerminateHere is Terminate after Restore of s, unless the record is there. It makes room
// for all that is still to be stored in the file: the record, the slots and the seal. ENOSPC
// says that there is none; nothing has changed then. It is not for an encrypted file: what a
// torn write left in that place may be encrypted with the same nonce.
func (f *File) TerminateHere(s *Scan) error {
	if err := f.reserveSlots(); err != nil || s.Ended {
		return err
	}
	at, to := s.End&^(page.Size-1), roundUp(s.End+RecordBytes(0), page.Size)
	if to > f.header.Size {
		return fmt.Errorf("%s: %w: the record that ends the file would reach beyond it", f.path, syscall.ENOSPC)
	}
	if err := f.file.Reserve(at, to-at); err != nil {
		return err
	}
	if err := f.Terminate(); err != nil {
		return err
	}
	s.Ended = true
	return nil
}

// findSlots finds out behind how many slots all are zero, unless that is known.
func (f *File) findSlots() error {
	if !f.slots.unseen || f.header.Reused {
		return nil
	}
	return f.guard(func(mem []byte) error {
		f.await(0, MaxSlots*SlotBytes)
		f.slots.used = uint64(roundUp(usedBytes(mem[:MaxSlots*SlotBytes]), SlotBytes) / SlotBytes)
		f.slots.unseen = false
		return nil
	})
}

// restore writes what [from, to) holds once more, to file, which is f, open.
func (f *File) restore(file vfs.File, from, to int64) error {
	for p := make([]byte, min(maxOut, to-from)); from < to; from += int64(len(p)) {
		p = p[:min(int64(len(p)), to-from)]
		if err := f.load(p, from); err != nil {
			return err
		}
		if _, err := file.WriteAt(p, from); err != nil {
			return err
		}
	}
	return nil
}
