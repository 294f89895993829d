package metafile

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

func TestGoldenPage(t *testing.T) {
	want := golden.Read(t, "testdata/page.hex", page.Size)
	m, err := Decode(want)
	must(t, err)
	wantMeta(t, m, Meta{
		RaftID: 0x0102030405060708, GroupID: 9, Checkpoint: 55,
		LogID: 0xcafef00ddeadbeef, Clean: true, SyncPolicy: 1,
		Compacted: Position{40, 3}, FirstFile: 4, Durable: End{5, 1<<20 + 4096, 0x5eed0005}, ClearedBelow: 30, ClearedEnd: End{4, 1<<20 + 8, 0},
		HardState: HardState{Term: 5, Vote: 2, Commit: 60, Stored: true},
		Snapshot:  Position{40, 3}, SnapshotInFile: true, snapshot: want[atSnapshotData:1058],
	})
	if m.sequence != 7 {
		t.Errorf("sequence %d, want 7", m.sequence)
	}
	s, err := m.SnapshotProto()
	must(t, err)
	if got := s.GetMetadata().GetConfState().GetVoters(); !reflect.DeepEqual(got, []uint64{1, 2, 3}) {
		t.Errorf("voters %v, want 1 2 3", got)
	}
	got := make([]byte, page.Size)
	m.Encode(got, nil)
	if diff := golden.Diff(got, want); diff != "" {
		t.Errorf("encoded again: %s", diff)
	}
}

func randomMeta(t testing.TB, r *rand.Rand) Meta {
	n := func() uint64 { return r.Uint64() >> r.Intn(64) }
	m := Meta{
		RaftID: n(), GroupID: n(), Checkpoint: n(), LogID: n(), Clean: r.Intn(2) == 0, Encrypted: r.Intn(2) == 0,
		SyncPolicy: r.Uint32(), Compacted: Position{n(), n()}, FirstFile: n(), Durable: End{n(), int64(n() >> 1), r.Uint32()},
		ClearedBelow: n(), ClearedEnd: End{n(), int64(n() >> 1), 0}, sequence: n(),
	}
	if r.Intn(2) == 0 {
		m.HardState = HardState{Term: n(), Vote: n(), Commit: n(), Stored: true}
	}
	if r.Intn(4) > 0 {
		must(t, m.SetSnapshot(snapshotOf(n(), r.Intn(maxSnapshot-64)), r.Intn(2) == 0))
	}
	return m
}

func TestPageRoundTrip(t *testing.T) {
	r := seeded(t)
	p := make([]byte, page.Size)
	for range 1000 {
		want := randomMeta(t, r)
		want.Encrypted = false
		want.Encode(p, nil)
		got, err := Decode(p)
		must(t, err)
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("decoded\n%+v, want\n%+v", got, want)
		}
	}
}

// TestHardStateBytes: the hand-written encoding is the one of proto.Marshal.
func TestHardStateBytes(t *testing.T) {
	for _, h := range []HardState{{Stored: true}, {1, 2, 3, true}, {1 << 63, ^uint64(0), 300, true}} {
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(&raftpb.HardState{Term: &h.Term, Vote: &h.Vote, Commit: &h.Commit})
		must(t, err)
		p := make([]byte, 4+maxHardState)
		h.encode(p)
		if got := p[4 : 4+page.Order.Uint32(p)]; golden.Diff(got, want) != "" {
			t.Errorf("%+v: % x, want % x", h, got, want)
		}
	}
}

func TestEveryFlippedByte(t *testing.T) {
	want := golden.Read(t, "testdata/page.hex", page.Size)
	used := int(page.Order.Uint32(want[atUsed:]))
	p := make([]byte, page.Size)
	for at := range used {
		for bit := range 8 {
			copy(p, want)
			p[at] ^= 1 << bit
			if _, err := Decode(p); err == nil {
				t.Errorf("bit %d of byte %d flipped: no error", bit, at)
			}
		}
	}
}

