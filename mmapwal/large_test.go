package mmapwal_test

import (
	"path/filepath"
	"testing"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// TestLargeEntriesLeaveNoEmptyFiles: the file that was made ahead is too small for an entry
// that needs a file of its own, and does not stay in the log without an entry.
func TestLargeEntriesLeaveNoEmptyFiles(t *testing.T) {
	const size = 3 << 19 // half as much again as a file takes
	for name, edit := range testVariants() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := testLogOpen(t, dir, edit)
			for i := uint64(1); i <= 4; i++ {
				testLogSave(t, d, nil, testLogEntries(i, i, 1, size))
				d.WaitForBackground()
				if s := d.Stats(); s.Files != int(i) || s.Rotations != i-1 || d.NumLogFiles() != int(i) {
					t.Fatalf("%d entries: %d files, %d rotations", i, s.Files, s.Rotations)
				}
			}
			want := testLogContent(t, d)
			e := testLogOpen(t, testLogCopyDir(t, dir), edit)
			testLogSame(t, "crashed", testLogContent(t, e), want)
			testLogClose(t, d)
			names, err := filepath.Glob(filepath.Join(dir, "*.wal"))
			if err != nil || len(names) != 4 {
				t.Errorf("%v, %v", names, err)
			}
			testLogSame(t, "closed", testLogContent(t, testLogOpen(t, dir, edit)), want)
		})
	}
}

// TestEmptyTailIsNotCounted: a snapshot leaves a new tail, which is too small for the entry
// behind it.
func TestEmptyTailIsNotCounted(t *testing.T) {
	d := testLogOpen(t, t.TempDir())
	testLogSave(t, d, testLogHard(1, 1, 0), testLogEntries(1, 3, 1, 100))
	if err := d.Save(testLogHard(2, 1, 10), nil, testLogSnapshot(10, 2, []byte("s"))); err != nil {
		t.Fatal(err)
	}
	testLogSave(t, d, nil, testLogEntries(11, 11, 2, 3<<19))
	if s := d.Stats(); s.Files != 1 || s.Rotations != 0 || d.NumLogFiles() != 1 {
		t.Errorf("%d files, %d rotations", s.Files, s.Rotations)
	}
}

func testVariants() map[string]func(o *mmapwal.Options) {
	return map[string]func(o *mmapwal.Options){
		"plain":     func(o *mmapwal.Options) {},
		"encrypted": func(o *mmapwal.Options) { o.Key = make([]byte, 32) },
		"NoSync":    func(o *mmapwal.Options) { o.Sync = mmapwal.NoSync },
	}
}
