package entryfile

import (
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// sealedFile returns a sealed file with the entries 1 to 99.
func sealedFile(t testing.TB) *File {
	t.Helper()
	f := prepare(t, append(entries(1, 60, 1), entries(60, 100, 2)...)...)
	must(t, f.Seal())
	return reopen(t, f)
}

func sealedEntries() []*raftpb.Entry { return append(entries(1, 60, 1), entries(60, 100, 2)...) }

// TestBatchLimit: as many entries as MaxBytes allows, but at least one.
func TestBatchLimit(t *testing.T) {
	es := sealedEntries()
	f := sealedFile(t)
	for _, max := range []uint64{0, 1, uint64(proto.Size(es[0])), uint64(proto.Size(es[0]) + proto.Size(es[1])), 1000, 1 << 40} {
		want, sum := 1, uint64(proto.Size(es[0]))
		for want < len(es) && sum+uint64(proto.Size(es[want])) <= max {
			sum += uint64(proto.Size(es[want]))
			want++
		}
		b := &Batch{MaxBytes: max}
		full, err := f.Read(nil, 1, 100, b)
		must(t, err)
		if full != (want < len(es)) {
			t.Errorf("%d bytes: full: %t, want %d entries", max, full, want)
		}
		wantSame(t, b.Entries(), es[:want])
	}
}

// TestBatchOverFiles: one batch collects from several files.
func TestBatchOverFiles(t *testing.T) {
	one, two := prepare(t, entries(1, 10, 1)...), prepare(t, entries(10, 20, 1)...)
	must(t, one.Seal())
	x := two.Index()
	b := &Batch{MaxBytes: 1 << 40}
	for _, err := range []error{
		func() error { _, err := one.Read(nil, 3, 10, b); return err }(),
		func() error { _, err := two.Read(&x, 10, 15, b); return err }(),
	} {
		must(t, err)
	}
	wantSame(t, b.Entries(), entries(3, 15, 1))
}

// TestBatchOverManyFiles: one with a superseded record between its entries.
func TestBatchOverManyFiles(t *testing.T) {
	b := &Batch{MaxBytes: 1 << 40}
	const files = 7
	for k := range uint64(files) {
		f := prepare(t, entries(3*k+1, 3*k+4, 1)...)
		if k == 2 {
			save(t, f, entries(3*k+2, 3*k+4, 2))
		}
		_, err := f.Read(indexOf(f), 3*k+1, 3*k+4, b)
		must(t, err)
	}
	want := append(entries(1, 8, 1), entries(8, 10, 2)...)
	wantSame(t, b.Entries(), append(want, entries(10, 3*files+1, 1)...))
}

// TestPieces: what is copied piece by piece reads as it was saved, whatever lies between the
// pieces and inside of them, and as much of it as was asked for.
func TestPieces(t *testing.T) {
	tests := map[string][][]*raftpb.Entry{ // Saves
		"larger than a piece":       {plain(1, 4, maxPiece+1)},
		"many pieces":               {plain(1, 51, maxPiece/10)},
		"a large superseded record": {plain(1, 4, maxPiece), plain(1, 20, 100)},
		"superseded records between": {
			plain(1, 10, 100), plain(5, 10, 3*maxPiece), plain(5, 30, 1000), plain(20, 40, 0),
		},
	}
	for name, saves := range tests {
		t.Run(name, func(t *testing.T) {
			f, err := Prepare(vfs.OS(), t.TempDir(), spec(64<<20), 0)
			must(t, err)
			t.Cleanup(f.Discard)
			var es []*raftpb.Entry
			for _, s := range saves {
				save(t, f, s)
				es = append(es[:s[0].GetIndex()-1], s...)
			}
			r := rand.New(rand.NewPCG(1, 2))
			for range 200 {
				lo := r.IntN(len(es))
				hi := lo + 1 + r.IntN(len(es)-lo)
				b := &Batch{MaxBytes: uint64(r.IntN(1 << (4 + r.IntN(22))))}
				want, sum := lo+1, proto.Size(es[lo])
				for want < hi && uint64(sum+proto.Size(es[want])) <= b.MaxBytes {
					sum += proto.Size(es[want])
					want++
				}
				full, err := f.Read(indexOf(f), uint64(lo)+1, uint64(hi)+1, b)
				must(t, err)
				if full != (want < hi) {
					t.Fatalf("entries %d to %d, %d bytes: full: %t, want those up to %d", lo+1, hi, b.MaxBytes, full, want)
				}
				wantSame(t, b.Entries(), es[lo:want])
			}
		})
	}
}

// TestDamagedEntryOfAPiece: a damaged entry spoils the reads that return it. One whose header
// is whole spoils no other.
func TestDamagedEntryOfAPiece(t *testing.T) {
	for name, at := range map[string]int64{"index": 23, "length": 28, "payload": RecordHeaderBytes} {
		f := sealedFile(t)
		record := recordAt(t, f, 5)
		flip(t, f, record+at)
		var damage *corrupt.Error
		_, err := f.Read(nil, 1, 9, &Batch{MaxBytes: 1 << 20})
		if !errors.As(err, &damage) || damage.First != 5 || damage.Offset != record {
			t.Errorf("%s: %v, want damage of entry 5 at %d", name, err, record)
		}
		b := &Batch{}
		for _, e := range sealedEntries()[:4] {
			b.MaxBytes += uint64(proto.Size(e))
		}
		if full, err := f.Read(nil, 1, 9, b); name == "payload" && (!full || err != nil || len(b.Entries()) != 4) {
			t.Errorf("%s: full: %t, %d entries, %v", name, full, len(b.Entries()), err)
		}
	}
}

// TestReadsOfTooMuch: what does not fit, or is damaged, costs no memory.
func TestReadsOfTooMuch(t *testing.T) {
	f, err := Prepare(vfs.OS(), t.TempDir(), spec(96<<20), 0)
	must(t, err)
	t.Cleanup(f.Discard)
	save(t, f, plain(1, 3, 100))
	save(t, f, plain(3, 4, 60<<20))
	save(t, f, plain(4, 20_004, 0))
	save(t, f, plain(20_004, 20_010, 300_000))
	tests := map[string]struct {
		lo, hi, maxBytes uint64
		want             int // entries
		most             uint64
	}{
		"a large one behind":  {1, 4, 1000, 2, 10 << 10},
		"many empty ones":     {4, 20_004, 1200, 100, 100 << 10},
		"the large one alone": {3, 20_004, 1, 1, 61 << 20},
		"half of a piece":     {20_004, 20_010, 310_000, 1, 400_000},
	}
	for name, c := range tests {
		b := &Batch{MaxBytes: c.maxBytes}
		if bytes := allocated(func() { _, err = f.Read(indexOf(f), c.lo, c.hi, b) }); bytes > c.most {
			t.Errorf("%s: %d bytes allocated", name, bytes)
		}
		must(t, err)
		if n := len(b.Entries()); n < c.want || n > 2*c.want {
			t.Errorf("%s: %d entries", name, n)
		}
	}
	at := recordAt(t, f, 2)
	edit(t, f.temporary(), at+28, 4, func(p []byte) { page.Order.PutUint32(p, 50<<20) })
	edit(t, f.temporary(), at+16, 8, func(p []byte) { page.Order.PutUint64(p, 7) })
	if bytes := allocated(func() { _, err = f.Read(indexOf(f), 2, 3, &Batch{}) }); bytes > 10<<10 {
		t.Errorf("a damaged header: %d bytes allocated", bytes)
	}
	if e := wantCorrupt(t, err); e.First != 2 || e.Offset != at {
		t.Error(e)
	}
}

// TestEntryKeepsAPiece: an entry that is kept keeps no more than a piece alive.
func TestEntryKeepsAPiece(t *testing.T) {
	f, err := Prepare(vfs.OS(), t.TempDir(), spec(32<<20), 0)
	must(t, err)
	t.Cleanup(f.Discard)
	save(t, f, plain(1, 201, 100_000))
	inUse := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := inUse()
	es, err := get(f, 1, 201, 0)
	must(t, err)
	kept := es[100]
	if after := inUse(); after > before+2*maxPiece {
		t.Errorf("an entry of 100 KB keeps %d bytes", after-before)
	}
	runtime.KeepAlive(kept)
}

// TestPaddingIsZero: whatever stood in the buffer before.
func TestPaddingIsZero(t *testing.T) {
	f := prepare(t)
	for last := uint64(0); last < 2000; last += 20 {
		save(t, f, plain(last+1, last+21, int(last/20)))
	}
	p, err := os.ReadFile(f.Path())
	must(t, err)
	for i := uint64(1); i <= 2000; i++ {
		at := recordAt(t, f, i)
		r := decodeRecord(p[at:])
		for k := at + RecordHeaderBytes + int64(r.payload); k < at+r.bytes(); k++ {
			if p[k] != 0 {
				t.Fatalf("entry %d: %d at offset %d", i, p[k], k)
			}
		}
	}
}

// TestSlotAtTheEndOfTheFile: one that points to where not even a header fits.
func TestSlotAtTheEndOfTheFile(t *testing.T) {
	f, err := Prepare(vfs.OS(), t.TempDir(), spec(page.Size), 0)
	must(t, err)
	must(t, f.Publish())
	save(t, f, plain(1, 2, page.Size-2*RecordHeaderBytes))
	must(t, f.Terminate())
	must(t, f.Seal())
	if f.End() != f.Size() {
		t.Fatalf("the records end at %d, the file at %d", f.End(), f.Size())
	}
	f = reopen(t, f)
	edit(t, f.Path(), 0, SlotBytes, func(p []byte) {
		slot{term: 1, index: 1, data: f.End() - 1}.encode(p, testSalt)
	})
	_, err = get(f, 1, 2, 0)
	if e := wantCorrupt(t, err); e.First != 1 {
		t.Error(e)
	}
}

// allocated returns how many bytes of memory f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// TestReadsOfClearedEntries: some are cleared, some were written anew below the index that
// they are cleared up to. What is cleared costs nothing, however much it is.
func TestReadsOfClearedEntries(t *testing.T) {
	f := prepare(t, plain(1, 10_001, 10)...)
	x := f.Index()
	b := Batch{MaxBytes: 1 << 40, ClearedBelow: 9001, ClearedFile: f.Number(), ClearedEnd: recordAt(t, f, 5001)}
	for _, lo := range []uint64{1, 4999, 5000} {
		got, err := b, error(nil)
		if bytes := allocated(func() { _, err = f.Read(&x, lo, 10_001, &got) }); bytes > 2000 || err != ErrCleared {
			t.Errorf("from %d on: %d bytes allocated, %v", lo, bytes, err)
		}
	}
	got := b
	if full, err := f.Read(&x, 5001, 10_001, &got); full || err != nil {
		t.Fatal(full, err)
	}
	wantSame(t, got.Entries(), plain(5001, 10_001, 10))
}

// TestBatchEntriesAreApart: the data of an entry cannot grow into the next one's.
func TestBatchEntriesAreApart(t *testing.T) {
	es, err := get(sealedFile(t), 1, 4, 0)
	must(t, err)
	es[0].Data = append(es[0].Data, "more"...)
	*es[0].Term = 77
	wantSame(t, es[1:], entries(2, 4, 1))
}

// TestDamagedSlotHeals: a slot that is damaged is rebuilt from the records, and
// written by Reseal.
func TestDamagedSlotHeals(t *testing.T) {
	at := int64(41 * SlotBytes) // of entry 42
	damages := map[string]func(t *testing.T, f *File){
		"flipped": func(t *testing.T, f *File) { flip(t, f, at+17) },
		"zeroed":  func(t *testing.T, f *File) { zero(t, f, at, SlotBytes) },
		"all":     func(t *testing.T, f *File) { zero(t, f, 0, 99*SlotBytes) },
		"another": func(t *testing.T, f *File) { copySlot(t, f, 3, 41) },
	}
	for name, damage := range damages {
		f := sealedFile(t)
		damage(t, f)
		wantEntries(t, f, sealedEntries())
		if !f.Healed() {
			t.Errorf("%s: not noticed", name)
		}
		must(t, f.Reseal(99))
		if f.Healed() {
			t.Errorf("%s: healed in memory only", name)
		}
		f = reopen(t, f)
		wantEntries(t, f, sealedEntries())
		if f.Healed() {
			t.Errorf("%s: not healed on disk", name)
		}
	}
}

func TestHealingConcurrently(t *testing.T) {
	f := sealedFile(t)
	zero(t, f, 0, 99*SlotBytes)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := get(f, 1, 100, 0); err != nil {
				t.Error(err)
			}
		})
	}
	_, err := clearBelow(f, 30) // may heal as well
	must(t, err)
	wg.Wait()
}

