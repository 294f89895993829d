package entryfile

import (
	"math/bits"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"go.etcd.io/raft/v3/raftpb"
)

// scanned reopens f and scans it.
func scanned(t testing.TB, f *File) (*File, Scan) {
	t.Helper()
	g := reopen(t, f)
	s, err := g.Scan()
	must(t, err)
	return g, s
}

// TestTornRecord: a last record that is not whole is dropped, and counted.
func TestTornRecord(t *testing.T) {
	tears := map[string]func(t *testing.T, f *File, at, end int64){
		"its end is missing":    func(t *testing.T, f *File, at, end int64) { zero(t, f, end-300, 300) },
		"its header is missing": func(t *testing.T, f *File, at, end int64) { zero(t, f, at, 32) },
		"a bit is wrong":        func(t *testing.T, f *File, at, end int64) { flip(t, f, at+40) },
	}
	for name, tear := range tears {
		f := prepare(t, entries(1, 10, 1)...)
		at := f.End()
		must(t, f.Append(plain(10, 11, 1000), 0))
		tear(t, f, at, f.End())
		g, s := scanned(t, f)
		if s.End != at || s.Index.Last() != 9 || s.Rest <= 0 || s.Rest > f.End()-at || s.Witness != 0 {
			t.Errorf("%s: end %d of %d, last %d, rest %d, witness %d", name, s.End, at, s.Index.Last(), s.Rest, s.Witness)
		}
		must(t, g.Recover(s, DataStart))
		g = reopen(t, g)
		wantEntries(t, g, entries(1, 10, 1))
		if !g.Sealed() || g.End() != at {
			t.Errorf("%s: sealed %t, end %d", name, g.Sealed(), g.End())
		}
	}
}

// TestScanAnyCut: whatever is left of an append that was not synced, Scan finds
// the whole records in front of it.
func TestScanAnyCut(t *testing.T) {
	f := prepare(t, entries(1, 5, 1)...)
	durable := f.End()
	more := entries(5, 15, 2)
	must(t, f.Append(more, 0))
	end := f.End()
	content, err := os.ReadFile(f.Path())
	must(t, err)
	whole := content[durable:end]
	f = reopen(t, f)
	for cut := 0; cut < len(whole); cut += 3 {
		edit(t, f.Path(), durable, len(whole), func(p []byte) { clear(p[copy(p, whole[:cut]):]) })
		s, err := f.Scan()
		must(t, err)
		if s.End > durable+int64(cut)+recordAlign || s.End < durable || s.Witness != 0 {
			t.Fatalf("cut at %d: end %d, witness %d", cut, s.End-durable, s.Witness)
		}
		f.Resume(s)
		wantEntries(t, f, append(entries(1, 5, 1), more[:s.Index.Last()-4]...))
	}
}

// TestWitness: a record that was synced before a later one was written is
// missed, unlike one of the same append.
func TestWitness(t *testing.T) {
	damages := map[string]func(t *testing.T, f *File, at int64){
		"flipped bit":   func(t *testing.T, f *File, at int64) { flip(t, f, at+33) },
		"wrong length":  func(t *testing.T, f *File, at int64) { flip(t, f, at+30) },
		"zeroed sector": func(t *testing.T, f *File, at int64) { zero(t, f, at&^511, 512) },
		"zeroed pages":  func(t *testing.T, f *File, at int64) { zero(t, f, at&^4095, 8192) },
	}
	for name, damage := range damages {
		f := prepare(t, plain(1, 100, 500)...)
		at := f.index.Record(50)
		durable := f.End()
		damage(t, f, at)
		_, s := scanned(t, f)
		if s.Witness != 0 || s.Index.Last() >= 50 || s.Rest == 0 {
			t.Errorf("%s, nothing after it: last %d, witness %d, rest %d", name, s.Index.Last(), s.Witness, s.Rest)
		}

		f = prepare(t, plain(1, 100, 500)...)
		save(t, f, plain(100, 110, 500))
		save(t, f, plain(110, 120, 500))
		damage(t, f, at)
		_, s = scanned(t, f)
		if s.Witness != durable || s.Index.Last() >= 50 || s.End > at || s.Rest == 0 {
			t.Errorf("%s: last %d, end %d, witness %d, rest %d; want the witness %d", name, s.Index.Last(), s.End, s.Witness, s.Rest, durable)
		}
	}
}

