package entryfile

import (
	"errors"
	"math"
	"sync"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
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
		full, err := f.Measure(nil, 1, 100, b)
		must(t, err)
		if b.Count() != want || full != (want < len(es)) {
			t.Errorf("%d bytes: %d entries, full: %t, want %d", max, b.Count(), full, want)
		}
		b.Allocate()
		must(t, f.Fill(nil, 1, 100, b))
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
		func() error { _, err := one.Measure(nil, 3, 10, b); return err }(),
		func() error { _, err := two.Measure(&x, 10, 15, b); return err }(),
	} {
		must(t, err)
	}
	b.Allocate()
	must(t, one.Fill(nil, 3, 10, b))
	must(t, two.Fill(&x, 10, 15, b))
	wantSame(t, b.Entries(), entries(3, 15, 1))
}

// TestBatchOverManyFiles: more of them than a Batch knows the runs of, one with a
// superseded record between its entries, and one all of whose entries are cleared.
func TestBatchOverManyFiles(t *testing.T) {
	b := &Batch{MaxBytes: 1 << 40, ClearedBelow: 4, ClearedFile: math.MaxUint64}
	var files []*File
	for k := range uint64(maxRuns + 3) {
		f := prepare(t, entries(3*k+1, 3*k+4, 1)...)
		if k == 2 {
			save(t, f, entries(3*k+2, 3*k+4, 2))
		}
		files = append(files, f)
		_, err := f.Measure(indexOf(f), 3*k+1, 3*k+4, b)
		must(t, err)
	}
	b.Allocate()
	for k, f := range files {
		must(t, f.Fill(indexOf(f), uint64(3*k+1), uint64(3*k+4), b))
	}
	want := append(entries(4, 8, 1), entries(8, 10, 2)...)
	wantSame(t, b.Entries()[3:], append(want, entries(10, uint64(3*len(files)+1), 1)...))
	for _, e := range b.Entries()[:3] {
		if e.Data != nil {
			t.Errorf("cleared entry %d has data", e.GetIndex())
		}
	}
}

// TestChangedWhileRead: a record that changes between the two looks at it is damage.
func TestChangedWhileRead(t *testing.T) {
	for name, at := range map[string]int64{"index": 23, "length": 28, "payload": RecordHeaderBytes} {
		for how, clearedBelow := range map[string]uint64{"at once": 0, "one by one": 2} {
			t.Run(name+", "+how, func(t *testing.T) {
				f := sealedFile(t)
				record := recordAt(t, f, 5)
				b := &Batch{MaxBytes: 1 << 40, ClearedBelow: clearedBelow, ClearedFile: math.MaxUint64}
				_, err := f.Measure(nil, 1, 9, b)
				must(t, err)
				b.Allocate()
				flip(t, f, record+at)
				var damage *corrupt.Error
				if err := f.Fill(nil, 1, 9, b); !errors.As(err, &damage) || damage.First != 5 || damage.Offset != record {
					t.Errorf("%v, want damage of entry 5 at %d", err, record)
				}
			})
		}
	}
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