// TestSlotAndRecordDamaged: then the entry is lost, and named.
func TestSlotAndRecordDamaged(t *testing.T) {
	f := sealedFile(t)
	record := recordAt(t, f, 42)
	flip(t, f, 41*SlotBytes)
	flip(t, f, record+8)
	_, err := f.Locate(nil, 42)
	e := wantCorrupt(t, err)
	if e.File != f.Path() || e.First != 42 || e.Last < 42 || e.Offset != record {
		t.Errorf("%v, want entry 42 at %d", e, record)
	}
	if s, err := f.Check(); err == nil || s.Index.Last() != 41 {
		t.Errorf("checked up to %d, error %v", s.Index.Last(), err)
	}
	wantCorrupt(t, f.Reseal(50))
	es, err := get(f, 1, 42, 0) // the others can be read
	must(t, err)
	wantSame(t, es, entries(1, 42, 1))
}

// TestDamagedRecord: wherever a record is damaged, its entry is not returned.
func TestDamagedRecord(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		f := prepare(t, sealedEntries()...)
		if sealed {
			must(t, f.Seal())
		}
		record := recordAt(t, f, 42)
		r := decodeRecord((*f.mem.Load()).Bytes()[record:])
		for at := record; at < record+RecordHeaderBytes+int64(r.payload); at++ {
			flip(t, f, at)
			_, err := get(f, 40, 45, 0)
			if e := wantCorrupt(t, err); e.First != 42 || e.Last != 42 || e.File != f.Path() {
				t.Errorf("byte %d: %v, want entry 42", at-record, e)
			}
			flip(t, f, at)
		}
		es, err := get(f, 1, 100, 0)
		must(t, err)
		wantSame(t, es, sealedEntries())
	}
}

