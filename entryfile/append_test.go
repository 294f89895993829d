package entryfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"go.etcd.io/raft/v3/raftpb"
)

// shapes returns entries of all sizes that are handled differently.
func shapes() (es []*raftpb.Entry) {
	sizes := []int{0, 1, 7, 8, 1 << 20}
	for n := 4063 - RecordHeaderBytes; n <= 4100; n++ {
		sizes = append(sizes, n)
	}
	for _, n := range sizes {
		e := plain(uint64(len(es)+1), uint64(len(es)+2), n)[0]
		es = append(es, e)
	}
	null := entry(uint64(len(es)+1), 1, "")
	null.Data = nil
	for i, typ := range []raftpb.EntryType{raftpb.EntryNormal, raftpb.EntryConfChange, raftpb.EntryConfChangeV2} {
		e := entry(null.GetIndex()+1+uint64(i), 2, "")
		e.Type = typ.Enum()
		if i == 0 {
			e.Data = nil
		}
		es = append(es, null, e)
		null = entry(e.GetIndex()+4, 2, "")
	}
	for i := range es {
		*es[i].Index = uint64(i + 1)
	}
	return es
}

func TestRoundTrip(t *testing.T) {
	es := shapes()
	f := prepare(t, es...)
	wantEntries(t, f, es)
	s, err := f.Scan()
	must(t, err)
	if s.End != f.End() || s.Rest != 0 || s.Witness != 0 || s.Mark != DataStart || s.Index.Last() != f.Last() {
		t.Errorf("scanned %+v", s)
	}
	end := f.End()
	g := reopen(t, f)
	must(t, g.Continue(end, false))
	wantEntries(t, g, es)
	must(t, g.Seal())
	wantEntries(t, g, es)
	g = reopen(t, g)
	if !g.Sealed() || g.End() != end || g.Durable() != end || g.Number() != 7 || g.Prev() != 6 || g.Size() != DataStart+4<<20 {
		t.Errorf("%+v", g.header)
	}
	wantEntries(t, g, es)
	s, err = g.Check()
	must(t, err)
	if s.Index.Len() != uint64(len(es)) {
		t.Errorf("checked %d entries, want %d", s.Index.Len(), len(es))
	}
}

func TestEmptyFile(t *testing.T) {
	f := prepare(t)
	wantEntries(t, f, nil)
	if f.End() != DataStart || f.Durable() != DataStart || f.Sealed() {
		t.Errorf("end %d, durable %d, sealed %t", f.End(), f.Durable(), f.Sealed())
	}
	must(t, f.Append(nil, 0))
	must(t, f.Sync())
	must(t, f.Reserve(0))
	must(t, f.Seal())
	f = reopen(t, f)
	wantEntries(t, f, nil)
	if s, err := f.Check(); err != nil || s.Index.Len() != 0 || s.Index.First() != 0 {
		t.Errorf("checked %+v, error %v", s, err)
	}
	_, err := f.Locate(nil, 1)
	wantCorrupt(t, err)
}

// TestReplacedSuffix: the later record wins, at once, after Scan and after
// Continue.
func TestReplacedSuffix(t *testing.T) {
	for _, from := range []uint64{11, 15, 20, 21} {
		old := entries(11, 21, 1)
		f := prepare(t, old...)
		save(t, f, entries(from, from+4, 2))
		want := append(old[:from-11:from-11], entries(from, from+4, 2)...)
		wantEntries(t, f, want)
		end := f.End()
		must(t, f.SyncSlots())

		f = reopen(t, f)
		s, err := f.Scan()
		must(t, err)
		f.Resume(s)
		wantEntries(t, f, want)

		f = reopen(t, f)
		must(t, f.Continue(end, false))
		wantEntries(t, f, want)
		must(t, f.Seal())
		wantEntries(t, reopen(t, f), want)
	}
}

