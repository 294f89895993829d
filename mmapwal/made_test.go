package mmapwal_test

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// testCutPower returns what a power cut leaves of a disk if nothing is written that was
// not synced.
func testCutPower(disk *simdisk.FS) *simdisk.FS {
	return disk.Remains().Image(func(int) simdisk.Fate { return simdisk.Fate{} })
}

func testHost(fsys vfs.FS, run func(f func())) host.Host {
	return host.Host{FS: fsys, Random: rand.Reader, Go: run, After: host.Never}
}

// TestDiedWhileMade: of a log whose first process died while it made wal.meta, wherever,
// what the next one saves is not lost.
func TestDiedWhileMade(t *testing.T) {
	never := func(func()) {} // the background comes too late
	for n := 1; ; n++ {
		disk := simdisk.New()
		disk.CutAt(n)
		_, err := mmapwal.OpenOn(testHost(disk, never), "/log", nil)
		if err == nil {
			if n < 8 {
				t.Errorf("only %d steps were cut", n-1)
			}
			return
		}
		disk.Restart()
		d, err := mmapwal.OpenOn(testHost(disk, never), "/log", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Save(testLogHard(3, 2, 0), nil, nil); err != nil {
			t.Fatal(err)
		}
		image := testCutPower(disk)
		if d, err = mmapwal.OpenOn(testHost(image, never), "/log", nil); err != nil {
			t.Fatal(err)
		}
		if h, err := d.HardState(); h.GetVote() != 2 || err != nil {
			t.Fatalf("died at step %d: the vote is %d, %v", n, h.GetVote(), err)
		}
	}
}

// TestFilesOfARefusedSave: what was made for a Save that found no room is gone, durably,
// when the log is closed.
func TestFilesOfARefusedSave(t *testing.T) {
	disk := simdisk.New()
	h := testHost(disk, func(f func()) { f() })
	o := testLogOptions()
	o.FileDataSize = 1 << 20
	d, err := mmapwal.OpenOn(h, "/log", o)
	if err != nil {
		t.Fatal(err)
	}
	testLogSave(t, d, testLogHard(1, 1, 0), testLogEntries(1, 1, 1, 100))
	disk.SetHook(func(_ simdisk.Op, name string) error {
		if strings.Contains(name, "00004") {
			return syscall.ENOSPC
		}
		return nil
	})
	testLogIs(t, d.Save(nil, testLogEntries(2, 4, 1, 1<<20-100), nil), mmapwal.ErrNoSpace)
	disk.SetHook(nil)
	testLogSave(t, d, nil, testLogEntries(2, 2, 1, 800<<10))
	testLogSave(t, d, nil, testLogEntries(3, 3, 1, 600<<10))
	testLogClose(t, d)
	h.FS = testCutPower(disk)
	if d, err = mmapwal.OpenOn(h, "/log", o); err != nil {
		t.Fatal(err)
	}
	testLogRange(t, d, 1, 3)
}

// TestCutShortUnsynced: a file that somebody cuts short is not made longer again.
func TestCutShortUnsynced(t *testing.T) {
	dir := t.TempDir()
	d := testLogOpen(t, dir, testLogNoSync, func(o *mmapwal.Options) { o.FileDataSize = 16 << 20 })
	testLogSave(t, d, nil, testLogEntries(1, 5, 1, 100_000))
	d.WaitForBackground()
	name := filepath.Join(dir, "00001.wal")
	const size = 1<<20 + 300_000
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
	if err := d.Save(nil, testLogEntries(6, 6, 1, 4<<20), nil); !errors.Is(err, mmapwal.ErrCorrupt) {
		t.Errorf("a Save to what was cut off: %v", err)
	}
	if info, err := os.Stat(name); err != nil || info.Size() != size {
		t.Errorf("%v, %v, want it to be left at %d bytes", info, err, size)
	}
}

// TestCopiedLog: a closed log of which the disk has all but a header page, as of a copy
// that was not synced, loses nothing that is saved to it.
func TestCopiedLog(t *testing.T) {
	original, disk := simdisk.New(), simdisk.New()
	at := func(f func()) { f() }
	o := testLogOptions()
	o.FileDataSize = 1 << 20
	d, err := mmapwal.OpenOn(testHost(original, at), "/log", o)
	if err != nil {
		t.Fatal(err)
	}
	testLogSave(t, d, testLogHard(1, 1, 0), testLogEntries(1, 3, 1, 100))
	testLogClose(t, d)
	testCopyAllButHeader(t, original, disk, "/log")
	if d, err = mmapwal.OpenOn(testHost(disk, at), "/log", o); err != nil {
		t.Fatal(err)
	}
	testLogSave(t, d, nil, testLogEntries(4, 5, 1, 100))
	if d, err = mmapwal.OpenOn(testHost(testCutPower(disk), at), "/log", o); err != nil {
		t.Fatal(err)
	}
	testLogRange(t, d, 1, 5)
}

// testCopyAllButHeader copies the files of a directory and syncs them, but for the header
// pages of entry files.
func testCopyAllButHeader(t *testing.T, from, to *simdisk.FS, dir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(to.MkdirAll(dir))
	infos, err := from.List(dir)
	must(err)
	for _, info := range infos {
		name := filepath.Join(dir, info.Name)
		f, err := from.Open(name, true)
		must(err)
		content := make([]byte, info.Size)
		_, err = f.ReadAt(content, 0)
		must(err)
		g, err := to.Create(name)
		must(err)
		first := slices.Clone(content)
		if strings.HasSuffix(name, entryfile.Suffix) {
			clear(first[entryfile.HeaderPages[0]:entryfile.DataStart])
		}
		for _, p := range [][]byte{first, content} {
			_, err = g.WriteAt(p, 0)
			must(err)
			if &p[0] == &first[0] {
				must(g.Sync())
			}
		}
		must(g.Close())
	}
	must(to.SyncDir(dir))
}
