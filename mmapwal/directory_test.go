package mmapwal_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"golang.org/x/sys/unix"
)

// testLogSmallFiles has a file hold one large entry, and removes what is dead.
func testLogSmallFiles(o *mmapwal.Options) { o.FileDataSize, o.SpareFiles = 1<<20, -1 }

// TestDirectoryStays: an open log stays in its directory, wherever that is moved, and leaves
// alone what takes its place. Both can be opened afterwards.
func TestDirectoryStays(t *testing.T) {
	moves := map[string]func(t *testing.T, one, two string) (now string){
		"the process goes to the other": func(t *testing.T, one, two string) string {
			t.Chdir(filepath.Dir(two))
			return one
		},
		"the other takes its place": func(t *testing.T, one, two string) string {
			now := one + ".old"
			testNil(t, os.Rename(one, now))
			testNil(t, os.Rename(two, one))
			return now
		},
		"a link to the other": func(t *testing.T, one, two string) string {
			now := one + ".old"
			testNil(t, os.Rename(one, now))
			testNil(t, os.Symlink(two, one))
			return now
		},
	}
	for name, move := range moves {
		t.Run(name, func(t *testing.T) {
			one, two := filepath.Join(t.TempDir(), "wal"), filepath.Join(t.TempDir(), "wal")
			t.Chdir(filepath.Dir(two))
			other := testLogOpen(t, "wal", testLogSmallFiles)
			testLogFill(t, other, 3)
			testLogClose(t, other)
			before := testLogDirState(t, two)
			t.Chdir(filepath.Dir(one))
			d := testLogOpen(t, "wal", testLogSmallFiles)
			testLogFill(t, d, 2)
			reader := testLogOpen(t, "wal", testLogReadOnly)
			now := move(t, one, two)
			testLogFill(t, d, 5)
			testNil(t, d.CreateSnapshot(5, nil, make([]byte, 100_000))) // a file of its own
			testLogRange(t, reader, 1, 2)
			testLogClose(t, reader)
			testLogFill(t, d, 7)
			testLogClose(t, d)
			d = testLogOpen(t, now, testLogSmallFiles)
			testLogRange(t, d, 6, 7)
			testLogClose(t, d)
			if _, err := os.Stat(two); err != nil {
				two = one
			}
			if testLogDirState(t, two) != before {
				t.Error("the other log was written to")
			}
			d = testLogOpen(t, two, testLogSmallFiles)
			testLogRange(t, d, 1, 3)
			testLogClose(t, d)
		})
	}
}

// testLogFill saves entries of 700 KB up to an index.
func testLogFill(t *testing.T, d *mmapwal.DiskStorage, to uint64) {
	t.Helper()
	last, err := d.LastIndex()
	testNil(t, err)
	for i := last + 1; i <= to; i++ {
		testLogSave(t, d, testLogHard(1, 1, i), testLogEntries(i, i, 1, 700_000))
	}
}

func testNil(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// testLogKilled moves what a killed process leaves of a log to a directory of its own: the
// same files, which keep their holes, but a wal.meta that nobody has locked.
func testLogKilled(t *testing.T, dir string) (killed string) {
	t.Helper()
	killed = t.TempDir()
	entries, err := os.ReadDir(dir)
	testNil(t, err)
	for _, e := range entries {
		testNil(t, os.Rename(filepath.Join(dir, e.Name()), filepath.Join(killed, e.Name())))
	}
	meta := filepath.Join(killed, "wal.meta")
	content, err := os.ReadFile(meta)
	testNil(t, err)
	testNil(t, os.Remove(meta))
	testLogWriteFile(t, meta, content)
	return killed
}

// testLogBlocks returns how many bytes of disk a directory's files take.
func testLogBlocks(t *testing.T, dir string) (bytes int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	testNil(t, err)
	for _, e := range entries {
		var stat unix.Stat_t
		testNil(t, unix.Stat(filepath.Join(dir, e.Name()), &stat))
		bytes += stat.Blocks * 512
	}
	return bytes
}

// canPunch reports whether the file system of the temporary directory gives blocks back.
func canPunch(t *testing.T) bool {
	t.Helper()
	f, err := vfs.OS().Create(filepath.Join(t.TempDir(), "f"))
	testNil(t, err)
	defer f.Close()
	testNil(t, f.Truncate(8192))
	return !errors.Is(f.Punch(0, 4096), errors.ErrUnsupported)
}

// TestSpaceOfRestarts: a start that ends with a kill after one small entry costs about what
// it stored, not what it made ready for more. The log stays whole.
func TestSpaceOfRestarts(t *testing.T) {
	if !canPunch(t) {
		t.Skip("the file system of the temporary directory gives no blocks back")
	}
	for name, edits := range map[string][]func(*mmapwal.Options){"plain": nil, "encrypted": {testLogEncrypted}, "not synced": {testLogNoSync}} {
		t.Run(name, func(t *testing.T) {
			const starts, each = 10, 64 << 10
			dir, first := t.TempDir(), int64(0)
			for i := uint64(1); i <= starts; i++ {
				d := testLogOpen(t, dir, edits...)
				testLogSave(t, d, testLogHard(1, 1, i-1), testLogEntries(i, i, 1, 100))
				dir = testLogKilled(t, dir)
				if i == 2 {
					first = testLogBlocks(t, dir)
				}
			}
			if grown := testLogBlocks(t, dir) - first; grown > (starts-2)*each {
				t.Errorf("%d starts cost %d KiB of disk", starts-2, grown>>10)
			}
			d := testLogOpen(t, dir, edits...)
			testLogRange(t, d, 1, starts)
			testLogSave(t, d, nil, testLogEntries(starts+1, starts+1, 1, 100))
			testLogClose(t, d)
			d = testLogOpen(t, dir, edits...)
			testLogRange(t, d, 1, starts+1)
			testLogClose(t, d)
		})
	}
}
