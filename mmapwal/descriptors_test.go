package mmapwal_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"golang.org/x/sys/unix"
)

// testLogNeedDescriptor are the operations that need a descriptor.
var testLogNeedDescriptor = []vfstest.Op{vfstest.OpOpenDir, vfstest.OpCreate, vfstest.OpOpen}

// testLogDescriptorOps go on where testLogFaultOps end, in a log that was opened anew: its
// sealed files are opened when they are used.
func testLogDescriptorOps() []oracle.Op {
	terms := func(term uint64, n int) []uint64 { return slices.Repeat([]uint64{term}, n) }
	return []oracle.Op{
		{Create: 50},
		{Truncate: 51},
		{Hard: [3]uint64{6, 2, 52}, From: 53, Terms: terms(6, 20)}, // replaces in a sealed file, and rotates
		{Create: 53},  // data in a file
		{Compact: 53}, // removes files
		{Hard: [3]uint64{6, 2, 72}, From: 73, Terms: terms(6, 16)},
		{Create: 80},
		{Hard: [3]uint64{7, 2, 101}, Snap: [2]uint64{101, 7}, From: 102, Terms: terms(7, 3)}, // empties the log
		{Hard: [3]uint64{7, 2, 104}, From: 105, Terms: terms(7, 20)},
	}
}

// TestNoDescriptors: whichever of the operations that need a descriptor finds none, in a
// call or in the background: the log is as it was, and the same call works the next time.
func TestNoDescriptors(t *testing.T) {
	t.Run("plain", func(t *testing.T) { testLogNoDescriptors(t, 1, syscall.EMFILE) })
	t.Run("encrypted", func(t *testing.T) { testLogNoDescriptors(t, testLogSome(), syscall.ENFILE, testLogEncrypted) })
	t.Run("not synced", func(t *testing.T) { testLogNoDescriptors(t, testLogSome(), syscall.ENOMEM, testLogNoSync) })
}

// testLogNoDescriptors has each of them fail, or one of so many.
func testLogNoDescriptors(t *testing.T, one int, errno syscall.Errno, edits ...func(*mmapwal.Options)) {
	t.Helper()
	base := testLogFailNth(t, filepath.Join(t.TempDir(), "log"), -1, errno, edits...)
	base.ops = append(testLogFaultOps(), oracle.Op{Hard: [3]uint64{5, 2, 50}, From: 45, Terms: slices.Repeat([]uint64{5}, 30)})
	base.run()
	for n, again := 0, true; again; n += one {
		dir := testLogCopyDir(t, base.dir)
		f := testLogFailNth(t, dir, n, errno, edits...)
		f.model, f.only, f.ops = base.model, testLogNeedDescriptor, testLogDescriptorOps()
		again = f.run()
		_ = os.RemoveAll(dir)
		if !again && n < 10 {
			t.Errorf("%v: only %d operations need a descriptor", errno, n)
		}
	}
}

// TestNoDescriptorsForAMoment: the process runs out of descriptors while a snapshot is made,
// and dead files are removed in the background; no write and no sync has failed.
func TestNoDescriptorsForAMoment(t *testing.T) {
	d := testLogOpen(t, t.TempDir(), func(o *mmapwal.Options) { o.FileDataSize = 1 << 20 })
	testLogFill(t, d, 4)
	d.WaitForBackground()
	var limit unix.Rlimit
	testNil(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	none := limit
	none.Cur = 0 // none can be opened
	testNil(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &none))
	small := d.CreateSnapshot(3, nil, nil)
	large := d.CreateSnapshot(4, nil, make([]byte, 10_000))
	d.WaitForBackground()
	save := d.Save(nil, testLogEntries(5, 5, 1, 2<<20), nil)
	testNil(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	testNil(t, small)
	testLogIs(t, large, syscall.EMFILE)
	if save != nil {
		testLogIs(t, save, syscall.EMFILE)
	}
	testNil(t, d.CreateSnapshot(4, nil, make([]byte, 10_000)))
	testLogFill(t, d, 6)
	testLogClose(t, d)
}

// TestMakingRoomFails: what fails while room is made is told as what it is.
func TestMakingRoomFails(t *testing.T) {
	for _, op := range []vfstest.Op{vfstest.OpCreate, vfstest.OpTruncate, vfstest.OpReserve} {
		for _, errno := range []syscall.Errno{syscall.EIO, syscall.EMFILE, syscall.ENOMEM, syscall.EROFS} {
			var disk vfstest.Switch
			d := testLogOpen(t, t.TempDir(), testLogOn(vfstest.New(vfs.OS(), disk.Before)))
			testLogSave(t, d, nil, testLogEntries(1, 2, 1, 100))
			d.WaitForBackground()
			disk.Set(vfstest.FailFrom(1, errno, op))
			err := d.Save(nil, testLogEntries(3, 6, 1, 500_000), nil)
			testLogIs(t, err, errno)
			for _, not := range []error{mmapwal.ErrNoSpace, mmapwal.ErrPoisoned} {
				if errors.Is(err, not) {
					t.Errorf("%s, %v: error %q", op, errno, err)
				}
			}
			disk.Set(nil)
			testLogSave(t, d, nil, testLogEntries(3, 6, 1, 500_000))
			testLogClose(t, d)
		}
	}
}
