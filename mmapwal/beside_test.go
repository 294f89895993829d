package mmapwal_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
)

// testSnapshotDisk is a disk on which the sync of a snapshot's data waits until it may go on.
type testSnapshotDisk struct {
	*vfstest.FS
	waiting chan struct{}
	goOn    chan error
	fails   atomic.Bool // every other sync
}

func newTestSnapshotDisk() *testSnapshotDisk {
	s := &testSnapshotDisk{waiting: make(chan struct{}, 10), goOn: make(chan error, 10)}
	s.FS = vfstest.New(testLogFastFS{vfs.OS()}, func(op vfstest.Op, name string) error {
		switch {
		case op == vfstest.OpSync && strings.Contains(name, ".snap."):
			s.waiting <- struct{}{}
			if err := <-s.goOn; err != nil {
				return vfstest.Error(op, name, err.(syscall.Errno))
			}
		case op == vfstest.OpMsync && s.fails.Load():
			return vfstest.Error(op, name, syscall.EIO)
		}
		return nil
	})
	return s
}

// testBeside opens a log of the entries 1 to 10 on such a disk, and begins a snapshot at 5
// that waits for it.
func testBeside(t *testing.T, edits ...func(*mmapwal.Options)) (s *testSnapshotDisk, dir string, d *mmapwal.DiskStorage, created chan error) {
	t.Helper()
	s, dir, created = newTestSnapshotDisk(), t.TempDir(), make(chan error, 1)
	d = testLogOpen(t, dir, append(edits, testLogOn(s))...)
	t.Cleanup(func() { close(s.goOn) }) // before the log is closed
	testLogSave(t, d, testLogHard(1, 1, 4), testLogEntries(1, 10, 1, 100))
	go func() { created <- d.CreateSnapshot(5, testLogConf(1), make([]byte, 5000)) }()
	<-s.waiting
	return s, dir, d, created
}

// testNoTemporary checks that no file under a temporary name is left.
func testNoTemporary(t *testing.T, dir string) {
	t.Helper()
	if names, err := filepath.Glob(filepath.Join(dir, "*.tmp")); err != nil || len(names) > 0 {
		t.Errorf("%v, %v", names, err)
	}
}

// TestSaveBesideSnapshot: Saves, reads and a rotation of the key go on while the data of a
// snapshot is written.
func TestSaveBesideSnapshot(t *testing.T) {
	dir := func(t *testing.T, edits ...func(*mmapwal.Options)) string {
		s, dir, d, created := testBeside(t, edits...)
		testLogSave(t, d, testLogHard(1, 1, 6), testLogEntries(11, 11, 1, 100))
		if len(edits) > 0 {
			if err := d.RotateKey(testLogKey(16, 9)); err != nil {
				t.Fatal(err)
			}
		}
		s.goOn <- nil
		if err := <-created; err != nil {
			t.Fatal(err)
		}
		testNoTemporary(t, dir)
		testLogClose(t, d)
		return dir
	}
	check := func(t *testing.T, d *mmapwal.DiskStorage) {
		snap, err := d.Snapshot()
		if err != nil || snap.GetMetadata().GetIndex() != 5 || len(snap.GetData()) != 5000 {
			t.Errorf("snapshot at %d, %d bytes, %v", snap.GetMetadata().GetIndex(), len(snap.GetData()), err)
		}
		testLogRange(t, d, 6, 11)
	}
	t.Run("plain", func(t *testing.T) { check(t, testLogOpen(t, dir(t))) })
	t.Run("encrypted", func(t *testing.T) {
		check(t, testLogOpen(t, dir(t, testLogEncrypted), func(o *mmapwal.Options) { o.Key = testLogKey(16, 9) }))
	})
}