// TestWitnessAnywhere: a witness is found wherever it starts between zeros, also one whose
// first eight bytes are zero, at the end of a page of zeros; and not if its mark would lie
// where the data ends.
func TestWitnessAnywhere(t *testing.T) {
	s := &Scan{End: DataStart}
	p := recordOfSumZero(t)
	mem := make([]byte, DataStart+4*page.Size)
	size := int64(len(mem))
	search := func(to int64) int64 {
		w := &witnesses{f: &File{header: Header{Salt: testSalt}}, mem: mem, s: s, limit: size, sums: page.NewSums(mem)}
		w.sums.Add(s.End, size)
		at, err := w.search(s.End, to)
		must(t, err)
		return at
	}
	for at := s.End + page.Size - recordAlign; at+int64(len(p)) <= size; at += recordAlign {
		copy(mem[at:], p)
		if got := search(size); got != at {
			t.Fatalf("at %d: found at %d", at, got)
		}
		if got := search(at + RecordHeaderBytes); got != at {
			t.Fatalf("at %d, where the data ends with its header: found at %d", at, got)
		}
		if got := search(at + RecordHeaderBytes - recordAlign); got != 0 {
			t.Fatalf("at %d, where the data ends in its header: found at %d", at, got)
		}
		clear(mem[at : at+int64(len(p))])
	}
}

// hostile returns n bytes that look like the headers of records everywhere, each of which
// vouches for what is in front of it, and reaches far. Index 0 is for where any will do: then
// a header begins every eight bytes.
func hostile(n int, at, size int64, index uint64) []byte {
	p := make([]byte, n)
	for k := 0; k+RecordHeaderBytes <= n && index > 0; k += RecordHeaderBytes {
		(&record{term: 1, index: index, mark: at + 8, payload: uint32(size - at - int64(k) - 1<<16)}).encode(p[k:])
	}
	for k := 0; k+recordAlign <= n && index == 0; k += recordAlign { // checksum and flags, term, index, mark and length
		page.Order.PutUint64(p[k:], (DataStart/recordAlign+8)<<32|flagEnd<<16)
	}
	return p
}

// TestHostilePayload: a payload that pretends to be records costs no more than its bytes to look
// through when it is torn, and is not taken for damage; nor does it hide damage.
func TestHostilePayload(t *testing.T) {
	for name, first := range map[string]uint64{"behind an entry": 2, "first": 1} {
		for _, size := range []int{64 << 10, 512 << 10, 3 << 20} {
			f := prepare(t, plain(1, first, 8)...)
			at := f.End()
			data := hostile(size, at+RecordHeaderBytes, f.header.Size, first)
			if first == 1 {
				data = hostile(size, at+RecordHeaderBytes, f.header.Size, 0)
			}
			save(t, f, []*raftpb.Entry{{Index: new(first), Term: new(uint64(1)), Data: data}})
			zero(t, f, at, 24) // torn: the term and the index
			f, s := scanned(t, f)
			if s.End != at || s.Witness != 0 || s.Rest == 0 {
				t.Errorf("%s, %d bytes: end %d, want %d; witness %d, rest %d", name, size, s.End, at, s.Witness, s.Rest)
			}
			if least, most := int64(size), 80*(int64(size)+1<<16); s.summed < least || s.summed > most {
				t.Errorf("%s, %d bytes: %d bytes were summed, want %d to %d", name, size, s.summed, least, most)
			}
			_ = f.Release()

			f = prepare(t, plain(1, first, 8)...)
			save(t, f, []*raftpb.Entry{{Index: new(first), Term: new(uint64(1)), Data: data}})
			witness := f.End()
			save(t, f, plain(first+1, first+2, 100))
			zero(t, f, at, 24)
			if _, s := scanned(t, f); s.Witness != witness {
				t.Errorf("%s, %d bytes: witness %d, want %d", name, size, s.Witness, witness)
			}
		}
	}
}

