package entryfile

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"go.etcd.io/raft/v3/raftpb"
)

// reused returns an empty file made of one that had n entries.
func reused(t *testing.T, n uint64) *File {
	t.Helper()
	old := prepare(t, entries(1, n+1, 1)...)
	must(t, old.Terminate())
	must(t, old.Seal())
	must(t, old.Release())
	spare := SpareName(old.Number())
	must(t, os.Rename(old.Path(), filepath.Join(old.dir, spare)))
	s := spec(4 << 20)
	s.Number, s.Salt = 8, testSalt+1
	f, err := Reuse(vfs.OS(), old.dir, spare, s, 0)
	must(t, err)
	must(t, f.Publish())
	return f
}

// TestPlainSpare: a spare file that is not encrypted is refused where an encrypted one is to be
// made, whatever its name.
func TestPlainSpare(t *testing.T) {
	keys, err := encryption.NewDirectoryKey(rand.Reader, testLog, 32)
	must(t, err)
	for name, encrypted := range map[string]bool{"plain": false, "encrypted": true} {
		s := spec(4 << 20)
		if encrypted {
			s.Keys, s.Random = keys, rand.Reader
		}
		old, err := Prepare(vfs.OS(), t.TempDir(), s, 0)
		must(t, err)
		must(t, old.Publish())
		save(t, old, entries(1, 10, 1))
		must(t, old.Seal())
		must(t, old.Release())
		spare := SpareName(old.Number())
		must(t, os.Rename(old.Path(), filepath.Join(old.dir, spare)))
		s.Number, s.Keys, s.Random = 8, keys, rand.Reader
		f, err := Reuse(vfs.OS(), old.dir, spare, s, 0)
		if encrypted {
			must(t, err)
			must(t, f.Release())
		} else if !errors.Is(err, ErrUnfit) {
			t.Errorf("%s: error %v, want %v", name, err, ErrUnfit)
		}
	}
}

// lastSlotInUse returns the end of the last byte among the slots that is not zero.
func lastSlotInUse(t *testing.T, f *File) int64 {
	t.Helper()
	content, err := os.ReadFile(f.Path())
	must(t, err)
	end := int64(MaxSlots * SlotBytes)
	for end > 0 && content[end-1] == 0 {
		end--
	}
	return roundUp(end, SlotBytes)
}

// TestLeftoverSlots: slots of an earlier life of the file are no entries, whatever comes
// next, and they are gone when it is sealed or closed.
func TestLeftoverSlots(t *testing.T) {
	const before = 1000
	for _, n := range []uint64{0, 1, 127, 128, 129, 999, 1000, 1001, 2000} {
		es := entries(1, n+1, 2)
		f := reused(t, before)
		save(t, f, es)
		if end := lastSlotInUse(t, f); end != before*SlotBytes {
			t.Errorf("%d entries: slots up to %d are not zero", n, end)
		}
		t.Run("sealed", func(t *testing.T) { sealed(t, f, es) })
		f = reused(t, before)
		save(t, f, es)
		t.Run("closed", func(t *testing.T) { closed(t, f, es) })
		f = reused(t, before)
		save(t, f, es)
		t.Run("killed", func(t *testing.T) { killed(t, f, es) })
	}
}

// TestSlotsFollow: however entries come, are replaced, and the file is opened again, SyncSlots
// has the slots show them, and is not needed any more.
func TestSlotsFollow(t *testing.T) {
	rng := seeded(t)
	for _, f := range []*File{prepare(t), reused(t, 1000)} {
		var es []*raftpb.Entry
		for term := uint64(1); term < 40; term++ {
			keep := uint64(rng.Intn(len(es) + 1))
			more := entries(keep+1, keep+2+uint64(rng.Intn(400)), term)
			save(t, f, more)
			es = append(es[:keep:keep], more...)
			if rng.Intn(2) == 0 {
				continue
			}
			if !f.Stale() {
				t.Fatalf("term %d: the slots show what was not written yet", term)
			}
			must(t, f.SyncSlots())
			wantSlots(t, f, es)
			if f.Stale() {
				t.Fatalf("term %d: the slots are to be written once more", term)
			}
			if end := f.End(); rng.Intn(2) == 0 {
				f = reopen(t, f)
				must(t, f.Continue(end, false))
				wantEntries(t, f, es)
				if f.Stale() {
					t.Fatalf("term %d: the slots are taken for damaged", term)
				}
			}
		}
		sealed(t, f, es)
	}
}

// TestSlotsAreSynced: all of them, in pieces.
func TestSlotsAreSynced(t *testing.T) {
	fsys := vfstest.New(vfs.OS(), nil)
	f := prepareOn(t, fsys, t.TempDir(), entries(1, 20_001, 1)...)
	before := fsys.Count(vfstest.OpMsync)
	must(t, f.SyncSlots())
	if got, want := fsys.Count(vfstest.OpMsync)-before, (20_000*SlotBytes+slotPiece-1)/slotPiece; int64(got) != int64(want) {
		t.Errorf("%d syncs, want %d", got, want)
	}
}

