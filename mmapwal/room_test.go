package mmapwal_test

import (
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// testFullUntil is a disk that is full until so many files were removed whose names end so.
type testFullUntil struct {
	mu     sync.Mutex
	suffix string
	files  int // 0: there is room
}

func (f *testFullUntil) set(suffix string, files int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.suffix, f.files = suffix, files
}

func (f *testFullUntil) before(op vfstest.Op, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case op == vfstest.OpRemove && strings.HasSuffix(name, f.suffix) && f.files > 0:
		f.files--
	case op == vfstest.OpReserve && f.files > 0:
		return vfstest.Error(op, name, syscall.ENOSPC)
	}
	return nil
}

// TestFullDiskGivesRoom: what the log keeps for later is given up before a call fails because
// the disk is full: spare files, and the file that was made ahead.
func TestFullDiskGivesRoom(t *testing.T) {
	large := make([]byte, 10_000)
	calls := map[string]func(d *mmapwal.DiskStorage) error{
		"CreateSnapshot": func(d *mmapwal.DiskStorage) error { return d.CreateSnapshot(19, nil, large) },
		"Save":           func(d *mmapwal.DiskStorage) error { return d.Save(nil, testLogEntries(21, 24, 1, 700_000), nil) },
		"Save of a snapshot": func(d *mmapwal.DiskStorage) error {
			return d.Save(nil, nil, testLogSnapshot(30, 1, large))
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			dir, disk := t.TempDir(), new(testFullUntil)
			d := testLogOpen(t, dir, testLogOn(vfstest.New(vfs.OS(), disk.before)), func(o *mmapwal.Options) { o.FileDataSize = 1 << 20 })
			testLogFill(t, d, 20)
			testNil(t, d.CreateSnapshot(18, nil, nil))
			d.WaitForBackground()
			if n := d.Stats().SpareFiles; n != 2 {
				t.Fatalf("%d spare files", n)
			}
			before := testLogContent(t, d)
			disk.set(".other", 1)
			testLogIs(t, call(d), mmapwal.ErrNoSpace)
			testLogSame(t, "content", testLogContent(t, d), before)
			if n := d.Stats().SpareFiles; n != 0 {
				t.Errorf("ErrNoSpace, with %d spare files", n)
			}
			disk.set("", 0)
			testLogFill(t, d, 24)
			testNil(t, d.CreateSnapshot(23, nil, nil))
			d.WaitForBackground()
			testLogClose(t, d)
		})
	}
	for suffix, files := range map[string]int{".spare": 2, ".wal": 1} {
		t.Run(suffix, func(t *testing.T) {
			dir, disk := t.TempDir(), new(testFullUntil)
			d := testLogOpen(t, dir, testLogOn(vfstest.New(vfs.OS(), disk.before)), func(o *mmapwal.Options) { o.FileDataSize = 1 << 20 })
			testLogFill(t, d, 20)
			testNil(t, d.CreateSnapshot(18, nil, nil))
			testLogSave(t, d, nil, testLogEntries(21, 21, 1, 200_000)) // the file is nearly full
			d.WaitForBackground()
			if d.Stats().PreparedFiles != 1 {
				t.Fatal("no file was made ahead")
			}
			disk.set(suffix, files)
			testNil(t, d.CreateSnapshot(19, nil, large))
			disk.set("", 0)
			testLogFill(t, d, 24)
			testLogClose(t, d)
			testLogUsable(t, testLogOpen(t, dir), dir)
		})
	}
}