// recordOfSumZero returns a record whose checksum is 0, and that vouches for the first eight
// bytes of the data.
func recordOfSumZero(t *testing.T) []byte {
	t.Helper()
	p := make([]byte, RecordHeaderBytes+recordAlign)
	(&record{term: 1, index: 1, mark: DataStart + recordAlign, payload: recordAlign}).encode(p)
	sum := func(payload uint64) uint32 {
		page.Order.PutUint64(p[RecordHeaderBytes:], payload)
		return page.Sum(testSalt, p[recordSumBytes:])
	}
	// Each bit of the payload changes the same bits of the checksum, whatever the others are.
	base := sum(0)
	var sums [32]uint32 // by their highest bit
	var payloads [32]uint64
	for bit := range 64 {
		payload := uint64(1) << bit
		for v := sum(payload) ^ base; v != 0; {
			top := bits.Len32(v) - 1
			if sums[top] == 0 {
				sums[top], payloads[top] = v, payload
				break
			}
			v, payload = v^sums[top], payload^payloads[top]
		}
	}
	payload := uint64(0)
	for v := base; v != 0; {
		top := bits.Len32(v) - 1
		v, payload = v^sums[top], payload^payloads[top]
	}
	if got := sum(payload); got != 0 {
		t.Fatalf("the checksum is %08x", got)
	}
	return p
}

// TestStaleRecords: what an older file left on the same blocks is not taken for
// a record.
func TestStaleRecords(t *testing.T) {
	f := prepare(t, entries(1, 10, 1)...)
	old := make([]byte, RecordHeaderBytes)
	(&record{typ: 0, term: 1, index: 10, mark: DataStart}).encode(old)
	sealRecord(old, nil, testSalt+1)
	at := f.End()
	edit(t, f.Path(), at, len(old), func(p []byte) { copy(p, old) })
	_, s := scanned(t, f)
	if s.Index.Last() != 9 || s.End != at || s.Rest == 0 {
		t.Errorf("last %d, end %d, rest %d", s.Index.Last(), s.End, s.Rest)
	}
}

// TestRecordsOutOfOrder: whole records that contradict each other are damage.
func TestRecordsOutOfOrder(t *testing.T) {
	tests := map[string]*raftpb.Entry{
		"a gap":                        entry(21, 2, "x"),
		"an index in front":            entry(9, 2, "x"),
		"a term that goes back":        entry(20, 1, "x"),
		"a term that goes back inside": entry(15, 1, "x"),
	}
	for name, bad := range tests {
		f := prepare(t, entries(10, 20, 2)...)
		at := f.End()
		storeAnyway(t, f, bad)
		_, err := reopen(t, f).Scan()
		if e := wantCorrupt(t, err); e.First != bad.GetIndex() || e.Offset != at {
			t.Errorf("%s: %v", name, e)
		}
	}
}

// storeAnyway stores a record that Append would not.
func storeAnyway(t *testing.T, f *File, e *raftpb.Entry) {
	t.Helper()
	var r record
	r.describe(e, f.Durable(), 0)
	must(t, f.begin(r.bytes(), f.End(), 0))
	must(t, f.storeRecord(&r, e.Data, f.End()))
	must(t, f.finish(f.End()+r.bytes()))
}

func TestTooManyRecords(t *testing.T) {
	f := prepare(t, plain(1, MaxSlots+1, 0)...)
	storeAnyway(t, f, entry(MaxSlots+1, 1, ""))
	_, err := reopen(t, f).Scan()
	if e := wantCorrupt(t, err); e.First != MaxSlots+1 {
		t.Error(e)
	}
}