// TestSlotsOfACutFile: a file that somebody has cut short is not made longer.
func TestSlotsOfACutFile(t *testing.T) {
	f := prepare(t, entries(1, 2000, 1)...)
	must(t, os.Truncate(f.Path(), page.Size))
	wantCorrupt(t, f.SyncSlots())
	if info, err := os.Stat(f.Path()); err != nil || info.Size() != page.Size {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
}

// TestLeftIn: of a spare file no more is taken for granted than both header pages tell.
func TestLeftIn(t *testing.T) {
	f := prepare(t, entries(1, 301, 1)...)
	must(t, f.Terminate())
	must(t, f.Seal())
	want := func(what string, written int64, slots uint64) {
		t.Helper()
		file, err := vfs.OS().Open(f.Path(), true)
		must(t, err)
		defer file.Close()
		if w, s := leftIn(file); w != written || s != slots {
			t.Errorf("%s: written up to %d, %d slots, want %d and %d", what, w, s, written, slots)
		}
	}
	want("sealed", roundUp(f.End(), page.Size), 300)
	for _, at := range HeaderPages {
		flip(t, f, at+100)
		want("a damaged page", DataStart, MaxSlots)
		flip(t, f, at+100)
	}
	_, err := f.Clear(recordAt(t, f, 100))
	must(t, err)
	want("cleared", DataStart, 300)
	empty := prepare(t)
	file, err := vfs.OS().Open(empty.Path(), true)
	must(t, err)
	defer file.Close()
	if w, s := leftIn(file); w != DataStart || s != MaxSlots {
		t.Errorf("never sealed: written up to %d, %d slots", w, s)
	}
}

func sealed(t *testing.T, f *File, es []*raftpb.Entry) {
	must(t, f.Terminate())
	must(t, f.Seal())
	wantSlots(t, f, es)
	wantEntries(t, reopen(t, f), es)
}

func closed(t *testing.T, f *File, es []*raftpb.Entry) {
	must(t, f.SyncSlots())
	wantSlots(t, f, es)
	end := f.End()
	f = reopen(t, f)
	must(t, f.Continue(end, false))
	wantEntries(t, f, es)
	if f.Stale() {
		t.Error("the slots are taken for damaged")
	}
}

func killed(t *testing.T, f *File, es []*raftpb.Entry) {
	f = reopen(t, f)
	s, err := f.Scan()
	must(t, err)
	must(t, f.Recover(s, DataStart))
	wantSlots(t, f, es)
	wantEntries(t, f, es)
}

func wantSlots(t *testing.T, f *File, es []*raftpb.Entry) {
	t.Helper()
	if end := lastSlotInUse(t, f); end != int64(len(es))*SlotBytes {
		t.Errorf("slots up to %d are not zero, for %d entries", end, len(es))
	}
}

// TestReadyAheadOfNothing: nothing is made ready in a file that is sealed, or whose records are
// not synced one by one.
func TestReadyAheadOfNothing(t *testing.T) {
	f := synced(t, vfs.OS(), 4<<20)
	save(t, f, entries(1, 10, 1))
	must(t, f.ReadyAhead(3<<20))
	if f.Ahead(3 << 20) {
		t.Fatal("all of it was made ready at once")
	}
	must(t, f.Terminate())
	must(t, f.Seal())
	if !f.Ahead(3 << 20) {
		t.Error("there is something to be made ready")
	}
	must(t, f.ReadyAhead(3<<20))
	f = prepare(t, entries(1, 10, 1)...)
	taken := f.taken.Load()
	must(t, f.ReadyAhead(3<<20))
	if !f.Ahead(3<<20) || f.taken.Load() != taken {
		t.Error("something was made ready")
	}
}

// TestReadyAheadKeepsRecords: zeros that are written ahead never meet a record, whenever
// they are written, whatever was stored, and wherever the file is opened again.
func TestReadyAheadKeepsRecords(t *testing.T) {
	f := synced(t, vfs.OS(), 4<<20)
	rng := seeded(t)
	ahead := func() { must(t, f.ReadyAhead(int64(rng.Intn(1<<20)))) }
	var es []*raftpb.Entry
	for last := uint64(0); last < 900; {
		n := 1 + uint64(rng.Intn(20))
		more := plain(last+1, last+1+n, rng.Intn(300))
		_, bytes := f.Room(more)
		must(t, f.Reserve(bytes))
		if rng.Intn(2) == 0 {
			ahead()
		}
		must(t, f.Append(more, 0))
		es, last = append(es, more...), last+n
		switch rng.Intn(4) {
		case 0:
			ahead()
		case 1:
			must(t, f.Sync())
			must(t, f.SyncSlots())
			end := f.End()
			f = reopen(t, f)
			must(t, f.Continue(end, true))
			ahead()
		}
		wantEntries(t, f, es)
	}
}

// TestReadyAheadOfANewFile: nor one of those that a new file was made for.
func TestReadyAheadOfANewFile(t *testing.T) {
	s := spec(16 << 20)
	s.Synced = true
	es := plain(1, 5, 1<<20)
	_, bytes := s.Fit(es)
	f, err := Prepare(vfs.OS(), t.TempDir(), s, bytes)
	must(t, err)
	t.Cleanup(f.Discard)
	must(t, f.Publish())
	must(t, f.Append(es, 0))
	for range 8 {
		must(t, f.ReadyAhead(4<<20))
	}
	wantEntries(t, f, es)
}

// TestReadyAheadBesideSaves is the same with both at once.
func TestReadyAheadBesideSaves(t *testing.T) {
	f := synced(t, vfs.OS(), 4<<20)
	rng := seeded(t)
	var es []*raftpb.Entry
	for last := uint64(0); last < 500; {
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := f.ReadyAhead(1 << 20); err != nil {
				t.Error(err)
			}
		})
		n := 1 + uint64(rng.Intn(20))
		more := plain(last+1, last+1+n, rng.Intn(8000))
		save(t, f, more)
		wg.Wait()
		es, last = append(es, more...), last+n
	}
	wantEntries(t, f, es)
}

