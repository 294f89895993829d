package mmapwal_test

import (
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// testLogPending opens the log in dir; what is to be done in the background waits until the
// log is closed, when the test ends.
func testLogPending(t *testing.T, dir string, fsys vfs.FS, edits ...func(*mmapwal.Options)) *mmapwal.DiskStorage {
	t.Helper()
	var queue []func()
	pending := true
	h := testHost(fsys, func(f func()) {
		if pending {
			queue = append(queue, f)
			return
		}
		go f()
	})
	d, err := mmapwal.OpenOn(h, dir, testLogOptions(edits...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		pending = false
		for _, f := range queue {
			f()
		}
		testLogClose(t, d)
	})
	return d
}

// TestDiesBeforeItSeals: the file in which a crash left the end of the log is ended by
// recovery and sealed later. Whoever dies before that has lost nothing, and brings nothing
// back, as often as it happens.
func TestDiesBeforeItSeals(t *testing.T) {
	for _, torn := range []bool{false, true} {
		dir, last := testLogUnclean(t, 5, 10), uint64(10)
		if torn {
			name := filepath.Join(dir, "00001.wal")
			testLogFlip(t, name, testLogRecords(t, name)[8]+40) // those behind it are whole
			last = 7
		}
		for range 3 {
			d := testLogPending(t, dir, vfs.OS())
			testLogRange(t, d, 1, last)
			if d.Unsealed() == 0 {
				t.Error("no file waits to be sealed")
			}
			dir = testLogCopyDir(t, dir) // nothing was saved
			d = testLogPending(t, dir, vfs.OS())
			testLogSave(t, d, testLogHard(2, 1, last), testLogEntries(last+1, last+2, 2, 100))
			last += 2
			testLogRange(t, d, 1, last)
			dir = testLogCopyDir(t, dir)
		}
		d := testLogOpen(t, dir)
		testLogRange(t, d, 1, last)
		if n := d.Unsealed(); n != 0 {
			t.Errorf("%d files are not sealed", n)
		}
		testLogUsable(t, d, dir)
	}
}

// TestSealedByRecovery: a file is sealed at once where a record that ends it would not do:
// if the file is encrypted, there is no room for it, or damage behind it was put up with.
func TestSealedByRecovery(t *testing.T) {
	sealed := func(t *testing.T, dir string, last uint64, fsys vfs.FS, edits ...func(*mmapwal.Options)) {
		t.Helper()
		d := testLogPending(t, dir, fsys, edits...)
		testLogRange(t, d, 1, last)
		if n := d.Unsealed(); n != 0 {
			t.Errorf("%d files are not sealed", n)
		}
		dir = testLogCopyDir(t, dir) // dies
		d, err := mmapwal.Open(dir, testLogOptions(edits[1:]...))
		if err != nil {
			t.Fatal(err)
		}
		defer testLogClose(t, d)
		testLogRange(t, d, 1, last)
	}
	as := func(*mmapwal.Options) {}
	t.Run("no room", func(t *testing.T) {
		sealed(t, testLogUnclean(t, 5, 10), 10, testNoRoomIn("00001.wal"), as)
	})
	t.Run("no room, and a full file in front of it", func(t *testing.T) {
		sealed(t, testTwoFiles(t), 2, testNoRoomIn("00002.wal"), as)
	})
	t.Run("encrypted", func(t *testing.T) {
		live := t.TempDir()
		d := testLogOpen(t, live, testLogEncrypted)
		testLogSave(t, d, testLogHard(1, 1, 1), testLogEntries(1, 10, 1, 100))
		sealed(t, testLogCopyDir(t, live), 10, vfs.OS(), as, testLogEncrypted)
	})
	t.Run("becomes encrypted", func(t *testing.T) {
		sealed(t, testLogUnclean(t, 5, 10), 10, vfs.OS(), as, testLogEncrypted)
	})
	t.Run("damaged", func(t *testing.T) {
		live := t.TempDir()
		d := testLogOpen(t, live)
		early := testLogCopyDir(t, live)
		for i := uint64(1); i <= 5; i++ {
			testLogSave(t, d, nil, testLogEntries(i, i, 1, 100))
		}
		dir := testLogCopyDir(t, live)
		testLogCopyFile(t, filepath.Join(early, "wal.meta"), filepath.Join(dir, "wal.meta"))
		name := filepath.Join(dir, "00001.wal")
		testLogFlip(t, name, testLogRecords(t, name)[3]+40)
		sealed(t, dir, 2, vfs.OS(), testLogKeepPrefix) // the records behind it say that it was synced
	})
}

// testNoRoomIn is a file system that has no room to spare in the file of that name.
func testNoRoomIn(file string) vfs.FS {
	return vfstest.New(vfs.OS(), func(op vfstest.Op, name string) error {
		if op == vfstest.OpReserve && filepath.Base(name) == file {
			return vfstest.Error(op, name, syscall.ENOSPC)
		}
		return nil
	})
}

// testTwoFiles returns a log as a crash leaves it, of two files with an entry each, neither of
// which is sealed.
func testTwoFiles(t *testing.T) (dir string) {
	t.Helper()
	live := t.TempDir()
	d := testLogOpen(t, live, testLogNoSync)
	for i := uint64(1); i <= 2; i++ {
		testLogSave(t, d, nil, testLogEntries(i, i, 1, 600_000))
	}
	d.WaitForBackground() // which may make a file
	if d.Unsealed() != 1 {
		t.Fatal("the first file does not wait to be sealed")
	}
	return testLogCopyDir(t, live)
}

// TestNoRoomForSlots: a file that is full by its own account is not left to the background
// where that might have no room for the slots.
func TestNoRoomForSlots(t *testing.T) {
	d := testLogPending(t, testTwoFiles(t), testNoRoomIn("00001.wal"))
	testLogRange(t, d, 1, 2)
	if n := d.Unsealed(); n != 1 {
		t.Errorf("%d files are not sealed, want the last one only", n)
	}
}

// TestPoisonedWithFullFiles: a log that is closed although it could not seal its full files
// lets go of them.
func TestPoisonedWithFullFiles(t *testing.T) {
	var failing atomic.Bool
	fsys := vfstest.New(vfs.OS(), func(op vfstest.Op, name string) error {
		if failing.Load() && op == vfstest.OpMsync {
			return vfstest.Error(op, name, syscall.EIO)
		}
		return nil
	})
	d, err := mmapwal.Open(t.TempDir(), testLogOptions(testLogNoSync, testLogOn(fsys)))
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 3; i++ {
		testLogSave(t, d, nil, testLogEntries(i, i, 1, 600_000))
	}
	failing.Store(true)
	testLogIs(t, d.Sync(), mmapwal.ErrPoisoned)
	testLogIs(t, d.Close(), mmapwal.ErrPoisoned)
	if n := d.Unsealed(); n != 0 {
		t.Errorf("%d files wait to be sealed after Close", n)
	}
	d.SealNow() // ends
}