// TestSlotElsewhere: a slot that is checked, but points to no record.
func TestSlotElsewhere(t *testing.T) {
	f := sealedFile(t)
	for _, data := range []int64{DataStart + dataOffset + 1, f.End() - 1, recordAt(t, f, 43) + dataOffset} {
		edit(t, f.Path(), 41*SlotBytes, SlotBytes, func(p []byte) {
			slot{term: 1, index: 42, data: data}.encode(p, testSalt)
		})
		_, err := get(f, 42, 43, 0)
		if e := wantCorrupt(t, err); e.First != 42 {
			t.Error(e)
		}
		_, err = get(f, 40, 45, 0)
		if e := wantCorrupt(t, err); e.First != 42 {
			t.Error(e)
		}
	}
}

func TestLocateOutside(t *testing.T) {
	f := sealedFile(t)
	for _, i := range []uint64{0, 100, ^uint64(0)} {
		_, err := f.Locate(nil, i)
		wantCorrupt(t, err)
	}
	g := prepare(t, entries(5, 10, 1)...)
	x := g.Index()
	for _, i := range []uint64{0, 4, 10} {
		_, err := g.Locate(&x, i)
		wantCorrupt(t, err)
	}
}

// TestReseal: the slots and the seal show what is live only, the records stay.
func TestReseal(t *testing.T) {
	f := sealedFile(t)
	before := f.header.sequence
	must(t, f.Reseal(99))
	must(t, f.Reseal(1000))
	if f.header.sequence != before {
		t.Error("written without need")
	}
	for _, last := range []uint64{70, 59, 1, 0} {
		must(t, f.Reseal(last))
		f = reopen(t, f)
		wantEntries(t, f, sealedEntries()[:last])
		m, err := f.memory()
		must(t, err)
		mem := m.Bytes()
		for i := last; i < 99; i++ {
			if mem[i*SlotBytes+15] != 0 {
				t.Fatalf("up to %d: slot %d is in use", last, i)
			}
		}
		s, err := f.Check()
		must(t, err)
		if s.Index.Last() != last {
			t.Errorf("checked up to %d, want %d", s.Index.Last(), last)
		}
	}
	g := prepare(t, entries(1, 10, 1)...)
	must(t, g.Reseal(5)) // not sealed
	wantEntries(t, g, entries(1, 10, 1))
}