// TestContinueAppends: a file that was closed cleanly takes more entries, fewer
// slots than before included.
func TestContinueAppends(t *testing.T) {
	f := prepare(t, entries(1, 300, 1)...)
	must(t, f.SyncSlots())
	end := f.End()
	f = reopen(t, f)
	must(t, f.Continue(end, false))
	save(t, f, entries(100, 150, 2))
	must(t, f.SyncSlots())
	want := append(entries(1, 100, 1), entries(100, 150, 2)...)
	wantEntries(t, f, want)
	end = f.End()
	f = reopen(t, f)
	must(t, f.Continue(end, false))
	wantEntries(t, f, want)
	if f.Stale() {
		t.Error("the slots were not as they should be")
	}
	save(t, f, entries(150, 400, 3))
	must(t, f.Seal())
	wantEntries(t, reopen(t, f), append(want, entries(150, 400, 3)...))
}

// TestIndexCopy: a copy of the index stays as it is, read without a lock.
func TestIndexCopy(t *testing.T) {
	f := prepare(t, entries(1, 101, 1)...)
	copied := f.Index()
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !done.Load() {
				checkCopy(t, f, copied)
			}
		})
	}
	term := uint64(2)
	for _, from := range []uint64{101, 150, 60, 1, 2, 90} {
		save(t, f, entries(from, from+100, term))
		term++
	}
	done.Store(true)
	wg.Wait()
	checkCopy(t, f, copied)
}

func checkCopy(t *testing.T, f *File, x Index) {
	if x.Len() != 100 || x.First() != 1 || x.Last() != 100 || x.Has(0) || x.Has(101) {
		t.Errorf("the copy has %d entries, %d to %d", x.Len(), x.First(), x.Last())
	}
	b := &Batch{MaxBytes: 1 << 30}
	if _, err := f.Read(&x, 1, 101, b); err != nil {
		t.Error(err)
	}
	for i, e := range b.Entries() {
		if e.GetTerm() != 1 || e.GetIndex() != uint64(i)+1 {
			t.Errorf("entry %d of term %d in the copy", e.GetIndex(), e.GetTerm())
		}
	}
}

func TestRoomForSlots(t *testing.T) {
	f, err := Prepare(vfs.OS(), t.TempDir(), spec(4<<20), 0)
	must(t, err)
	defer f.Discard()
	es := plain(1, MaxSlots+11, 0)
	if n, bytes := f.Room(es); n != MaxSlots || bytes != MaxSlots*32 {
		t.Errorf("room for %d entries, %d bytes", n, bytes)
	}
	if n, _ := (&Spec{DataBytes: 4 << 20}).Fit(es); n != MaxSlots {
		t.Errorf("%d entries fit", n)
	}
	save(t, f, es[:MaxSlots-1])
	if n, _ := f.Room(es[MaxSlots-1:]); n != 1 {
		t.Errorf("room for %d entries, want 1", n)
	}
	save(t, f, es[MaxSlots-1:MaxSlots])
	if n, _ := f.Room(es[MaxSlots:]); n != 0 {
		t.Errorf("room for %d entries in a full file", n)
	}
	if n, _ := f.Room(es[MaxSlots-5:]); n != 5 {
		t.Errorf("room for %d entries that replace five", n)
	}
	save(t, f, plain(MaxSlots-4, MaxSlots+1, 3))
	must(t, f.Publish())
	must(t, f.Seal())
	wantEntries(t, f, append(es[:MaxSlots-5:MaxSlots-5], plain(MaxSlots-4, MaxSlots+1, 3)...))
}

func TestRoomForData(t *testing.T) {
	f := prepare(t)
	const each = 1<<20 - RecordHeaderBytes - 8 // so that four leave room for the record that ends the file
	es := plain(1, 8, each)
	if n, bytes := f.Room(es); n != 4 || bytes != 4<<20-32 {
		t.Errorf("room for %d entries, %d bytes", n, bytes)
	}
	if n, bytes := (&Spec{DataBytes: 4*RecordBytes(each) + RecordBytes(0) - 1}).Fit(es); n != 3 || bytes != 3<<20-24 {
		t.Errorf("%d entries fit, %d bytes", n, bytes)
	}
	save(t, f, es[:4])
	tests := []struct {
		name string
		es   []*raftpb.Entry
	}{
		{"an entry without data", plain(5, 6, 0)},
		{"a replaced suffix", plain(2, 3, 0)}, // its space is not free
		{"nothing", nil},
	}
	for _, test := range tests {
		if n, bytes := f.Room(test.es); n != 0 || bytes != 0 {
			t.Errorf("%s: room for %d entries, %d bytes in a full file", test.name, n, bytes)
		}
	}
	wantEntries(t, f, es[:4])
	must(t, f.Seal())
	if n, _ := f.Room(plain(5, 6, 0)); n != 0 {
		t.Error("room in a sealed file")
	}
	wantEntries(t, reopen(t, f), es[:4])
}

