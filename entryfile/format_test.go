package entryfile

import (
	"errors"
	"math/rand"
	"reflect"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/golden"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func TestGoldenRecord(t *testing.T) {
	want := golden.Read(t, "testdata/record.hex", 40)
	var r record
	ok := r.intact(append(make([]byte, DataStart), want...), DataStart, DataStart+40, testSalt)
	wantRecord := record{sum: 0x7081f602, typ: 1, term: 3, index: 42, mark: DataStart, payload: 5}
	if !ok || r != wantRecord {
		t.Errorf("decoded %+v, whole: %t, want %+v", r, ok, wantRecord)
	}
	e := entry(42, 3, "hello")
	e.Type = raftpb.EntryConfChange.Enum()
	f := prepare(t, e)
	must(t, f.SyncSlots())
	var got [40]byte
	must(t, f.guard(func(mem []byte) error { copy(got[:], mem[DataStart:]); return nil }))
	if diff := golden.Diff(got[:], want); diff != "" {
		t.Errorf("the record: %s", diff)
	}
	wantSlot := golden.Read(t, "testdata/slot.hex", SlotBytes)
	must(t, f.guard(func(mem []byte) error { copy(got[:], mem); return nil }))
	if diff := golden.Diff(got[:SlotBytes], wantSlot); diff != "" {
		t.Errorf("the slot: %s", diff)
	}
	if s, ok := decodeSlot(wantSlot, testSalt); !ok || s != (slot{3, 42, DataStart + dataOffset, 1}) {
		t.Errorf("decoded %+v, whole: %t", s, ok)
	}
}

func goldenHeader() Header {
	return Header{
		Number: 7, Prev: 6, LogID: testLog, Size: 2 << 20, Salt: testSalt, PrevSalt: 0x5eed0000, sequence: 2, Sealed: true,
		Seal: Seal{
			Count: 3, First: 41, Last: 43, End: DataStart + 128, Punched: DataStart + 40, SlotsSum: 0x1badcafe,
			HasDigest: true, Terms: []Run{{41, 2}, {42, 3}}, Others: []Other{{42, DataStart + 40, 1}},
		},
	}
}

func TestGoldenHeader(t *testing.T) {
	want := golden.Read(t, "testdata/header.hex", page.Size)
	h, err := decodeHeader(want)
	must(t, err)
	if !reflect.DeepEqual(h, goldenHeader()) {
		t.Errorf("decoded\n%+v, want\n%+v", h, goldenHeader())
	}
	got := make([]byte, page.Size)
	h.encode(got, nil)
	if diff := golden.Diff(got, want); diff != "" {
		t.Errorf("encoded again: %s", diff)
	}
}

// TestEveryFlippedByte: no byte of a header page, a record or a slot can change
// unnoticed.
func TestEveryFlippedByte(t *testing.T) {
	each := func(name string, size, used int, accepted func(p []byte) bool) {
		want := golden.Read(t, "testdata/"+name, size)
		if !accepted(want) {
			t.Fatalf("%s is refused", name)
		}
		for at := range used {
			want[at] ^= 0x20
			if accepted(want) {
				t.Errorf("%s: byte %d flipped, and accepted", name, at)
			}
			want[at] ^= 0x20
		}
	}
	each("header.hex", page.Size, page.Size, func(p []byte) bool { _, err := decodeHeader(p); return err == nil })
	each("slot.hex", SlotBytes, SlotBytes, func(p []byte) bool { _, ok := decodeSlot(p, testSalt); return ok })
	mem := make([]byte, DataStart+40)
	each("record.hex", 40, 37, func(p []byte) bool {
		copy(mem[DataStart:], p)
		ok := new(record).intact(mem, DataStart, DataStart+40, testSalt)
		return ok
	})
}