// TestSnapshotsBesideEachOther: of two at once the older one is out of date if it comes
// last, and leaves nothing behind; two of one index do not mix.
func TestSnapshotsBesideEachOther(t *testing.T) {
	for _, i := range []uint64{5, 8} {
		s, dir, d, created := testBeside(t)
		second := make(chan error, 1)
		go func() { second <- d.Save(testLogHard(1, 1, 10), nil, testLogSnapshot(i, 1, make([]byte, 6000))) }()
		<-s.waiting
		s.goOn <- nil // either
		s.goOn <- nil
		err1, err2 := <-created, <-second
		snap, err := d.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		at, n := snap.GetMetadata().GetIndex(), len(snap.GetData())
		switch {
		case i == 5 && err1 == nil && n == 5000:
			testLogIs(t, err2, raft.ErrSnapOutOfDate)
		case i == 5 && err2 == nil && n == 6000:
			testLogIs(t, err1, raft.ErrSnapOutOfDate)
		case i == 8 && err2 == nil && at == 8 && n == 6000:
			if err1 != nil {
				testLogIs(t, err1, raft.ErrSnapOutOfDate)
			}
		default:
			t.Errorf("snapshot at %d, %d bytes; %v, %v", at, n, err1, err2)
		}
		testNoTemporary(t, dir)
		testLogClose(t, d)
		if names, err := filepath.Glob(filepath.Join(dir, "*.snap")); err != nil || len(names) != 1 {
			t.Errorf("snapshot files %v, %v", names, err)
		}
	}
}

// TestReplacedBesideSnapshot: the entry of the snapshot is replaced while its data is
// written; the snapshot has the term that the log has.
func TestReplacedBesideSnapshot(t *testing.T) {
	s, dir, d, created := testBeside(t)
	testLogSave(t, d, testLogHard(2, 1, 4), testLogEntries(5, 10, 2, 100))
	s.goOn <- nil
	<-s.waiting // it is written anew
	s.goOn <- nil
	if err := <-created; err != nil {
		t.Fatal(err)
	}
	snap, err := d.Snapshot()
	if err != nil || snap.GetMetadata().GetTerm() != 2 || len(snap.GetData()) != 5000 {
		t.Errorf("snapshot %v, %v", snap.GetMetadata(), err)
	}
	testNoTemporary(t, dir)
}

// TestCloseBesideSnapshot: Close waits for the data that is being written, which is then
// given up.
func TestCloseBesideSnapshot(t *testing.T) {
	s, dir, d, created := testBeside(t)
	closed := make(chan error, 1)
	go func() { closed <- d.Close() }()
	testLogEventually(t, "the log is being closed", func() bool {
		_, err := d.LastIndex()
		return err != nil
	})
	s.goOn <- nil
	testLogIs(t, <-created, mmapwal.ErrClosed)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	testNoTemporary(t, dir)
	testLogRange(t, testLogOpen(t, dir), 1, 10)
}

// TestSnapshotDataFails: what becomes of the log if the data of a snapshot cannot be
// written, or the log is poisoned meanwhile.
func TestSnapshotDataFails(t *testing.T) {
	t.Run("poisoned meanwhile", func(t *testing.T) {
		s, dir, d, created := testBeside(t)
		s.fails.Store(true)
		testLogIs(t, d.Save(nil, testLogEntries(11, 11, 1, 100), nil), mmapwal.ErrPoisoned)
		s.goOn <- nil
		testLogIs(t, <-created, mmapwal.ErrPoisoned)
		testNoTemporary(t, dir)
	})
	t.Run("the sync fails", func(t *testing.T) {
		s, dir, d, created := testBeside(t)
		s.goOn <- syscall.EIO
		testLogIs(t, <-created, mmapwal.ErrPoisoned)
		testNoTemporary(t, dir)
		testLogIs(t, d.Save(nil, testLogEntries(11, 11, 1, 100), nil), mmapwal.ErrPoisoned)
	})
	t.Run("no space", func(t *testing.T) {
		full := vfstest.New(vfs.OS(), func(op vfstest.Op, name string) error {
			if op == vfstest.OpReserve && strings.Contains(name, ".snap.") {
				return vfstest.Error(op, name, syscall.ENOSPC)
			}
			return nil
		})
		dir := t.TempDir()
		d := testLogOpen(t, dir, testLogOn(full))
		testLogSave(t, d, testLogHard(1, 1, 4), testLogEntries(1, 10, 1, 100))
		testLogIs(t, d.CreateSnapshot(5, testLogConf(1), make([]byte, 5000)), mmapwal.ErrNoSpace)
		testLogIs(t, d.Save(nil, nil, testLogSnapshot(20, 1, make([]byte, 5000))), mmapwal.ErrNoSpace)
		told := make(chan error, 1)
		d.SaveAsync(nil, nil, testLogSnapshot(20, 1, make([]byte, 5000)), func(err error) { told <- err })
		testLogIs(t, <-told, mmapwal.ErrNoSpace)
		testNoTemporary(t, dir)
		testLogEventually(t, "the log takes Saves", func() bool { return d.Save(nil, testLogEntries(11, 11, 1, 100), nil) == nil })
		if err := d.CreateSnapshot(5, testLogConf(1), make([]byte, 100)); err != nil { // which needs no space
			t.Fatal(err)
		}
	})
}

