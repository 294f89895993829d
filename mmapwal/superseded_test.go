package mmapwal_test

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"github.com/seed-2fef92ad/raftwal/backup"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/seed-2fef92ad/raftwal/internal/repair"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// testLogOpens fails the test unless the log in dir, which nobody has open for writing, needs no
// repair, and opens with what it holds.
func testLogOpens(t testing.TB, dir, want string) {
	t.Helper()
	p, err := repair.Rehearse(t.Context(), dir, repair.Options{Host: host.OS()})
	if err != nil {
		t.Fatalf("repair: %v", err)
	}
	defer p.Close()
	if r := p.Report; r.Damaged || r.Lost != nil || r.Refused != "" || r.Before != r.After {
		t.Fatalf("repair: %+v", r)
	}
	for _, recovery := range []func(*mmapwal.Options){func(*mmapwal.Options) {}, testLogKeepPrefix} {
		copied := testLogCopyDir(t, dir)
		d := testLogOpen(t, copied, recovery)
		if r := d.Stats().Recovery; len(r.SetAside) > 0 {
			t.Fatalf("set aside: %v", r.SetAside)
		}
		testLogSame(t, "opened", testLogContent(t, d), want)
		testLogUsable(t, d, copied)
	}
}

// testLogHealthy fails the test unless a reader, verify, and a backup that is restored say that
// the log in dir is undamaged and holds want. Its owner may be alive.
func testLogHealthy(t testing.TB, dir, want string) {
	t.Helper()
	l, err := inspect.Look(t.Context(), vfs.OS(), dir, inspect.Options{Check: true})
	if err != nil {
		t.Fatalf("inspect: %v", err)
	}
	for _, p := range l.Problems {
		if p.Severity == inspect.Damage {
			t.Fatalf("inspect: %+v", p)
		}
	}
	d := testLogOpen(t, dir, testLogReadOnly)
	testLogSame(t, "read", testLogContent(t, d), want)
	var out bytes.Buffer
	if _, err := d.Backup(context.Background(), &out); err != nil {
		t.Fatalf("backup: %v", err)
	}
	testLogClose(t, d)
	restored := filepath.Join(t.TempDir(), "restored")
	if _, err := backup.Restore(t.Context(), restored, nil, &out); err != nil {
		t.Fatalf("restore: %v", err)
	}
	d = testLogOpen(t, restored, testLogReadOnly)
	testLogSame(t, "restored", testLogContent(t, d), want)
	testLogClose(t, d)
}

// testLogConflicts makes a log whose suffixes were replaced over the borders of files, again
// and deeper, and hands it to check: nothing of it is damaged. Three entries fill a file.
func testLogConflicts(t *testing.T, snapshot uint64, saves [][3]uint64, check func(d *mmapwal.DiskStorage, dir string)) {
	t.Helper()
	dir := t.TempDir()
	d := testLogOpen(t, dir)
	testLogSaves(t, d, saves)
	if snapshot > 0 {
		if err := d.CreateSnapshot(snapshot, testLogConf(1, 2, 3), []byte("state")); err != nil {
			t.Fatal(err)
		}
	}
	d.WaitForBackground()
	check(d, dir)
	want := testLogContent(t, d)
	testLogClose(t, d)
	testLogOpens(t, dir, want)
}

// testLogSaves saves entries, from the first to the last of a term, and commits all.
func testLogSaves(t *testing.T, d *mmapwal.DiskStorage, saves [][3]uint64) {
	t.Helper()
	for _, s := range saves {
		for i := s[0]; i <= s[1]; i++ {
			testLogSave(t, d, testLogHard(s[2], 1, 0), testLogEntries(i, i, s[2], 300_000))
		}
	}
	last := saves[len(saves)-1]
	testLogSave(t, d, testLogHard(last[2], 1, last[1]), nil)
}

// testLogNested are histories in which a file is superseded as a whole, and again.
var testLogNested = map[string]struct {
	saves    [][3]uint64
	snapshot uint64
}{
	"two conflicts, the second deeper":         {[][3]uint64{{1, 8, 1}, {5, 5, 2}, {3, 4, 3}, {5, 6, 3}}, 3},
	"a conflict for each file":                 {[][3]uint64{{1, 12, 1}, {11, 11, 2}, {8, 9, 3}, {5, 5, 4}, {2, 4, 5}}, 2},
	"of files that had replaced others":        {[][3]uint64{{1, 9, 1}, {4, 9, 2}, {5, 9, 3}, {6, 9, 4}, {2, 7, 5}}, 4},
	"the whole log is replaced":                {[][3]uint64{{1, 9, 1}, {5, 9, 2}, {1, 4, 3}}, 0},
	"what was replaced is behind the new end":  {[][3]uint64{{1, 12, 1}, {9, 12, 2}, {3, 3, 3}}, 3},
	"compacted up to where all were replaced":  {[][3]uint64{{1, 9, 1}, {7, 9, 2}, {4, 9, 3}}, 6},
	"compacted to the last entry that is left": {[][3]uint64{{1, 9, 1}, {7, 9, 2}, {4, 5, 3}}, 5},
}