// TestSealedNonsense: header pages that are checked, but hold what cannot be.
func TestSealedNonsense(t *testing.T) {
	tests := []struct {
		name   string
		change func(h *Header)
	}{
		{"too many entries", func(h *Header) { h.Seal.Count, h.Seal.Last = MaxSlots+1, MaxSlots+41 }},
		{"count and range differ", func(h *Header) { h.Seal.Count = 2 }},
		{"no first index", func(h *Header) { h.Seal.First = 0 }},
		{"end before the data", func(h *Header) { h.Seal.End = DataStart - 8 }},
		{"end behind the file", func(h *Header) { h.Seal.End = h.Size + 8 }},
		{"negative end", func(h *Header) { h.Seal.End = -8 }},
		{"cleared behind the end", func(h *Header) { h.Seal.Punched = h.Seal.End + 8 }},
		{"cleared before the data", func(h *Header) { h.Seal.Punched = 0 }},
		{"cleared without a digest", func(h *Header) { h.Seal.HasDigest = false }},
		{"digest starts late", func(h *Header) { h.Seal.Terms = []Run{{42, 3}} }},
		{"other entry outside", func(h *Header) { h.Seal.Others[0].Record = h.Seal.End - 8 }},
	}
	p := make([]byte, page.Size)
	for _, test := range tests {
		h := goldenHeader()
		test.change(&h)
		h.encode(p, nil)
		if _, err := decodeHeader(p); err == nil {
			t.Errorf("%s: no error", test.name)
		}
	}
	for _, at := range []int{108, 112} {
		h := goldenHeader()
		h.encode(p, nil)
		page.Order.PutUint32(p[at:], maxDigest+1)
		page.Seal(p, atHeaderSum)
		if _, err := decodeHeader(p); err == nil {
			t.Errorf("digest too long at %d: no error", at)
		}
	}
	page.Order.PutUint32(p[8:], Version+1)
	page.Seal(p, atHeaderSum)
	if _, err := decodeHeader(p); !errors.Is(err, ErrVersion) {
		t.Errorf("error %v, want %v", err, ErrVersion)
	}
}

func randomEntry(r *rand.Rand) *raftpb.Entry {
	n := func() *uint64 { return proto.Uint64(1 + r.Uint64()>>1>>r.Intn(63)) }
	e := &raftpb.Entry{Index: n(), Term: n()}
	if r.Intn(2) == 0 {
		e.Type = raftpb.EntryType(r.Intn(3)).Enum()
	}
	if r.Intn(4) > 0 {
		e.Data = make([]byte, r.Intn(1<<r.Intn(16)))
		r.Read(e.Data)
	}
	return e
}

func TestEncodedSize(t *testing.T) {
	r := seeded(t)
	for range 2000 {
		e := randomEntry(r)
		var rec record
		rec.describe(e, DataStart, 0)
		if got, want := rec.encodedSize(0), uint64(proto.Size(e)); got != want {
			t.Fatalf("%.200v: %d, want %d", e, got, want)
		}
		p := make([]byte, RecordHeaderBytes)
		rec.encode(p)
		sealRecord(p, e.Data, r.Uint32())
		rec.sum = page.Order.Uint32(p)
		if got := decodeRecord(p); got != rec {
			t.Fatalf("decoded %+v, want %+v", got, rec)
		}
	}
}

func TestRecordBytes(t *testing.T) {
	for n, want := range map[int]int64{0: 32, 1: 40, 7: 40, 8: 40, 9: 48, 4064: 4096, 1 << 20: 1<<20 + 32} {
		if got := RecordBytes(n); got != want {
			t.Errorf("RecordBytes(%d) is %d, want %d", n, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	for number, want := range map[uint64]string{1: "00001.wal", 99999: "99999.wal", 100000: "100000.wal", ^uint64(0): "18446744073709551615.wal"} {
		if got := Name(number); got != want {
			t.Errorf("Name(%d) is %s, want %s", number, got, want)
		}
		if got, ok := ParseName(want); !ok || got != number {
			t.Errorf("ParseName(%s) is %d, %t", want, got, ok)
		}
	}
	for _, name := range []string{"", ".wal", "0.wal", "00000.wal", "a.wal", "-1.wal", "00001.wal.tmp", "00001.WAL", "00001wal", "18446744073709551616.wal"} {
		if n, ok := ParseName(name); ok {
			t.Errorf("ParseName(%q) is %d", name, n)
		}
	}
	if n, ok := ParseName("1.wal"); !ok || n != 1 || Name(n) == "1.wal" {
		t.Errorf("1.wal is number %d, %t", n, ok)
	}
}

// TestPlausibleLength: no payload is longer than an entry's may be, so that no sum of offsets
// overflows, not even where an int has 32 bits.
func TestPlausibleLength(t *testing.T) {
	const at = 1 << 20
	for payload, want := range map[uint32]bool{0: true, maxPayload: true, maxPayload + 1: false, 1 << 31: false, 1<<32 - 1: false} {
		r := record{term: 1, index: 1, payload: payload}
		if got := r.plausible(at, 1<<40); got != want {
			t.Errorf("%d bytes: %t, want %t", payload, got, want)
		}
	}
}