// TestSnapshotGetsRoom: where the disk is full, what the log keeps for later makes room for
// the data of a snapshot.
func TestSnapshotGetsRoom(t *testing.T) {
	var full atomic.Bool
	disk := vfstest.New(testLogFastFS{vfs.OS()}, func(op vfstest.Op, name string) error {
		switch {
		case op == vfstest.OpRemove && strings.HasSuffix(name, ".wal"):
			full.Store(false)
		case op == vfstest.OpReserve && strings.Contains(name, ".snap.") && full.Load():
			return vfstest.Error(op, name, syscall.ENOSPC)
		}
		return nil
	})
	dir := t.TempDir()
	d := testLogOpen(t, dir, testLogOn(disk))
	for i := uint64(1); i == 1 || d.Stats().PreparedFiles == 0; i++ {
		testLogSave(t, d, testLogHard(1, 1, i), testLogEntries(i, i, 1, 100_000))
		d.WaitForBackground()
	}
	full.Store(true)
	if err := d.CreateSnapshot(1, testLogConf(1), make([]byte, 500_000)); err != nil {
		t.Fatal(err)
	}
	if n := d.Stats().PreparedFiles; n != 0 {
		t.Errorf("%d files are made ahead", n)
	}
	testNoTemporary(t, dir)
}

// testWaitingKMS is a KeyWrapper that thinks until it may go on.
type testWaitingKMS struct {
	testLogKMS
	asked, goOn chan struct{}
}

func (k testWaitingKMS) Encrypt(plaintext, ad []byte) ([]byte, error) {
	k.asked <- struct{}{}
	<-k.goOn
	return k.testLogKMS.Encrypt(plaintext, ad)
}

// TestSaveBesideKMS: Saves go on while the KMS thinks, and Close waits for it.
func TestSaveBesideKMS(t *testing.T) {
	dir := t.TempDir()
	d := testLogOpen(t, dir, testLogEncrypted)
	k := testWaitingKMS{asked: make(chan struct{}), goOn: make(chan struct{})}
	rotated := make(chan error, 1)
	go func() { rotated <- d.RotateKeyWrapper(k) }()
	<-k.asked
	testLogSave(t, d, testLogHard(1, 1, 4), testLogEntries(1, 10, 1, 100))
	close(k.goOn)
	if err := <-rotated; err != nil {
		t.Fatal(err)
	}
	testLogClose(t, d)
	testLogRange(t, testLogOpen(t, dir, func(o *mmapwal.Options) { o.KeyWrapper = testLogKMS{} }), 1, 10)
}

// testPanickingKMS is a KeyWrapper that panics.
type testPanickingKMS struct{}

func (testPanickingKMS) Encrypt(_, _ []byte) ([]byte, error) { panic("no KMS") }
func (testPanickingKMS) Decrypt(_, _ []byte) ([]byte, error) { panic("no KMS") }

var _ encryption.KeyWrapper = testPanickingKMS{}

// TestWrapperPanics: the panic goes on, and the log is not locked, nor is a writer.
func TestWrapperPanics(t *testing.T) {
	panics := func(f func()) {
		t.Helper()
		defer func() {
			if recover() != "no KMS" {
				t.Error("no panic")
			}
		}()
		f()
	}
	kms := func(o *mmapwal.Options) { o.KeyWrapper = testPanickingKMS{} }
	plain, encrypted, none := t.TempDir(), t.TempDir(), t.TempDir()
	testLogClose(t, testLogBase(t, plain))
	testLogClose(t, testLogBase(t, encrypted, testLogEncrypted))
	before := testDescriptors(t)
	for _, dir := range []string{plain, encrypted, none} {
		panics(func() { _, _ = mmapwal.Open(dir, testLogOptions(kms)) })
	}
	if after := testDescriptors(t); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
	testLogClose(t, testLogOpen(t, none))
	testLogClose(t, testLogOpen(t, plain))
	d := testLogOpen(t, encrypted, testLogEncrypted)
	panics(func() { _ = d.RotateKeyWrapper(testPanickingKMS{}) })
	testLogSave(t, d, nil, nil)
	testLogClose(t, d)
}

// testDescriptors returns how many descriptors are open; 0 if that cannot be told.
func testDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}
