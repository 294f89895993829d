package mmapwal_test

import (
	"errors"
	"math"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
)

// testTurnOver saves n files' worth of entries from index first on, with a snapshot at
// the end of each, and returns the last index. The background keeps pace: a file that
// is being sealed while it dies is not kept as a spare.
func testTurnOver(t *testing.T, d *mmapwal.DiskStorage, first uint64, n int) uint64 {
	t.Helper()
	for range n {
		testLogSave(t, d, testLogHard(1, 1, first+9), testLogEntries(first, first+9, 1, 100_000))
		d.WaitForBackground()
		first += 10
		if err := d.CreateSnapshot(first-1, testLogConf(1), []byte("state")); err != nil {
			t.Fatal(err)
		}
		d.WaitForBackground()
	}
	return first - 1
}

// TestReuse: files whose entries are dead are used again, by the next run, too, and
// never show what they held before.
func TestReuse(t *testing.T) {
	for name, edits := range map[string][]func(*mmapwal.Options){
		"HardSync": {}, "NoSync": {testLogNoSync}, "encrypted": {testLogEncrypted},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fsys := vfstest.New(vfs.OS(), nil)
			d := testLogOpen(t, dir, append(edits, testLogOn(fsys))...)
			last := testTurnOver(t, d, 1, 4)
			fsys.Reset()
			last = testTurnOver(t, d, last+1, 10)
			if n := fsys.Count(vfstest.OpCreate); n > 1 {
				t.Errorf("%d files made, want spare ones to be used", n)
			}
			testLogSave(t, d, nil, testLogEntries(last+1, last+3, 1, 100))
			want := testLogContent(t, d)
			testLogClose(t, d)
			d = testLogOpen(t, dir, append(edits, testLogOn(fsys))...)
			testLogSame(t, "reopened", testLogContent(t, d), want)
			last = testTurnOver(t, d, last+4, 3)
			testLogClose(t, d)
			d = testLogOpen(t, dir, edits...)
			testLast(t, d, last)
		})
	}
}

// TestSpareFiles: no more than wanted are kept.
func TestSpareFiles(t *testing.T) {
	for _, c := range []struct{ option, want int }{{-1, 0}, {0, 2}, {3, 3}} {
		dir := t.TempDir()
		d := testLogOpen(t, dir, func(o *mmapwal.Options) { o.SpareFiles = c.option })
		testLogSave(t, d, testLogHard(1, 1, 1), testLogEntries(1, 80, 1, 100_000))
		if err := d.CreateSnapshot(80, testLogConf(1), nil); err != nil {
			t.Fatal(err)
		}
		testLogClose(t, d)
		if spares, _ := filepath.Glob(filepath.Join(dir, "*.spare")); len(spares) != c.want {
			t.Errorf("SpareFiles %d: %d are kept", c.option, len(spares))
		}
		d = testLogOpen(t, dir, func(o *mmapwal.Options) { o.SpareFiles = -1 })
		testLogClose(t, d)
		if spares, _ := filepath.Glob(filepath.Join(dir, "*.spare")); len(spares) != 0 {
			t.Errorf("%d spare files are kept by a log that wants none", len(spares))
		}
	}
}

// TestSparesOfAnUncleanRun are removed: what made the run end may be one of them, on a
// place of the disk that fails.
func TestSparesOfAnUncleanRun(t *testing.T) {
	dir := t.TempDir()
	d := testLogOpen(t, dir)
	testTurnOver(t, d, 1, 3)
	unclean := testLogCopyDir(t, dir)
	if spares, _ := filepath.Glob(filepath.Join(unclean, "*.spare")); len(spares) == 0 {
		t.Fatal("there is no spare file")
	}
	d = testLogOpen(t, unclean)
	if spares, _ := filepath.Glob(filepath.Join(unclean, "*.spare")); len(spares) != 0 || d.Stats().Recovery.Clean {
		t.Errorf("%v are kept", spares)
	}
}

// TestNextFileIsMadeLate: while there is much room left the log waits with the next file,
// for which there may be a spare one by then. A log that is not synced waits less.
func TestNextFileIsMadeLate(t *testing.T) {
	for _, c := range []struct {
		edit  func(*mmapwal.Options)
		after uint64 // MiB of 16
	}{{func(*mmapwal.Options) {}, 12}, {testLogNoSync, 2}} {
		d := testLogOpen(t, t.TempDir(), c.edit, func(o *mmapwal.Options) { o.FileDataSize = 16 << 20 })
		for i := uint64(1); i <= 14; i++ {
			testLogSave(t, d, nil, testLogEntries(i, i, 1, 1<<20))
			d.WaitForBackground()
			want := 0
			if i >= c.after {
				want = 1
			}
			if n := d.Stats().PreparedFiles; n != want {
				t.Errorf("after %d MiB %d files are prepared, want %d", i, n, want)
			}
		}
	}
}

