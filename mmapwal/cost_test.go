package mmapwal_test

import (
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// testLogCounted opens a log whose operations are counted, and warms it up.
func testLogCounted(t testing.TB, edits ...func(*mmapwal.Options)) (*mmapwal.DiskStorage, *vfstest.FS) {
	t.Helper()
	fsys := vfstest.New(vfs.OS(), nil)
	d := testLogOpen(t, t.TempDir(), append(edits, testLogOn(fsys))...)
	testLogSave(t, d, testLogHard(1, 1, 0), testLogEntries(1, 10, 1, 100))
	fsys.Reset()
	return d, fsys
}

// testLogCost checks what a Save of three entries and of term and commit does: besides syncs so
// many writes, behind so many looks at a size, and nothing else.
func testLogCost(t *testing.T, d *mmapwal.DiskStorage, fsys *vfstest.FS, term, commit uint64, msyncs, writes, sizes int) {
	t.Helper()
	last, err := d.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	es := testLogEntries(last+1, last+3, term, 100)
	fsys.Reset()
	testLogSave(t, d, testLogHard(term, 1, commit), es)
	synced, wrote, looked := fsys.Count(vfstest.OpMsync), fsys.Count(vfstest.OpWrite), fsys.Count(vfstest.OpSize)
	if synced != msyncs || wrote != writes || looked != sizes || fsys.Total() != msyncs+writes+sizes {
		t.Errorf("%d operations, of them %d msyncs, %d writes and %d looks at the size; want %d, %d and %d",
			fsys.Total(), synced, wrote, looked, msyncs, writes, sizes)
	}
}

// TestCostOfSave: under HardSync entries and a commit index cost one msync, a new
// term two more; under NoSync nothing is synced.
func TestCostOfSave(t *testing.T) {
	d, fsys := testLogCounted(t)
	for k := range uint64(5) {
		testLogCost(t, d, fsys, 1, k+1, 1, 2, 2)
	}
	testLogCost(t, d, fsys, 2, 6, 3, 3, 3)
	fsys.Reset()
	testLogSave(t, d, testLogHard(2, 1, 7), nil)
	if fsys.Total() != 2 || fsys.Count(vfstest.OpWrite) != 1 || fsys.Count(vfstest.OpSize) != 1 {
		t.Errorf("a commit index alone costs %d operations, want one write and one look at the size", fsys.Total())
	}
	fsys.Reset()
	testLogSave(t, d, testLogHard(2, 1, 7), nil)
	if fsys.Total() != 0 {
		t.Errorf("a Save of nothing new costs %d operations", fsys.Total())
	}
	d, fsys = testLogCounted(t, testLogNoSync)
	testLogCost(t, d, fsys, 1, 1, 0, 2, 1) // one page of records is looked for once
	testLogCost(t, d, fsys, 2, 2, 0, 2, 1)
}

// TestCostOfSaveGoingOn: the same holds in a file that is continued; but the first Save
// says that the log is in use.
func TestCostOfSaveGoingOn(t *testing.T) {
	dir := t.TempDir()
	testLogClose(t, testLogBase(t, dir))
	fsys := vfstest.New(vfs.OS(), nil)
	d := testLogOpen(t, dir, testLogOn(fsys))
	if n := fsys.Count(vfstest.OpMsync, vfstest.OpWrite); n != 0 {
		t.Errorf("opening costs %d msyncs and writes", n)
	}
	fsys.Reset()
	testLogSave(t, d, testLogHard(3, 1, 30), testLogEntries(31, 33, 3, 100))
	d.WaitForBackground()
	if n := fsys.Count(vfstest.OpMsync); n < 3 { // there may be more in the background
		t.Errorf("the first Save costs %d msyncs, want at least 3", n)
	}
	testLogCost(t, d, fsys, 3, 31, 1, 2, 2)
	testLogCost(t, d, fsys, 3, 32, 1, 2, 2)
}

// TestCostOfLargeSave: the disk begins to write one while the rest is collected.
func TestCostOfLargeSave(t *testing.T) {
	d, fsys := testLogCounted(t, func(o *mmapwal.Options) { o.FileDataSize = 16 << 20 })
	testLogSave(t, d, nil, testLogEntries(11, 14, 1, 1<<20))
	if n := fsys.Count(vfstest.OpStart); n < 24 || n > 33 {
		t.Errorf("of 4 MiB, writing was begun %d times, want every 128 KiB or so", n)
	}
	fsys.Reset()
	testLogSave(t, d, nil, testLogEntries(15, 18, 1, 30_000))
	if n := fsys.Count(vfstest.OpStart); n != 0 {
		t.Errorf("of 120 KB, writing was begun %d times", n)
	}
}

// TestCostOfDirectSave: a Save that is large, but not too large for the cache of the log, and
// synced alone is one write around the page cache; others go through it.
func TestCostOfDirectSave(t *testing.T) {
	large := testLogEntries(11, 14, 1, 25_000)
	save := func(d *mmapwal.DiskStorage) error { return d.Save(nil, large, nil) }
	async := func(d *mmapwal.DiskStorage) error {
		done := make(chan error, 1)
		d.SaveAsync(nil, large, nil, func(err error) { done <- err })
		return <-done
	}
	tests := map[string]struct {
		cache int64
		edit  func(*mmapwal.Options)
		save  func(*mmapwal.DiskStorage) error
		want  int
	}{
		"Save":            {0, nil, save, 1},
		"a small cache":   {40_000, nil, save, 0},
		"no cache":        {-1, nil, save, 0},
		"SaveAsync":       {0, nil, async, 0},
		"BatchSync":       {0, func(o *mmapwal.Options) { o.Sync = mmapwal.BatchSync(1000, time.Hour) }, save, 0},
		"NoSync":          {0, testLogNoSync, save, 0},
		"Save, encrypted": {0, testLogEncrypted, save, 1},
		"a cache just so": {60_000, nil, save, 1},
	}
	for name, test := range tests {
		edits := []func(*mmapwal.Options){testCache(test.cache)}
		if test.edit != nil {
			edits = append(edits, test.edit)
		}
		d, fsys := testLogCounted(t, edits...)
		if err := test.save(d); err != nil {
			t.Fatal(err)
		}
		if n := fsys.Count(vfstest.OpDirect); n != test.want {
			t.Errorf("%s: %d writes around the page cache, want %d", name, n, test.want)
		}
		if n := d.DirectBytes(time.Nanosecond); n != 0 {
			t.Errorf("%s: %d bytes may go around the page cache of a Save that others wait with", name, n)
		}
		testLogClose(t, d)
	}
}

// TestCostOfSharedSync: Saves that share a sync share its look at the file's size.
func TestCostOfSharedSync(t *testing.T) {
	disk := newTestSlowDisk()
	d := testLogOpen(t, t.TempDir(), testLogOn(disk))
	testLogSave(t, d, nil, testLogEntries(1, 1, 1, 100))
	disk.Reset()
	disk.close()
	var a testAsync
	for i := uint64(2); i <= 6; i++ {
		d.SaveAsync(nil, testLogEntries(i, i, 1, 100), nil, a.done("saved"))
	}
	if n := disk.Count(vfstest.OpSize); n != 1 {
		t.Errorf("the size was asked for %d times for 5 Saves, want once", n)
	}
	disk.open(nil)
	testLogEventually(t, "all are durable", func() bool { return d.Stats().PendingSaves == 0 })
}

// TestCostOfSequentialReads: pages of a sealed file are asked for four chunks of 64 KiB at
// a time when it is read in order, one at a time when not, and never again.
func TestCostOfSequentialReads(t *testing.T) {
	dir := t.TempDir()
	edits := []func(*mmapwal.Options){testLogNoSync, func(o *mmapwal.Options) { o.FileDataSize = 4 << 20 }}
	d := testLogOpen(t, dir, edits...)
	for i := uint64(1); i <= 600; i += 10 {
		testLogSave(t, d, nil, testLogEntries(i, i+9, 1, 10_000))
	}
	testLogClose(t, d)
	fsys := vfstest.New(vfs.OS(), nil)
	d = testLogOpen(t, dir, append(edits, testLogOn(fsys))...)
	asked := func(lo, hi uint64) int {
		fsys.Reset()
		for i := lo; i < hi; i++ {
			if _, err := d.Entries(i, i+1, math.MaxUint64); err != nil {
				t.Fatal(err)
			}
		}
		return fsys.Count(vfstest.OpPopulate)
	}
	if n := asked(1, 200); n < 8 || n > 11 { // slots, a chunk, and some 30 more
		t.Errorf("2 MB in order: asked %d times", n)
	}
	if n := asked(1, 200); n != 0 {
		t.Errorf("again: asked %d times", n)
	}
	if n := asked(300, 301); n < 1 || n > 2 {
		t.Errorf("one entry elsewhere: asked %d times", n)
	}
}

// TestCostOfReads: reads ask the file system for nothing.
func TestCostOfReads(t *testing.T) {
	d, fsys := testLogCounted(t)
	testLogContent(t, d)
	if fsys.Total() != 0 {
		t.Errorf("reads cost %d operations", fsys.Total())
	}
}

// testLogMany makes a log of n small entries over several files.
func testLogMany(t testing.TB, n uint64) *mmapwal.DiskStorage {
	t.Helper()
	d := testLogOpen(t, t.TempDir(), testLogNoSync)
	for from := uint64(1); from < n; from += 1000 {
		testLogSave(t, d, testLogHard(1, 1, 0), testLogEntries(from, from+999, 1, 200))
	}
	d.WaitForBackground() // which allocates, too
	return d
}

func testLogAllocs(t *testing.T, what string, want float64, call func() error) {
	t.Helper()
	got := testing.AllocsPerRun(50, func() {
		if err := call(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("%s: %v allocations", what, got)
	if got > want {
		t.Errorf("%s: %v allocations, want at most %v", what, got, want)
	}
}

// TestAllocations: Term and the bounds need none; a read a few for each file and MiB,
// however many entries that is.
func TestAllocations(t *testing.T) {
	d := testLogMany(t, 12_000)
	testLogAllocs(t, "FirstIndex", 0, func() error { _, err := d.FirstIndex(); return err })
	testLogAllocs(t, "LastIndex", 0, func() error { _, err := d.LastIndex(); return err })
	testLogAllocs(t, "Term in a sealed file", 0, func() error { _, err := d.Term(10); return err })
	testLogAllocs(t, "Term in the tail", 0, func() error { _, err := d.Term(11_999); return err })
	for n, pieces := range map[uint64]float64{1: 1, 100: 1, 4_000: 2, 10_000: 3} { // as many files, of a MiB
		testLogAllocs(t, "Entries in sealed files and the tail", pieces*testLogReadAllocs, func() error {
			_, err := d.Entries(12_001-n, 12_001, math.MaxUint64)
			return err
		})
	}
	testLogAllocs(t, "Entries in a sealed file", testLogReadAllocs, func() error {
		_, err := d.Entries(1, 101, math.MaxUint64)
		return err
	})
}

// testLogReadAllocs is what a call of Entries allocates for a MiB of entries of a file,
// however many they are: three, and one more with the race detector.
const testLogReadAllocs = 4

func TestAllocationsOfSave(t *testing.T) {
	t.Run("plain", func(t *testing.T) { testLogSaveAllocs(t) })
	t.Run("encrypted", func(t *testing.T) { testLogSaveAllocs(t, testLogEncrypted) })
}

// TestAllocationsEncrypted: a read of an encrypted log needs one more, whatever
// the number of entries.
func TestAllocationsEncrypted(t *testing.T) {
	d := testLogOpen(t, t.TempDir(), testLogNoSync, testLogEncrypted)
	testLogSave(t, d, nil, testLogEntries(1, 5000, 1, 200))
	d.WaitForBackground()
	for n, files := range map[uint64]float64{1: 1, 100: 1, 4000: 2} { // of a MiB
		testLogAllocs(t, "Entries", files*testLogReadAllocs+1, func() error {
			_, err := d.Entries(5001-n, 5001, math.MaxUint64)
			return err
		})
	}
}

func testLogSaveAllocs(t *testing.T, edits ...func(*mmapwal.Options)) {
	d := testLogOpen(t, t.TempDir(), append(edits, testLogNoSync)...)
	next := uint64(1)
	entries := testLogEntries(1, 500, 1, 100)
	h := testLogHard(1, 1, 0)
	testLogAllocs(t, "Save", 2, func() error {
		*h.Commit = next - 1
		next++
		return d.Save(h, entries[next-2:next-1], nil)
	})
}

// TestOpenReadsNoSealedFile: how long it takes does not depend on how much is
// stored.
func TestOpenReadsNoSealedFile(t *testing.T) {
	dir := t.TempDir()
	testLogThreeFiles(t, dir)
	d := testLogOpen(t, dir)
	if r := d.Stats().Recovery; !r.Clean || r.FilesScanned != 0 {
		t.Errorf("a clean open scans %d files", r.FilesScanned)
	}
	testLogSave(t, d, testLogHard(2, 1, 0), nil)
	unclean := testLogCopyDir(t, dir)
	testLogClose(t, d)
	d = testLogOpen(t, unclean)
	if r := d.Stats().Recovery; r.Clean || r.FilesScanned != 1 {
		t.Errorf("an unclean open scans %d files of 3, want 1", r.FilesScanned)
	}
	testLogClose(t, d)
	testLogFlip(t, filepath.Join(unclean, "00001.wal"), testLogMiB+500) // nobody looks
	d = testLogOpen(t, unclean)
	if _, err := d.Entries(10, 20, math.MaxUint64); err != nil {
		t.Error(err)
	}
}