func TestRoomBehindAGap(t *testing.T) {
	f := prepare(t, entries(10, 20, 1)...)
	for first, want := range map[uint64]int{9: 0, 10: 1, 19: 1, 20: 1, 21: 0} {
		if n, _ := f.Room(plain(first, first+1, 0)); n != want {
			t.Errorf("room for %d entries at %d, want %d", n, first, want)
		}
	}
}

// TestReserveFails: a full disk changes nothing, and it can be tried again.
func TestReserveFails(t *testing.T) {
	var hook vfstest.Switch
	f := prepareOn(t, vfstest.New(vfs.OS(), hook.Before), t.TempDir(), entries(1, 10, 1)...)
	content, err := os.ReadFile(f.Path())
	must(t, err)
	hook.Set(vfstest.FailFrom(1, syscall.ENOSPC, vfstest.OpReserve))
	more := append(entries(10, 5000, 1), plain(5000, 5003, 1<<20-100)...)
	_, bytes := f.Room(more)
	wantErr(t, f.Reserve(bytes), syscall.ENOSPC)
	after, err := os.ReadFile(f.Path())
	must(t, err)
	if !slices.Equal(content, after) {
		t.Error("the content changed")
	}
	wantEntries(t, f, entries(1, 10, 1))
	hook.Set(nil)
	save(t, f, more)
	wantEntries(t, f, append(entries(1, 10, 1), more...))
}

// TestReserveLess: when the usual step does not fit, what is needed may.
func TestReserveLess(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO} {
		fsys := vfstest.New(vfs.OS(), vfstest.FailNth(1, errno, vfstest.OpReserve))
		f, err := Prepare(fsys, t.TempDir(), spec(4<<20), 100)
		if errno == syscall.EIO {
			wantErr(t, err, errno)
			continue
		}
		must(t, err)
		if want := int64(DataStart + page.Size); f.reserved.Load() != want {
			t.Errorf("reserved up to %d, want %d", f.reserved.Load(), want)
		}
		f.Discard()
	}
}

// TestReserveEnd: a new file has room for the record that ends it, too, on a disk that is
// nearly full.
func TestReserveEnd(t *testing.T) {
	for _, synced := range []bool{true, false} {
		s := spec(4 << 20)
		s.Synced = synced
		fsys := vfstest.New(vfs.OS(), vfstest.FailNth(1, syscall.ENOSPC, vfstest.OpReserve))
		f, err := Prepare(fsys, t.TempDir(), s, page.Size)
		must(t, err)
		if want := int64(DataStart + 2*page.Size); f.reserved.Load() != want {
			t.Errorf("synced %t: reserved up to %d, want %d", synced, f.reserved.Load(), want)
		}
		f.Discard()
	}
}

// TestPrepareCuts: whatever fails, nothing is left behind.
func TestPrepareCuts(t *testing.T) {
	s := spec(1 << 20)
	s.Synced = true
	for n := 1; ; n++ {
		dir := t.TempDir()
		fsys := vfstest.New(vfs.OS(), vfstest.FailNth(n, syscall.EIO))
		f, err := Prepare(fsys, dir, s, 100)
		if err == nil {
			if n < 10 {
				t.Errorf("only %d operations failed", n-1)
			}
			f.Discard()
			wantNoFile(t, dir)
			return
		}
		wantErr(t, err, syscall.EIO)
		wantNoFile(t, dir)
	}
}

func TestPublishFails(t *testing.T) {
	for _, op := range []vfstest.Op{vfstest.OpRename, vfstest.OpSyncDir} {
		dir := t.TempDir()
		f, err := Prepare(vfstest.New(vfs.OS(), vfstest.FailNth(1, syscall.EIO, op)), dir, spec(1<<20), 0)
		must(t, err)
		wantErr(t, f.Publish(), syscall.EIO)
		f.Discard()
	}
}

