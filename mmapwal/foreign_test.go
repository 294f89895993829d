package mmapwal_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// TestForeignNames: files that have names of the log, but are not its, are neither removed nor
// overwritten, whatever the log does; leftovers of its own are removed.
func TestForeignNames(t *testing.T) {
	other := t.TempDir() // another log: its files have the right magic numbers
	d := testLogOpen(t, other, testLogSmallFiles)
	testLogFill(t, d, 9)
	testNil(t, d.CreateSnapshot(8, nil, make([]byte, 10_000)))
	testLogClose(t, d)
	snapshots, err := filepath.Glob(filepath.Join(other, "*.snap"))
	testNil(t, err)
	entryFiles, err := filepath.Glob(filepath.Join(other, "*.wal"))
	testNil(t, err)
	if len(snapshots) == 0 || len(entryFiles) == 0 {
		t.Fatal("no files")
	}
	for _, clean := range []bool{true, false} {
		dir := t.TempDir()
		d := testLogOpen(t, dir, func(o *mmapwal.Options) { o.FileDataSize = 1 << 20 })
		testLogFill(t, d, 6)
		testNil(t, d.CreateSnapshot(5, nil, nil))
		d.WaitForBackground()
		if clean {
			testLogClose(t, d)
		} else {
			dir = testLogCopyDir(t, dir)
		}
		text := []byte("an etcd snapshot, of somebody else")
		foreign := map[string][]byte{
			"0000000000000002-0000000000000010.snap": text, "0000000000000001-0000000000000007.snap": text,
			"0000000000000001-0000000000000007.snap.tmp": text, "00009.wal.tmp": text, "00011.spare": text, "00001.wal": text,
			"wal.meta.tmp": text, "0000000000000001-0000000000000012.snap.1.tmp": text, // that of entry 18
		}
		foreign["0000000000000003-0000000000000011.snap"], _ = os.ReadFile(snapshots[0])
		foreign["00012.spare"], _ = os.ReadFile(entryFiles[0])
		own := "0000000000000001-0000000000000003.snap.tmp"
		testLogWriteFile(t, filepath.Join(dir, own), make([]byte, 4096)) // a torn one
		for name, content := range foreign {
			testLogWriteFile(t, filepath.Join(dir, name), content)
		}
		testNil(t, unix.Mkfifo(filepath.Join(dir, "00013.spare"), 0o600))
		var lines testLogLines
		d = testLogOpen(t, dir, testLogLogged(&lines), func(o *mmapwal.Options) { o.FileDataSize = 1 << 20 })
		testLogFill(t, d, 7)
		err := d.CreateSnapshot(7, nil, make([]byte, 10_000)) // has the name of a foreign file
		testLogIs(t, err, fs.ErrExist)
		testLogFill(t, d, 20)
		testNil(t, d.CreateSnapshot(18, nil, make([]byte, 10_000)))
		testLogFill(t, d, 30)
		testNil(t, d.CreateSnapshot(28, nil, nil))
		d.WaitForBackground()
		testLogClose(t, d)
		d = testLogOpen(t, dir, func(o *mmapwal.Options) { o.SpareFiles = -1 })
		testLogRange(t, d, 29, 30)
		testLogClose(t, d)
		for name, content := range foreign {
			got, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil || string(got) != string(content) {
				t.Errorf("clean %t: %s: %d bytes of %d are left; error %v", clean, name, len(got), len(content), err)
			}
			if !strings.Contains(lines.String(), name) {
				t.Errorf("clean %t: nobody is told of %s", clean, name)
			}
		}
		if info, err := os.Lstat(filepath.Join(dir, "00013.spare")); err != nil || info.Mode()&fs.ModeNamedPipe == 0 {
			t.Errorf("clean %t: the FIFO is gone: %v", clean, err)
		}
		if _, err := os.Lstat(filepath.Join(dir, own)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("clean %t: %s is left: %v", clean, own, err)
		}
	}
}

// TestForeignAside: nor is a file overwritten that has the name under which a damaged file is
// copied before it is put aside.
func TestForeignAside(t *testing.T) {
	dir := t.TempDir()
	testLogThreeFiles(t, dir)
	testLogFlipRecord("00003.wal", 21)(t, dir)
	name, text := filepath.Join(dir, "00003.wal.tmp"), "somebody else's"
	testLogWriteFile(t, name, []byte(text))
	_, err := mmapwal.Open(dir, testLogOptions(testLogKeepPrefix))
	testLogIs(t, err, fs.ErrExist)
	if got, err := os.ReadFile(name); string(got) != text {
		t.Errorf("%q is left of it; error %v", got, err)
	}
	testNil(t, os.Remove(name))
	testLogRange(t, testLogOpen(t, dir, testLogKeepPrefix), 1, 20)
}