// TestRecover: from whatever offset the records are stored again, the file reads
// as it did, and its slots are rebuilt.
func TestRecover(t *testing.T) {
	want := append(entries(1, 150, 1), entries(150, 250, 2)...)
	for _, from := range []int64{0, DataStart, DataStart + 5000, 1 << 40} {
		f := prepare(t, entries(1, 200, 1)...)
		save(t, f, entries(150, 250, 2))
		zero(t, f, 0, MaxSlots*SlotBytes) // the slots did not reach the disk
		g, s := scanned(t, f)
		must(t, g.RestoreHeader())
		must(t, g.Recover(s, from))
		if g.Durable() != s.End || !g.Sealed() {
			t.Errorf("durable up to %d of %d, sealed: %t", g.Durable(), s.End, g.Sealed())
		}
		g = reopen(t, g)
		wantEntries(t, g, want)
		if g.Healed() {
			t.Errorf("from %d: the slots were not written", from)
		}
	}
}

// TestRecoverClearsSlots: slots behind those in use become empty, since other programs look
// for the end of the entries there.
func TestRecoverClearsSlots(t *testing.T) {
	f := prepare(t, entries(1, 10, 1)...)
	edit(t, f.Path(), 100*page.Size+8, 8, func(p []byte) { p[0] = 1 })
	g, s := scanned(t, f)
	must(t, g.RestoreHeader())
	must(t, g.Recover(s, DataStart))
	edit(t, f.Path(), 9*SlotBytes, (MaxSlots-9)*SlotBytes, func(p []byte) {
		if at := usedBytes(p); at != 0 {
			t.Errorf("byte %d of the free slots is not zero", at)
		}
	})
}

func TestContinueWithDamagedSlots(t *testing.T) {
	slotAt := func(i int64) int64 { return i * SlotBytes }
	damages := map[string]func(t *testing.T, f *File){
		"flipped":          func(t *testing.T, f *File) { flip(t, f, slotAt(5)+3) },
		"flipped data":     func(t *testing.T, f *File) { flip(t, f, slotAt(5)+22) },
		"one missing":      func(t *testing.T, f *File) { zero(t, f, slotAt(5), SlotBytes) },
		"last missing":     func(t *testing.T, f *File) { zero(t, f, slotAt(19), SlotBytes) },
		"all missing":      func(t *testing.T, f *File) { zero(t, f, 0, 4096) },
		"doubled":          func(t *testing.T, f *File) { copySlot(t, f, 4, 5) },
		"one more than is": func(t *testing.T, f *File) { copySlot(t, f, 3, 20) },
	}
	for name, damage := range damages {
		f := prepare(t, entries(1, 21, 1)...)
		end := f.End()
		must(t, f.SyncSlots())
		damage(t, f)
		f = reopen(t, f)
		must(t, f.Continue(end, false))
		wantEntries(t, f, entries(1, 21, 1))
		if !f.Stale() {
			t.Errorf("%s: not noticed", name)
		}
		must(t, f.SyncSlots())
		f = reopen(t, f)
		must(t, f.Continue(end, false))
		wantEntries(t, f, entries(1, 21, 1))
		if f.Stale() {
			t.Errorf("%s: not written anew", name)
		}
	}
}

func copySlot(t testing.TB, f *File, from, to int64) {
	t.Helper()
	edit(t, f.Path(), 0, MaxSlots*SlotBytes, func(p []byte) {
		copy(p[to*SlotBytes:(to+1)*SlotBytes], p[from*SlotBytes:])
	})
}

// TestContinueElsewhere: the data must end where it ended at the close.
func TestContinueElsewhere(t *testing.T) {
	f := prepare(t, entries(1, 21, 1)...)
	last := recordAt(t, f, 20)
	end := f.End()
	must(t, f.SyncSlots())
	for _, wrong := range []int64{0, DataStart, last, end - 8, end + 8, f.Size(), 1 << 40} {
		g := reopen(t, f)
		wantCorrupt(t, g.Continue(wrong, false))
	}
	flip(t, f, last+40)
	zero(t, f, 0, SlotBytes)
	e := wantCorrupt(t, reopen(t, f).Continue(end, false))
	if e.First != 20 || e.Offset != last {
		t.Errorf("%v, want entry 20 at %d", e, last)
	}
}