// TestNextFileStays: a log whose next file cannot be removed is not closed cleanly, and so
// can be opened.
func TestNextFileStays(t *testing.T) {
	dir := t.TempDir()
	var disk vfstest.Switch
	edits := []func(*mmapwal.Options){testLogOn(vfstest.New(vfs.OS(), disk.Before)), func(o *mmapwal.Options) { o.SpareFiles = -1 }}
	d := testLogOpen(t, dir, edits...)
	testLogSave(t, d, nil, testLogEntries(1, 9, 1, 100_000))
	d.WaitForBackground()
	if n := d.Stats().PreparedFiles; n != 1 {
		t.Fatalf("%d files are prepared, want 1", n)
	}
	disk.Set(vfstest.FailFrom(1, syscall.EIO, vfstest.OpRemove))
	testLogIs(t, d.Close(), syscall.EIO)
	disk.Set(nil)
	d = testLogOpen(t, dir, edits...)
	testLogRange(t, d, 1, 9)
	testLogClose(t, d)
}

// TestReuseUnderAReader: a log that is open for reading only shows entries as they were
// when it was opened, or says that they are compacted, but nothing else.
func TestReuseUnderAReader(t *testing.T) {
	dir := t.TempDir()
	d := testLogOpen(t, dir)
	testLogSave(t, d, testLogHard(1, 1, 1), testLogEntries(1, 40, 1, 100_000))
	d.WaitForBackground()
	reader := testLogOpen(t, dir, testLogReadOnly)
	compacted := 0
	first := uint64(41)
	for range 12 {
		for i := uint64(1); i <= 40; i++ {
			es, err := reader.Entries(i, i+1, math.MaxUint64)
			switch {
			case errors.Is(err, raft.ErrCompacted):
				compacted++
			case err != nil:
				t.Fatalf("entry %d: %v", i, err)
			case string(es[0].Data) != string(oracle.Data(i, 1, 100_000)):
				t.Fatalf("entry %d has other data", i)
			}
			if term, err := reader.Term(i); err != nil && !errors.Is(err, raft.ErrCompacted) || err == nil && term != 1 {
				t.Fatalf("term of %d: %d, %v", i, term, err)
			}
		}
		first = testTurnOver(t, d, first, 1) + 1
	}
	if compacted == 0 {
		t.Error("no file was used again under the reader")
	}
}

// TestBacklogOfSeals: files that wait to be sealed are bounded; a Save seals one of them,
// and not all.
func TestBacklogOfSeals(t *testing.T) {
	o := testLogOptions(testLogNoSync)
	o.FileDataSize = 1 << 20
	d, err := mmapwal.OpenOn(testHost(simdisk.New(), func(func()) {}), "/log", o)
	if err != nil {
		t.Fatal(err)
	}
	const most = 128
	for i := uint64(1); i <= most+8; i++ { // each takes a file
		testLogSave(t, d, nil, testLogEntries(i, i, 1, 600_000))
		if n, want := d.Unsealed(), min(int(i)-1, most); n != want {
			t.Fatalf("after %d files %d wait, want %d", i, n, want)
		}
	}
}

// TestSealedWhenSynced: a file that is full is sealed once its entries are durable, not
// before: a Save would wait for that.
func TestSealedWhenSynced(t *testing.T) {
	open := func(policy mmapwal.SyncPolicy) *mmapwal.DiskStorage {
		o := testLogOptions()
		o.FileDataSize, o.Sync = 1<<20, policy
		d, err := mmapwal.OpenOn(testHost(simdisk.New(), func(f func()) { f() }), "/log", o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { testLogClose(t, d) })
		return d
	}
	save := func(d *mmapwal.DiskStorage, i uint64) { testLogSave(t, d, nil, testLogEntries(i, i, 1, 600_000)) } // each takes a file
	want := func(d *mmapwal.DiskStorage, what string, unsealed int) {
		t.Helper()
		if n := d.Unsealed(); n != unsealed {
			t.Errorf("%s: %d files are full and not sealed, want %d", what, n, unsealed)
		}
	}
	d := open(mmapwal.HardSync)
	for i := uint64(1); i <= 3; i++ {
		save(d, i)
		want(d, "Save under HardSync", 0)
	}
	d.SaveAsync(nil, testLogEntries(4, 4, 1, 600_000), nil, nil)
	want(d, "SaveAsync", 0)
	d = open(mmapwal.BatchSync(8, time.Hour))
	for i := uint64(1); i <= 4; i++ {
		save(d, i)
		want(d, "Save under BatchSync", int(i)-1)
	}
	d.SealNow()
	want(d, "the sealer, before a sync", 3)
	save(d, 5)
	want(d, "a sync under BatchSync", 0)
}

// TestTooMuch: the backlog of seals is bounded in files and in bytes, but two files may
// wait, however large.
func TestTooMuch(t *testing.T) {
	for _, c := range []struct {
		files int
		bytes int64
		want  bool
	}{
		{1, 4 << 30, false}, {2, 8 << 30, false}, {3, 512<<20 + 1, true}, {3, 512 << 20, false}, {128, 512 << 20, false}, {129, 1, true},
	} {
		if got := mmapwal.TooMuch(c.files, c.bytes); got != c.want {
			t.Errorf("%d files of %d bytes: %v", c.files, c.bytes, got)
		}
	}
}