// TestSealedNonsense: pages that are checked, but hold what cannot be.
func TestSealedNonsense(t *testing.T) {
	put := func(at int, v uint32) func([]byte) { return func(p []byte) { page.Order.PutUint32(p[at:], v) } }
	tests := []struct {
		name   string
		change func(p []byte)
		want   error // nil: any
	}{
		{"newer version", put(atVersion, Version+1), ErrVersion},
		{"older version", put(atVersion, 0), ErrVersion},
		{"hard state too long", put(atHardState, maxHardState+1), nil},
		{"hard state unreadable", put(atHardState+4, ^uint32(0)), nil},
		{"snapshot too long", put(atSnapshot+16, 1<<31), nil},
		{"snapshot longer than the bytes in use", put(atSnapshot+16, 15), nil},
		{"snapshot unreadable", put(atSnapshotData, ^uint32(0)), nil},
		{"snapshot of another index", put(atSnapshot+4, 41), nil},
		{"snapshot of another term", put(atSnapshot+12, 4), nil},
	}
	for _, test := range tests {
		p := golden.Read(t, "testdata/page.hex", page.Size)
		test.change(p)
		reseal(p)
		if _, err := Decode(p); err == nil || !errors.Is(err, test.want) && test.want != nil {
			t.Errorf("%s: error %v, want %v", test.name, err, test.want)
		}
	}
}

func TestBytesInUse(t *testing.T) {
	for _, used := range []uint32{0, atSnapshotData - 1, page.Size + 1, ^uint32(0)} {
		p := golden.Read(t, "testdata/page.hex", page.Size)
		page.Order.PutUint32(p[atUsed:], used)
		_, err := Decode(p)
		wantErr(t, err, errChecksum)
	}
	_, err := Decode(make([]byte, page.Size-1))
	if err == nil {
		t.Error("a short page was decoded")
	}
	_, err = Decode(make([]byte, page.Size))
	wantErr(t, err, errNotOurs)
}

func TestSetSnapshot(t *testing.T) {
	var m Meta
	must(t, m.SetSnapshot(snapshotOf(9, maxSnapshot-40), false))
	before := m
	wantErr(t, m.SetSnapshot(snapshotOf(10, maxSnapshot), false), ErrTooLarge)
	if !reflect.DeepEqual(m, before) {
		t.Error("a snapshot that was refused changed the meta")
	}
	must(t, m.SetSnapshot(snapshotOf(10, 1<<20), true))
	s, err := m.SnapshotProto()
	must(t, err)
	if m.Snapshot != (Position{10, 11}) || !m.SnapshotInFile || s.GetData() != nil {
		t.Errorf("snapshot %+v in a file: %t, %d bytes of data", m.Snapshot, m.SnapshotInFile, len(s.GetData()))
	}

	members := &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{ConfState: &raftpb.ConfState{Voters: make([]uint64, 200)}}}
	for i := range members.Metadata.ConfState.Voters {
		members.Metadata.ConfState.Voters[i] = ^uint64(0)
	}
	must(t, m.SetSnapshot(members, true)) // 200 members fit, whatever their ids
	members.Metadata.ConfState.Voters = make([]uint64, maxSnapshot)
	wantErr(t, m.SetSnapshot(members, true), ErrTooLarge)
}

// TestEmptySnapshot: the parts that raft relies on are never nil.
func TestEmptySnapshot(t *testing.T) {
	for _, m := range []Meta{{}, {snapshot: []byte{}}} {
		s, err := m.SnapshotProto()
		must(t, err)
		if s.GetMetadata() == nil || s.Metadata.ConfState == nil {
			t.Errorf("%+v has nil parts", s)
		}
	}
	m := Meta{snapshot: []byte{0xff}}
	if _, err := m.SnapshotProto(); err == nil {
		t.Error("an unreadable snapshot was read")
	}
}