// TestContinueAfterDgraph: a slot without a checksum is Dgraph's.
func TestContinueAfterDgraph(t *testing.T) {
	f := prepare(t, entries(1, 21, 1)...)
	must(t, f.SyncSlots())
	edit(t, f.Path(), 20*SlotBytes, SlotBytes, func(p []byte) {
		page.Order.PutUint64(p, 1)
		page.Order.PutUint64(p[8:], 21)
		page.Order.PutUint64(p[16:], uint64(f.End()))
	})
	e := wantCorrupt(t, reopen(t, f).Continue(f.End(), false))
	if !strings.Contains(e.Reason, "import --from dgraph") || e.Offset != 20*SlotBytes {
		t.Errorf("no word of import: %v", e)
	}
}

func TestHeaderPages(t *testing.T) {
	sealed := func(t *testing.T) *File {
		f := prepare(t, entries(1, 10, 1)...) // the header is in page 0
		must(t, f.Seal())                     // and now in page 1
		return f
	}
	t.Run("newest wins", func(t *testing.T) {
		f := sealed(t)
		if f = reopen(t, f); !f.Sealed() || f.page != headerPage1 {
			t.Errorf("sealed %t, page at %d", f.Sealed(), f.page)
		}
		must(t, f.Reseal(5))
		if f = reopen(t, f); f.Last() != 5 || f.page != headerPage0 {
			t.Errorf("last %d, page at %d", f.Last(), f.page)
		}
	})
	t.Run("newest damaged", func(t *testing.T) {
		f := sealed(t)
		flip(t, f, headerPage1+100)
		if f = reopen(t, f); f.Sealed() || f.page != headerPage0 {
			t.Errorf("sealed %t, page at %d", f.Sealed(), f.page)
		}
	})
	t.Run("oldest damaged", func(t *testing.T) {
		f := sealed(t)
		flip(t, f, headerPage0+4000)
		wantEntries(t, reopen(t, f), entries(1, 10, 1))
	})
	t.Run("both damaged", func(t *testing.T) {
		f := sealed(t)
		flip(t, f, headerPage0)
		flip(t, f, headerPage1)
		wantCorrupt(t, openErr(t, f, 7, testLog))
	})
	t.Run("newer version", func(t *testing.T) {
		f := sealed(t)
		edit(t, f.Path(), headerPage0, page.Size, func(p []byte) {
			page.Order.PutUint32(p[8:], Version+1)
			page.Seal(p, atHeaderSum)
		})
		wantErr(t, openErr(t, f, 7, testLog), ErrVersion)
	})
	t.Run("restored", func(t *testing.T) {
		f := reopen(t, sealed(t))
		flip(t, f, headerPage1+100)
		must(t, f.RestoreHeader())
		wantEntries(t, reopen(t, f), entries(1, 10, 1))
	})
}

func TestOpenOthers(t *testing.T) {
	f := prepare(t, entries(1, 10, 1)...)
	must(t, f.Seal())
	wantCorrupt(t, openErr(t, f, 7, testLog+1))
	must(t, os.Link(f.Path(), filepath.Join(f.dir, Name(8))))
	wantCorrupt(t, openErr(t, f, 8, testLog))
	wantErr(t, openErr(t, f, 9, testLog), os.ErrNotExist)
	for _, size := range []int64{f.Size() - 1, f.End(), DataStart, DataStart - 1, page.Size, 0} {
		must(t, os.Truncate(f.Path(), size))
		e := wantCorrupt(t, openErr(t, f, 7, testLog))
		if e.File != f.Path() || !strings.Contains(e.Reason, "cut short") || size >= DataStart && (e.First != 1 || e.Last != 9) {
			t.Errorf("cut to %d: %v", size, e)
		}
	}
}

// TestReadsOfACutFile: a file cut under the mapping is an error for all.
func TestReadsOfACutFile(t *testing.T) {
	f := prepare(t, entries(1, 10, 1)...)
	must(t, os.Truncate(f.Path(), 0))
	_, scanErr := f.Scan()
	_, readErr := get(f, 1, 10, 0)
	for _, err := range []error{scanErr, readErr, f.Continue(f.End(), false)} {
		wantErr(t, err, vfs.ErrFault)
	}
	for _, err := range []error{f.Reserve(page.Size), f.RestoreHeader()} {
		wantCorrupt(t, err)
	}
}
