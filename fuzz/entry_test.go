package fuzz

import (
	"errors"
	"testing"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/golden"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"go.etcd.io/raft/v3/raftpb"
)

// What the header page of an image always says, and where.
const (
	logID  = 0xcafef00ddeadbeef
	number = 7
	salt   = 0x5eed0001

	headerAt       = entryfile.DataStart - 2*page.Size
	headerChecksum = 12
	headerSize     = 48
	headerFlags    = 60
	headerPunched  = 96
	dataBytes      = 16 << 10
	imageBytes     = entryfile.DataStart + dataBytes
	slotBytes      = 8 << 10 // that the fuzzer may fill
)

// An image is an entry file with a valid header, in memory that is used again.
type image struct{ mem []byte }

// fill makes the image. seal is the header from its flags on. With fix, slots
// and records get valid checksums, to reach what lies behind them.
func (m image) fill(header, seal, slots, data []byte, fix bool) {
	clear(m.mem)
	copy(m.mem[:slotBytes], slots)
	copy(m.mem[entryfile.DataStart:], data)
	p := m.mem[headerAt : headerAt+page.Size]
	copy(p, header[:headerFlags])
	copy(p[headerFlags:], seal)
	page.Order.PutUint64(p[headerSize:], imageBytes)
	page.Seal(p, headerChecksum)
	if fix {
		m.fixSlots(len(slots))
		m.fixRecords(entryfile.DataStart + int64(len(data)))
	}
}

func (m image) fixSlots(n int) {
	for at := 0; at < min(n, slotBytes); at += entryfile.SlotBytes {
		p := m.mem[at : at+entryfile.SlotBytes]
		page.Order.PutUint32(p[24:], page.Sum(page.Sum(salt, p[:24]), p[28:]))
	}
}

func (m image) fixRecords(end int64) {
	for at := int64(entryfile.DataStart); at+entryfile.RecordHeaderBytes <= min(end, imageBytes); {
		if sum, next, ok := m.record(at); ok {
			page.Order.PutUint32(m.mem[at:], sum)
			at = next
		} else {
			at += 8
		}
	}
}

// record returns the checksum that a record at this offset must have, and where
// it ends; ok is false if that is not in the file.
func (m image) record(at int64) (sum uint32, end int64, ok bool) {
	if at < entryfile.DataStart || at+entryfile.RecordHeaderBytes > imageBytes {
		return 0, 0, false
	}
	n := int64(page.Order.Uint32(m.mem[at+28:]))
	if end = at + entryfile.RecordBytes(int(n)); end > imageBytes {
		return 0, 0, false
	}
	return page.Sum(salt, m.mem[at+4:at+entryfile.RecordHeaderBytes+n]), end, true
}

// FuzzEntryFile: no file with a valid header makes anything panic, and each entry
// that is returned has a record that passes its checksum.
func FuzzEntryFile(f *testing.F) {
	header := golden.Read(f, "../entryfile/testdata/header.hex", page.Size)
	record := golden.Read(f, "../entryfile/testdata/record.hex", 40)
	slot := golden.Read(f, "../entryfile/testdata/slot.hex", entryfile.SlotBytes)
	three := threeRecords(record)
	f.Add([]byte(nil), []byte(nil), []byte(nil), false)
	f.Add([]byte(nil), slot, record, false)
	f.Add([]byte(nil), slot, three, true)
	f.Add(sealOf(header, 1, 42, 42, 40, 0), slot, record, false)
	f.Add(sealOf(header, 3, 42, 44, 120, 0), slot, three, true)
	f.Add(sealOf(header, 3, 42, 44, 120, 80), []byte(nil), three, true)
	f.Add(trimmed(header[headerFlags:]), []byte(nil), three, true)

	img := image{make([]byte, imageBytes)}
	f.Fuzz(func(t *testing.T, seal, slots, data []byte, fix bool) {
		img.fill(header, seal, slots, data, fix)
		file, err := entryfile.Open(disk{mem: img.mem}, "dir", number, logID, nil, false)
		if err != nil {
			wantCorrupt(t, err)
			return
		}
		defer file.Release()
		s, err := file.Check()
		if err != nil {
			wantCorrupt(t, err)
		}
		if file.Sealed() {
			checkSealed(t, img, file)
		} else {
			checkOpen(t, img, file, s, err)
		}
	})
}

// threeRecords returns the golden record three times, of entries 42 to 44.
func threeRecords(record []byte) (data []byte) {
	for i := range 3 {
		r := append([]byte(nil), record...)
		page.Order.PutUint64(r[16:], 42+uint64(i))
		r[4] = byte(i % 2)
		data = append(data, r...)
	}
	return data
}