// TestReadyAheadReserves: what is made ready has blocks; without any nothing is.
func TestReadyAheadReserves(t *testing.T) {
	var hook vfstest.Switch
	f := synced(t, vfstest.New(vfs.OS(), hook.Before), 4<<20)
	for !f.Ahead(2 << 20) {
		must(t, f.ReadyAhead(2<<20))
		if f.ready.Load() > f.reserved.Load() {
			t.Fatalf("ready up to %d, with blocks up to %d", f.ready.Load(), f.reserved.Load())
		}
	}
	before := f.ready.Load()
	hook.Set(vfstest.FailFrom(1, syscall.ENOSPC, vfstest.OpReserve))
	var err error
	for err == nil && !f.Ahead(4<<20) {
		err = f.ReadyAhead(4 << 20)
	}
	wantErr(t, err, syscall.ENOSPC)
	if ready := f.ready.Load(); ready < before || ready > f.reserved.Load() {
		t.Errorf("ready up to %d, with blocks up to %d", ready, f.reserved.Load())
	}
}

// TestReadyAheadFailsToSync: what the background could not write may hold records that were
// stored meanwhile, so the writer's own sync fails from then on.
func TestReadyAheadFailsToSync(t *testing.T) {
	var hook vfstest.Switch
	f := synced(t, vfstest.New(vfs.OS(), hook.Before), 4<<20)
	hook.Set(func(op vfstest.Op, name string) error {
		if op != vfstest.OpMsync {
			return nil
		}
		hook.Set(nil)
		es := plain(1, 10, 1000)
		_, bytes := f.Room(es)
		must(t, f.Reserve(bytes))
		must(t, f.Append(es, 0))
		return vfstest.Error(op, name, syscall.EIO)
	})
	wantErr(t, f.ReadyAhead(2<<20), syscall.EIO)
	wantErr(t, f.Sync(), syscall.EIO)
}

// TestReadyAheadOfACutFile: a file that somebody has cut short is not made longer.
func TestReadyAheadOfACutFile(t *testing.T) {
	f := synced(t, vfs.OS(), 4<<20)
	must(t, os.Truncate(f.Path(), DataStart+page.Size))
	wantCorrupt(t, f.ReadyAhead(3<<20))
	if info, err := os.Stat(f.Path()); err != nil || info.Size() != DataStart+page.Size {
		t.Errorf("%d bytes, %v", info.Size(), err)
	}
}

// TestReadyAheadWithoutDescriptors: what cannot be synced counts as ready neither then nor later.
func TestReadyAheadWithoutDescriptors(t *testing.T) {
	var hook vfstest.Switch
	f := synced(t, vfstest.New(vfs.OS(), hook.Before), 4<<20)
	ready, taken := f.ready.Load(), f.taken.Load()
	hook.Set(vfstest.FailFrom(1, syscall.EMFILE, vfstest.OpOpen))
	for range 3 {
		wantErr(t, f.ReadyAhead(3<<20), syscall.EMFILE)
	}
	if f.ready.Load() != ready || f.taken.Load() != taken {
		t.Errorf("ready up to %d, taken up to %d; want %d and %d", f.ready.Load(), f.taken.Load(), ready, taken)
	}
	hook.Set(nil)
	must(t, f.ReadyAhead(3<<20))
	if got := f.ready.Load(); got != ready+readyChunk {
		t.Errorf("ready up to %d, want %d", got, ready+readyChunk)
	}
}