// TestOneSyncPerAppend: an append costs one sync of one range, nothing new none.
func TestOneSyncPerAppend(t *testing.T) {
	fsys := vfstest.New(vfs.OS(), nil)
	f := prepareOn(t, fsys, t.TempDir(), entries(1, 10, 1)...)
	fsys.Reset()
	save(t, f, entries(10, 20, 1))
	must(t, f.Sync())
	syncs := []vfstest.Op{vfstest.OpMsync, vfstest.OpSync, vfstest.OpSyncDir}
	if n := fsys.Count(syncs...); n != 1 {
		t.Errorf("%d syncs, want 1", n)
	}
	if f.Durable() != f.End() {
		t.Errorf("durable up to %d, end %d", f.Durable(), f.End())
	}
}

// TestWritesFail: the errors of stores and syncs come through.
func TestWritesFail(t *testing.T) {
	steps := map[string]func(f *File) error{
		"append small": func(f *File) error { return f.Append(entries(10, 20, 1), 0) },
		"append large": func(f *File) error { return f.Append(plain(10, 11, 5000), 0) },
		"seal":         func(f *File) error { return f.Seal() },
		"sync": func(f *File) error {
			return errors.Join(f.Append(entries(10, 20, 1), 0), f.Sync())
		},
		"restore header": func(f *File) error { return f.RestoreHeader() },
		"recover": func(f *File) error {
			s, err := f.Scan()
			return errors.Join(err, f.Recover(s, DataStart))
		},
		"reseal": func(f *File) error { return errors.Join(f.Seal(), f.Reseal(5)) },
		"clear": func(f *File) error {
			_, err := clearBelow(f, 5)
			return errors.Join(f.Seal(), func() error { _, err = clearBelow(f, 5); return err }())
		},
	}
	for name, step := range steps {
		for n := 1; ; n += 1 + n/8 { // recovery alone stores hundreds of pages
			var hook vfstest.Switch
			f := prepareOn(t, vfstest.New(vfs.OS(), hook.Before), t.TempDir(), entries(1, 10, 1)...)
			must(t, f.Reserve(10000))
			hook.Set(vfstest.FailNth(n, syscall.EIO))
			err := step(f)
			hook.Set(nil)
			_ = f.Release()
			if err == nil {
				if n == 1 {
					t.Errorf("%s: nothing was written", name)
				}
				break
			}
			wantErr(t, err, syscall.EIO)
		}
	}
}

func TestPins(t *testing.T) {
	f := prepare(t, entries(1, 10, 1)...)
	if !f.Pin() {
		t.Fatal("an open file cannot be pinned")
	}
	must(t, f.Release())
	wantEntries(t, f, entries(1, 10, 1)) // the pin keeps it mapped
	must(t, f.Release())
	if f.Pin() {
		t.Error("a closed file was pinned")
	}
}

func TestPinsConcurrently(t *testing.T) {
	f := prepare(t, entries(1, 10, 1)...)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 { // together they may keep it open for ever
				if !f.Pin() {
					return
				}
				if _, err := get(f, 1, 10, 0); err != nil {
					t.Error(err)
				}
				_ = f.Release()
			}
		})
	}
	_ = f.Release()
	wg.Wait()
	if f.Pin() {
		t.Error("a closed file was pinned")
	}
}

func TestPathAndNames(t *testing.T) {
	dir := t.TempDir()
	f, err := Prepare(vfs.OS(), dir, spec(MinDataBytes+1), 0)
	must(t, err)
	defer f.Release()
	if want := int64(DataStart + MinDataBytes + page.Size); f.Size() != want {
		t.Errorf("size %d, want %d", f.Size(), want)
	}
	_, err = os.Stat(filepath.Join(dir, "00007.wal.tmp"))
	must(t, err)
	must(t, f.Publish())
	if f.Path() != filepath.Join(dir, "00007.wal") {
		t.Error(f.Path())
	}
	info, err := os.Stat(f.Path())
	must(t, err)
	if info.Size() != f.Size() || info.Mode().Perm() != 0o600 {
		t.Error(fmt.Sprint(info.Size(), info.Mode()))
	}
}