// sealOf returns the golden header from its flags on, with other values.
func sealOf(header []byte, count, first, last, end, punched uint64) []byte {
	p := append([]byte(nil), header...)
	page.Order.PutUint64(p[64:], count)
	page.Order.PutUint64(p[72:], first)
	page.Order.PutUint64(p[80:], last)
	page.Order.PutUint64(p[88:], entryfile.DataStart+end)
	page.Order.PutUint64(p[96:], entryfile.DataStart+punched)
	page.Order.PutUint32(p[108:], 1) // one term
	page.Order.PutUint64(p[128:], first)
	page.Order.PutUint64(p[136:], 3)
	return trimmed(p[headerFlags:])
}

func wantCorrupt(t *testing.T, err error) {
	t.Helper()
	var e *corrupt.Error
	if !errors.As(err, &e) {
		t.Errorf("error %v, want a *corrupt.Error", err)
	}
}

// checkSealed reads each entry by itself, then clears some and heals the file.
func checkSealed(t *testing.T, img image, file *entryfile.File) {
	first, last := file.First(), file.Last()
	punched := int64(page.Order.Uint64(img.mem[headerAt+headerPunched:]))
	for i := first; i <= last && i-first < slotBytes/entryfile.SlotBytes; i++ {
		checkEntry(t, img, file, nil, i, punched)
	}
	until, err := file.ClearEnd(first + 1)
	if err != nil {
		until = 0
	}
	if extents, err := file.Clear(until); err == nil {
		for _, e := range extents {
			if e.From < entryfile.DataStart || e.To > file.End() || e.From >= e.To {
				t.Errorf("extent %+v", e)
			}
		}
	}
	if err := file.Reseal(first); err != nil {
		wantCorrupt(t, err)
	}
}

// checkOpen continues the file, reads what the scan found, and recovers it.
func checkOpen(t *testing.T, img image, file *entryfile.File, s entryfile.Scan, err error) {
	if err != nil {
		return
	}
	file.Resume(s)
	checkLive(t, img, file)
	// The slots may say what they like: what is read is checked.
	if err := file.Continue(s.End, false); err != nil {
		wantCorrupt(t, err)
	} else {
		checkLive(t, img, file)
	}
	if err := file.Recover(s, entryfile.DataStart); err != nil {
		t.Fatalf("recover: %v", err)
	}
	if file.First() != s.Index.First() || file.Last() != s.Index.Last() {
		t.Errorf("recovered %d to %d of %d to %d", file.First(), file.Last(), s.Index.First(), s.Index.Last())
	}
	if _, err := file.Check(); err != nil {
		t.Errorf("recovered, but %v", err)
	}
	for i := file.First(); i <= file.Last() && i != 0; i++ {
		if e := checkEntry(t, img, file, nil, i, 0); e == nil {
			t.Errorf("entry %d is lost", i)
		}
	}
}

func checkLive(t *testing.T, img image, file *entryfile.File) {
	t.Helper()
	x := file.Index()
	for i := x.First(); i <= x.Last() && i != 0; i++ {
		checkEntry(t, img, file, &x, i, 0)
	}
}

// checkEntry returns entry i if it can be read. Then it is the one that its
// record says, and the record is whole, unless that was cleared.
func checkEntry(t *testing.T, img image, file *entryfile.File, x *entryfile.Index, i uint64, punched int64) *raftpb.Entry {
	t.Helper()
	b := &entryfile.Batch{MaxBytes: 1 << 30}
	if _, err := file.Read(x, i, i+1, b); err != nil {
		wantCorrupt(t, err)
		return nil
	}
	if len(b.Entries()) != 1 {
		return nil // i+1 is 0
	}
	e := b.Entries()[0]
	loc, err := file.Locate(x, i)
	if err != nil {
		t.Fatalf("entry %d was read, but %v", i, err)
	}
	if e.GetIndex() != i || e.GetTerm() != loc.Term {
		t.Errorf("entry %d of term %d is %d of %d", i, loc.Term, e.GetIndex(), e.GetTerm())
	}
	if loc.Record < punched && e.GetType() == raftpb.EntryNormal && e.Data == nil {
		return e
	}
	sum, _, ok := img.record(loc.Record)
	at := img.mem[max(loc.Record, 0):]
	if !ok || page.Order.Uint32(at) != sum || page.Order.Uint64(at[16:]) != i {
		t.Errorf("entry %d was read from a damaged record at %d", i, loc.Record)
	}
	return e
}