// TestNestedConflicts: a killed log opens, and nobody calls it damaged, wherever files lie of
// which nothing counts.
func TestNestedConflicts(t *testing.T) {
	for name, test := range testLogNested {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits for the disk
			testLogConflicts(t, test.snapshot, test.saves, func(d *mmapwal.DiskStorage, dir string) {
				want := testLogContent(t, d)
				testLogHealthy(t, dir, want)
				testLogOpens(t, testLogCopyDir(t, dir), want)
			})
		})
	}
}

// TestSupersededFileInFront: an earlier engine made a file of which nothing counts the first live
// one.
func TestSupersededFileInFront(t *testing.T) {
	for name, test := range testLogNested {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits for the disk
			testLogConflicts(t, 0, test.saves, func(d *mmapwal.DiskStorage, dir string) {
				copied := testLogCopyDir(t, dir)
				at := max(test.snapshot, 1)
				if err := d.CreateSnapshot(at, testLogConf(1, 2, 3), []byte("state")); err != nil {
					t.Fatal(err)
				}
				want := testLogContent(t, d)
				term, err := d.Term(at)
				if err != nil {
					t.Fatal(err)
				}
				first := testLogSuperseded(t, copied, at)
				if len(first) == 0 {
					t.Fatal("no file is superseded as a whole")
				}
				for _, number := range first {
					testLogCompact(t, copied, number, at, term)
					d := testLogOpen(t, copied, testLogReadOnly)
					testLogSame(t, "read", testLogContent(t, d), want)
					testLogClose(t, d)
				}
				testLogHealthy(t, copied, want)
				testLogOpens(t, copied, want)
			})
		})
	}
}

// testLogSuperseded returns the numbers of the files that are superseded as a whole, in front of
// those with entries behind compacted.
func testLogSuperseded(t *testing.T, dir string, compacted uint64) (numbers []uint64) {
	t.Helper()
	l, err := inspect.Look(t.Context(), vfs.OS(), dir, inspect.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range l.Files {
		switch {
		case file.Last > compacted:
			return numbers
		case file.Records > 0 && file.First == 0:
			numbers = append(numbers, file.Number)
		}
	}
	return numbers
}

// testLogCompact makes wal.meta say that a log is compacted, and which file is its first.
func testLogCompact(t *testing.T, dir string, number, index, term uint64) {
	t.Helper()
	f, err := metafile.Open(vfs.OS(), dir, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := f.Meta()
	if err := m.SetSnapshot(testLogSnapshot(index, term, []byte("state")), false); err != nil {
		t.Fatal(err)
	}
	m.Compacted, m.FirstFile = metafile.Position{Index: index, Term: term}, number
	if err := f.Restore(); err != nil {
		t.Fatal(err)
	}
	if err := f.Commit(m); err != nil {
		t.Fatal(err)
	}
}

// TestRotInSupersededRecords: a record that does not count is damaged while the log is in use.
// Close cannot write the slots of its file anew; the log opens as if it could.
func TestRotInSupersededRecords(t *testing.T) {
	for name, test := range testLogNested {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits for the disk
			dir := t.TempDir()
			d := testLogOpen(t, dir)
			testLogSaves(t, d, test.saves)
			d.WaitForBackground()
			last, _ := d.LastIndex()
			dead := testLogSuperseded(t, dir, last-1)
			for _, number := range dead {
				path := filepath.Join(dir, entryfile.Name(number))
				testLogFlip(t, path, entryfile.DataStart+100)
			}
			want := testLogContent(t, d)
			testLogClose(t, d)
			testLogOnlyRot(t, dir, len(dead))
			for range 2 {
				d = testLogOpen(t, dir)
				testLogSame(t, "opened", testLogContent(t, d), want)
				testLogUsable(t, d, dir)
				want = testLogContentOf(t, dir)
			}
			testLogOnlyRot(t, dir, len(dead))
		})
	}
}

// testLogOnlyRot fails the test unless verify finds n damaged records, of no entry that
// counts, and repair loses nothing.
func testLogOnlyRot(t *testing.T, dir string, n int) {
	t.Helper()
	l, err := inspect.Look(t.Context(), vfs.OS(), dir, inspect.Options{Check: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range l.Problems {
		switch {
		case p.Severity == inspect.Damage && p.Kind != inspect.KindRecord:
			t.Fatalf("inspect: %+v", p)
		case p.Severity == inspect.Damage:
			n--
		}
	}
	p, err := repair.Rehearse(t.Context(), dir, repair.Options{Host: host.OS()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if r := p.Report; n != 0 || r.Lost != nil || r.Refused != "" || r.Before != r.After {
		t.Fatalf("%d more damaged records; repair: %+v", n, r)
	}
}
