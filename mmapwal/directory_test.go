package mmapwal_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
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
