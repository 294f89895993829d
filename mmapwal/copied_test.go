package mmapwal_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// TestCopyBeforeFirstPromise: the files of a copy were never synced. With the first thing that the log says
// is durable, all that it builds on is.
func TestCopyBeforeFirstPromise(t *testing.T) {
	seed := testLogSeed(t)
	firsts := map[string]func(d *mmapwal.DiskStorage) error{
		"entries":    func(d *mmapwal.DiskStorage) error { return d.Save(nil, testLogEntries(31, 31, 3, 100), nil) },
		"vote":       func(d *mmapwal.DiskStorage) error { return d.Save(testLogHard(4, 2, 30), nil, nil) },
		"number":     func(d *mmapwal.DiskStorage) error { return d.SetUint(mmapwal.GroupId, 9) },
		"snapshot":   func(d *mmapwal.DiskStorage) error { return d.CreateSnapshot(24, testLogConf(1), []byte("s")) },
		"compaction": func(d *mmapwal.DiskStorage) error { return d.Compact(8) },
		"truncation": func(d *mmapwal.DiskStorage) error { return d.TruncateEntriesUntil(21) },
		"sync":       func(d *mmapwal.DiskStorage) error { return d.Sync() },
	}
	edits := map[string]func(*mmapwal.Options){"HardSync": func(*mmapwal.Options) {}, "encrypted": testLogEncrypted}
	for policy, edit := range edits {
		for _, closed := range []bool{true, false} {
			original := copiedOriginal(t, closed, edit)
			for name, first := range firsts {
				t.Run(fmt.Sprintf("%s/closed=%v/%s", policy, closed, name), func(t *testing.T) {
					disk := original.Copied()
					d := testLogOpen(t, "/log", testLogOn(disk), edit)
					if err := first(d); err != nil {
						t.Fatal(err)
					}
					want := testLogContent(t, d)
					for k := range uint64(8) {
						image := disk.Crash(rand.New(rand.NewPCG(seed, k)))
						again, err := mmapwal.Open("/log", testLogOptions(testLogOn(image), edit))
						if err != nil {
							t.Fatalf("image %d: %v", k, err)
						}
						testLogSame(t, fmt.Sprintf("image %d", k), testLogContent(t, again), want)
						testLogClose(t, again)
					}
				})
			}
		}
	}
}

// copiedOriginal returns a disk with a log of several files, and a snapshot file.
func copiedOriginal(t *testing.T, closed bool, edit func(*mmapwal.Options)) *simdisk.FS {
	t.Helper()
	disk := simdisk.New()
	if err := disk.MkdirAll("/log"); err != nil {
		t.Fatal(err)
	}
	d := testLogOpen(t, "/log", testLogOn(disk), edit, func(o *mmapwal.Options) { o.RetainEntries = 20 })
	for k := range uint64(3) {
		testLogSave(t, d, testLogHard(k+1, 1, 10*k+5), testLogEntries(10*k+1, 10*k+10, k+1, 60_000))
	}
	if err := d.CreateSnapshot(20, testLogConf(1, 2), oracle.Data(20, 2, 9000)); err != nil {
		t.Fatal(err)
	}
	d.WaitForBackground()
	if closed {
		testLogClose(t, d)
		return disk
	}
	return disk.Copied() // as it stands now; the process goes on elsewhere
}

// TestSyncsOfFoundFiles: a log that was closed is opened, and saved to, without a sync of its
// files, however many; unless they are not those that were closed.
func TestSyncsOfFoundFiles(t *testing.T) {
	dir := t.TempDir()
	testLogThreeFiles(t, dir)
	first := func(dir string) (files, all int) {
		t.Helper()
		fsys := vfstest.New(vfs.OS(), func(op vfstest.Op, name string) error {
			if op == vfstest.OpSync && filepath.Ext(name) == ".wal" {
				files++
			}
			return nil
		})
		d := testLogOpen(t, dir, testLogOn(fsys), func(o *mmapwal.Options) { o.FileDataSize = 4 << 20 })
		if n := fsys.Count(vfstest.OpSync, vfstest.OpMsync, vfstest.OpSyncDir); n > 0 && files == 0 {
			t.Errorf("%d syncs to open it", n)
		}
		fsys.Reset()
		files = 0
		last, err := d.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		testLogSave(t, d, nil, testLogEntries(last+1, last+1, 1, 10))
		n := files
		testLogClose(t, d)
		return n, fsys.Count(vfstest.OpSync)
	}
	for range 2 {
		if n, _ := first(dir); n != 0 {
			t.Errorf("%d files synced that Close has synced", n)
		}
	}
	if n, _ := first(testLogCopyDir(t, dir)); n < 3 {
		t.Errorf("%d files of a copy synced, want 3 at least", n)
	}
	putBack(t, filepath.Join(dir, "00002.wal"))
	if n, _ := first(dir); n < 3 {
		t.Errorf("%d files synced where one was put back, want 3 at least", n)
	}
	if n, _ := first(dir); n != 0 {
		t.Errorf("%d files synced that Close has synced again", n)
	}
}

// putBack writes a file in place with what it holds, in another moment of the clock.
func putBack(t *testing.T, name string) {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	stat := func() time.Time {
		infos, err := vfs.OS().List(filepath.Dir(name))
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range infos {
			if info.Name == filepath.Base(name) {
				return info.Changed
			}
		}
		t.Fatal(name + " is gone")
		return time.Time{}
	}
	for before := stat(); stat().Equal(before); {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHolesOnFullDisk: a copy may have holes where the original has blocks. On a full disk it
// opens if it was closed, and what finds no room for them is ErrNoSpace: nothing has changed, and
// it works once there is room.
func TestHolesOnFullDisk(t *testing.T) {
	none := func(*mmapwal.Options) {}
	for _, closed := range []bool{true, false} {
		disk := copiedOriginal(t, closed, none).Copied()
		disk.SetFull(true)
		if !closed { // it has to be recovered first
			_, err := mmapwal.Open("/log", testLogOptions(testLogOn(disk)))
			testLogIs(t, err, mmapwal.ErrNoSpace)
			disk.SetFull(false)
		}
		d := testLogOpen(t, "/log", testLogOn(disk))
		disk.SetFull(true)
		want := testLogContent(t, d)
		calls := map[string]func() error{
			"commit":     func() error { return d.Save(testLogHard(3, 1, 28), nil, nil) },
			"vote":       func() error { return d.Save(testLogHard(4, 1, 29), nil, nil) },
			"entries":    func() error { return d.Save(nil, testLogEntries(31, 32, 4, 1000), nil) },
			"checkpoint": func() error { return d.SetUint(mmapwal.CheckpointIndex, 9) },
			"truncation": func() error { return d.TruncateEntriesUntil(21) },
			"key":        func() error { return d.RotateKey(testLogKey(16, 1)) },
		}
		for range 3 {
			for name, call := range calls {
				if err := call(); !errors.Is(err, mmapwal.ErrNoSpace) && (name != "key" || !errors.Is(err, mmapwal.ErrNotEncrypted)) {
					t.Errorf("closed %v, %s on a full disk: %v", closed, name, err)
				}
			}
		}
		testLogSame(t, "on a full disk", testLogContent(t, d), want)
		disk.SetFull(false)
		for _, name := range []string{"commit", "vote", "entries", "checkpoint", "truncation"} {
			if err := calls[name](); err != nil {
				t.Errorf("closed %v, %s with room: %v", closed, name, err)
			}
		}
		want = testLogContent(t, d)
		testLogClose(t, d)
		testLogSame(t, "reopened", testLogContent(t, testLogOpen(t, "/log", testLogOn(disk))), want)
	}
}
