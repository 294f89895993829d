package mmapwal_test

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// testLogBase makes a log with entries 6 to 30 behind a snapshot at 5; the term
// is 1 up to entry 10, 2 up to 20, and 3 behind that.
func testLogBase(t testing.TB, dir string, edits ...func(*mmapwal.Options)) *mmapwal.DiskStorage {
	t.Helper()
	d := testLogOpen(t, dir, edits...)
	for term := uint64(1); term <= 3; term++ {
		testLogSave(t, d, testLogHard(term, 1, 10*term-2), testLogEntries(10*term-9, 10*term, term, 50))
	}
	if err := d.CreateSnapshot(5, testLogConf(1, 2, 3), []byte("state")); err != nil {
		t.Fatal(err)
	}
	if err := d.SetUint(mmapwal.RaftId, 7); err != nil {
		t.Fatal(err)
	}
	return d
}

type testLogBad struct {
	name string
	do   func(d *mmapwal.DiskStorage) error
	want []error
}

// testLogBadSave is a Save of es, together with a hard state that must not be
// stored either.
func testLogBadSave(name string, es ...*raftpb.Entry) testLogBad {
	return testLogBad{name, func(d *mmapwal.DiskStorage) error {
		return d.Save(testLogHard(9, 2, 29), es, nil)
	}, []error{mmapwal.ErrInvalid}}
}

func testLogTyped(i, term uint64, typ int32) *raftpb.Entry {
	e := testLogEntry(i, term, 10)
	e.Type = new(raftpb.EntryType(typ))
	return e
}

func testLogBadEntries() []testLogBad {
	tooLarge := &raftpb.Entry{Index: new(uint64(32)), Term: new(uint64(3)), Data: make([]byte, 1<<30+1)}
	return []testLogBad{
		testLogBadSave("gap behind the log", testLogEntry(32, 3, 10)),
		testLogBadSave("gap in the slice", testLogEntry(31, 3, 10), testLogEntry(33, 3, 10)),
		testLogBadSave("index twice", testLogEntry(31, 3, 10), testLogEntry(31, 3, 10)),
		testLogBadSave("falling index", testLogEntry(31, 3, 10), testLogEntry(30, 3, 10)),
		testLogBadSave("term falls in the slice", testLogEntry(31, 5, 10), testLogEntry(32, 4, 10)),
		testLogBadSave("term falls behind the log", testLogEntry(31, 2, 10)),
		testLogBadSave("term falls where a suffix is replaced", testLogEntry(15, 1, 10)),
		testLogBadSave("term falls behind the compacted entry", testLogEntry(6, 0, 10)),
		testLogBadSave("index 0", testLogEntry(0, 3, 10)),
		testLogBadSave("highest index", testLogEntry(math.MaxUint64, 3, 10)),
		testLogBadSave("term 0", testLogEntry(31, 0, 10)),
		testLogBadSave("no fields", &raftpb.Entry{}),
		testLogBadSave("type below 0", testLogTyped(31, 3, -1)),
		testLogBadSave("type above 255", testLogTyped(31, 3, 256)),
		testLogBadSave("nil entry", nil),
		testLogBadSave("nil entry behind a good one", testLogEntry(31, 3, 10), nil),
		testLogBadSave("too large", testLogEntry(31, 3, 10), tooLarge),
		testLogBadSave("bad entry far behind good ones", append(testLogEntries(31, 5000, 3, 500), testLogEntry(5001, 2, 10))...),
	}
}

func testLogBadSnapshots() []testLogBad {
	save := func(snap *raftpb.Snapshot, es ...*raftpb.Entry) func(d *mmapwal.DiskStorage) error {
		return func(d *mmapwal.DiskStorage) error { return d.Save(testLogHard(9, 2, 29), es, snap) }
	}
	create := func(i uint64, cs *raftpb.ConfState) func(d *mmapwal.DiskStorage) error {
		return func(d *mmapwal.DiskStorage) error { return d.CreateSnapshot(i, cs, []byte("new")) }
	}
	members := make([]uint64, 3000)
	large := make([]byte, 5000)
	crowded := testLogSnapshot(40, 4, large)
	crowded.Metadata.ConfState.Voters = members
	return []testLogBad{
		{"old snapshot", save(testLogSnapshot(4, 1, nil)), []error{raft.ErrSnapOutOfDate}},
		{"present snapshot", save(testLogSnapshot(5, 1, nil)), []error{raft.ErrSnapOutOfDate}},
		{"present snapshot beside entries", save(testLogSnapshot(5, 1, nil), testLogEntry(31, 3, 10)), []error{raft.ErrSnapOutOfDate}},
		{"snapshot of index 0 with members", save(testLogSnapshot(0, 0, nil)), []error{raft.ErrSnapOutOfDate}},
		{"new snapshot beside a gap", save(testLogSnapshot(40, 4, large), testLogEntry(42, 4, 10)), []error{mmapwal.ErrInvalid}},
		{"new snapshot beside a falling term", save(testLogSnapshot(40, 4, large), testLogEntry(41, 3, 10)), []error{mmapwal.ErrInvalid}},
		{"snapshot of the highest index", save(testLogSnapshot(math.MaxUint64, 4, nil)), []error{mmapwal.ErrInvalid}},
		{"snapshot of term 0", save(testLogSnapshot(40, 0, nil)), []error{mmapwal.ErrInvalid}},
		{"backup to nil", func(d *mmapwal.DiskStorage) error { _, err := d.Backup(context.Background(), nil); return err }, []error{mmapwal.ErrInvalid}},
		{"snapshot of too many members", save(testLogSnapshotOf(40, 4, members)), []error{mmapwal.ErrInvalid}},
		{"large snapshot of too many members", save(crowded), []error{mmapwal.ErrInvalid}},
		{"create too many members", create(20, &raftpb.ConfState{Voters: members}), []error{mmapwal.ErrInvalid}},
		{"create old", create(4, nil), []error{raft.ErrSnapOutOfDate}},
		{"create present", create(5, nil), []error{raft.ErrSnapOutOfDate}},
		{"create at 0", create(0, nil), []error{raft.ErrSnapOutOfDate}},
		{"create beyond the log", create(31, nil), []error{mmapwal.ErrInvalid, raft.ErrUnavailable}},
	}
}

func testLogSnapshotOf(i, term uint64, members []uint64) *raftpb.Snapshot {
	snap := testLogSnapshot(i, term, nil)
	snap.Metadata.ConfState.Voters = members
	return snap
}

func testLogBadCalls() []testLogBad {
	entries := func(lo, hi uint64) func(d *mmapwal.DiskStorage) error {
		return func(d *mmapwal.DiskStorage) error {
			es, err := d.Entries(lo, hi, 1<<40)
			if es != nil {
				return errors.New("entries beside an error")
			}
			return err
		}
	}
	term := func(i uint64) func(d *mmapwal.DiskStorage) error {
		return func(d *mmapwal.DiskStorage) error { _, err := d.Term(i); return err }
	}
	compact := func(i uint64) func(d *mmapwal.DiskStorage) error {
		return func(d *mmapwal.DiskStorage) error { return d.Compact(i) }
	}
	set := func(info mmapwal.MetaInfo) func(d *mmapwal.DiskStorage) error {
		return func(d *mmapwal.DiskStorage) error { return d.SetUint(info, 99) }
	}
	invalid := []error{mmapwal.ErrInvalid}
	return []testLogBad{
		{"entries upside down", entries(20, 10), invalid},
		{"entries compacted", entries(5, 10), []error{raft.ErrCompacted}},
		{"entries of index 0", entries(0, 10), []error{raft.ErrCompacted}},
		{"entries beyond the log", entries(20, 32), []error{raft.ErrUnavailable}},
		{"entries far beyond the log", entries(1<<63, 1<<63+1), []error{raft.ErrUnavailable}},
		{"entries up to the highest index", entries(6, 1<<64-1), []error{raft.ErrUnavailable}},
		{"term compacted", term(4), []error{raft.ErrCompacted}},
		{"term beyond the log", term(31), []error{raft.ErrUnavailable}},
		{"compact 0", compact(0), []error{raft.ErrCompacted}},
		{"compact what is compacted", compact(5), []error{raft.ErrCompacted}},
		{"compact beyond the snapshot", compact(6), invalid},
		{"compact beyond the log", compact(31), []error{mmapwal.ErrInvalid, raft.ErrUnavailable}},
		{"set the snapshot's index", set(mmapwal.SnapshotIndex), invalid},
		{"set the snapshot's term", set(mmapwal.SnapshotTerm), invalid},
		{"set an unknown number", set(99), invalid},
		{"set a negative number", set(-1), invalid},
	}
}

// TestBadInput: no bad argument changes the log, on disk or in memory.
func TestBadInput(t *testing.T) {
	cases := append(append(testLogBadEntries(), testLogBadSnapshots()...), testLogBadCalls()...)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			d := testLogBase(t, dir)
			content, files := testLogContent(t, d), testLogDirState(t, dir)
			testLogIs(t, c.do(d), c.want...)
			testLogSame(t, "content", testLogContent(t, d), content)
			testLogSame(t, "files", testLogDirState(t, dir), files)
			testLogUsable(t, d, dir)
		})
	}
}

// TestReplacedSuffixMayHaveHigherTerms: terms are compared with what stays.
func TestReplacedSuffixMayHaveHigherTerms(t *testing.T) {
	dir := t.TempDir()
	d := testLogBase(t, dir)
	testLogSave(t, d, nil, testLogEntries(15, 16, 2, 10))
	if last, _ := d.LastIndex(); last != 16 {
		t.Fatalf("last index %d, want 16", last)
	}
	testLogUsable(t, d, dir)
}

// TestCompactedEntriesAreIgnored: as raft's MemoryStorage does.
func TestCompactedEntriesAreIgnored(t *testing.T) {
	dir := t.TempDir()
	d := testLogBase(t, dir)
	content := testLogContent(t, d)
	testLogSave(t, d, nil, testLogEntries(1, 5, 1, 10))
	testLogSame(t, "content", testLogContent(t, d), content)
	testLogSave(t, d, nil, testLogEntries(3, 7, 1, 10))
	if last, _ := d.LastIndex(); last != 7 {
		t.Fatalf("last index %d, want 7", last)
	}
	testLogUsable(t, d, dir)
}

// TestBadOptions: they are refused before anything is made.
func TestBadOptions(t *testing.T) {
	edits := map[string]func(o *mmapwal.Options){
		"file size 1":              func(o *mmapwal.Options) { o.FileDataSize = 1 },
		"file size below 1 MiB":    func(o *mmapwal.Options) { o.FileDataSize = 1<<20 - 1 },
		"file size above 16 GiB":   func(o *mmapwal.Options) { o.FileDataSize = 16<<30 + 1 },
		"negative file size":       func(o *mmapwal.Options) { o.FileDataSize = -1 },
		"recovery policy":          func(o *mmapwal.Options) { o.Recovery = 2 },
		"read only, but to repair": func(o *mmapwal.Options) { o.ReadOnly, o.Recovery = true, mmapwal.KeepValidPrefix },
		"unsynced bytes":           func(o *mmapwal.Options) { o.MaxUnsyncedBytes = -1 },
		"sync policy 3":            func(o *mmapwal.Options) { o.SetSyncMode(3) },
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "log")
			_, err := mmapwal.Open(dir, testLogOptions(edit))
			testLogIs(t, err, mmapwal.ErrInvalid)
			if testLogExists(dir) {
				t.Fatal("the directory was made")
			}
		})
	}
}

func TestNoDirectoryName(t *testing.T) {
	t.Chdir(t.TempDir())
	_, err := mmapwal.Init("")
	testLogIs(t, err, mmapwal.ErrInvalid)
	if infos, _ := os.ReadDir("."); len(infos) > 0 {
		t.Fatalf("%v was made", infos)
	}
}

// TestSnapshotOfIndexZero: it starts a group, and is refused once that has begun.
func TestSnapshotOfIndexZero(t *testing.T) {
	start := func(size int, voters ...uint64) *raftpb.Snapshot {
		s := testLogSnapshotOf(0, 0, voters)
		s.Data = make([]byte, size)
		return s
	}
	for name, begin := range map[string]func(d *mmapwal.DiskStorage) error{
		"hard state": func(d *mmapwal.DiskStorage) error { return d.Save(testLogHard(1, 1, 0), nil, nil) },
		"entry":      func(d *mmapwal.DiskStorage) error { return d.Save(nil, testLogEntries(1, 1, 1, 10), nil) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := testLogOpen(t, dir)
			for _, s := range []*raftpb.Snapshot{start(10, 1), start(1000, 1, 2, 3)} {
				if err := d.Save(nil, nil, s); err != nil {
					t.Fatal(err)
				}
			}
			want := testLogContent(t, d)
			testLogIs(t, d.Save(nil, nil, start(5000, 1)), mmapwal.ErrInvalid)
			testLogSame(t, "content", testLogContent(t, d), want)
			if err := begin(d); err != nil {
				t.Fatal(err)
			}
			want = testLogContent(t, d)
			testLogIs(t, d.Save(nil, nil, start(10, 1)), raft.ErrSnapOutOfDate)
			testLogSame(t, "content", testLogContent(t, d), want)
			testLogClose(t, d)
			testLogSame(t, "reopened", testLogContentOf(t, dir), want)
		})
	}
}

func TestOptionsAreOptional(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "log")
	d, err := mmapwal.Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	testLogUsable(t, d, dir)
	o := testLogOptions()
	d, err = mmapwal.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	o.ReadOnly, o.Sync, o.FileDataSize = true, mmapwal.NoSync, -1 // a copy was taken
	testLogUsable(t, d, dir)
}

// testLogRefused is a directory that Open must refuse and leave as it is.
type testLogRefused struct {
	name    string
	prepare func(t *testing.T, dir string) // dir holds a log of three files, closed
	want    []error
	says    string // in the message
	file    string // that a *CorruptError names, if not ""
}

// testLogThreeFiles makes a log of files 1 to 3 and closes it.
func testLogThreeFiles(t testing.TB, dir string, edits ...func(*mmapwal.Options)) {
	t.Helper()
	d := testLogOpen(t, dir, edits...)
	for k := range uint64(3) {
		testLogSave(t, d, testLogHard(1, 1, 1), testLogEntries(8*k+1, 8*k+8, 1, 110_000))
	}
	if n := d.NumLogFiles(); n != 3 {
		t.Fatalf("%d files, want 3", n)
	}
	testLogClose(t, d)
}

func testLogRemove(names ...string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		for _, name := range names {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func testLogCut(name string, size int64) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		if err := os.Truncate(filepath.Join(dir, name), size); err != nil {
			t.Fatal(err)
		}
	}
}

func testLogRename(from, to string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
}

// testLogOnly replaces the content of the directory with one file.
func testLogOnly(name string, content []byte) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		testLogRemove("00001.wal", "00002.wal", "00003.wal", "wal.meta")(t, dir)
		testLogWriteFile(t, filepath.Join(dir, name), content)
	}
}

// testLogOfAnother puts a file of another log in the place of one of this.
func testLogOfAnother(name string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		other := t.TempDir()
		testLogThreeFiles(t, other)
		testLogCopyFile(t, filepath.Join(other, name), filepath.Join(dir, name))
	}
}

func testLogEditPages(edit func(p []byte)) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) { testLogPages(t, filepath.Join(dir, "wal.meta"), edit) }
}

// testLogLoseHeader damages both header pages of an entry file.
func testLogLoseHeader(name string) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		testLogEdit(t, filepath.Join(dir, name), func(content []byte) []byte {
			content[testLogMiB-2*page.Size+100] ^= 1
			content[testLogMiB-page.Size+100] ^= 1
			return content
		})
	}
}

// testLogDgraphMeta is a wal.meta as Dgraph makes it: ids, a hard state at 512
// and a snapshot at 1024, nothing between 24 and 512, 1 MiB long.
func testLogDgraphMeta(hardState, snapshot []byte) []byte {
	p := make([]byte, 1<<20)
	page.Order.PutUint64(p[0:], 1)
	page.Order.PutUint64(p[8:], 2)
	page.Order.PutUint32(p[512:], uint32(len(hardState)))
	copy(p[516:], hardState)
	page.Order.PutUint32(p[1040:], uint32(len(snapshot)))
	copy(p[1044:], snapshot)
	return p
}

func testLogRefusedDirs() []testLogRefused {
	corrupt := []error{mmapwal.ErrCorrupt}
	foreign := []error{mmapwal.ErrForeign}
	hardState := []byte{8, 5, 16, 1, 24, 9}
	const imports = "mmapwal import"
	return []testLogRefused{
		{"files of another program", testLogOnly("main.c", []byte("int main")), foreign, "main.c", ""},
		{"a snapshot is all that is left", testLogOnly("0000000000000001-0000000000000005.snap", []byte("x")), foreign, "a log that was lost", ""},
		{"what was set aside is all that is left", testLogOnly("00001.wal.corrupt", []byte("x")), foreign, "a log that was lost", ""},
		{"wal.meta of another program", testLogOnly("wal.meta", []byte(strings.Repeat("hello", 4000))), foreign, "wal.meta", ""},
		{"short wal.meta of another program", testLogOnly("wal.meta", []byte("hello")), foreign, "wal.meta", ""},
		{"wal.meta of Dgraph", testLogOnly("wal.meta", testLogDgraphMeta(hardState, nil)), foreign, imports, ""},
		{"new wal.meta of Dgraph", testLogOnly("wal.meta", testLogDgraphMeta(nil, nil)), foreign, imports, ""},
		{"first page of Dgraph's", testLogOnly("wal.meta", testLogDgraphMeta(hardState, nil)[:page.Size]), foreign, imports, ""},
		{"empty wal.meta", testLogCut("wal.meta", 0), corrupt, "", "wal.meta"},
		{"wal.meta cut to a page", testLogCut("wal.meta", page.Size), corrupt, "", "wal.meta"},
		{"wal.meta of a newer version", testLogEditPages(func(p []byte) { page.Order.PutUint32(p[32:], 2) }), []error{mmapwal.ErrVersion}, "format 2", ""},
		{"flag of encryption", testLogEditPages(func(p []byte) { p[39] |= 2 }), corrupt, "wrapped key", "wal.meta"},
		{"wal.meta missing", testLogRemove("wal.meta"), corrupt, "missing", "wal.meta"},
		{"middle file missing", testLogRemove("00002.wal"), corrupt, "missing", "00002.wal"},
		{"first file missing", testLogRemove("00001.wal"), corrupt, "missing", "00001.wal"},
		{"last file missing", testLogRemove("00003.wal"), corrupt, "missing", "00003.wal"},
		{"all files missing", testLogRemove("00001.wal", "00002.wal", "00003.wal"), corrupt, "missing", "00003.wal"},
		{"last file cut", testLogCut("00003.wal", 1<<20+8192), corrupt, "cut short", "00003.wal"},
		{"sealed file cut", testLogCut("00001.wal", 1<<20+8192), corrupt, "cut short", "00001.wal"},
		{"file cut in the header", testLogCut("00002.wal", 5000), corrupt, "cut short", "00002.wal"},
		{"empty entry file", testLogCut("00002.wal", 0), corrupt, "cut short", "00002.wal"},
		{"sealed file of another log", testLogOfAnother("00002.wal"), corrupt, "another log", "00002.wal"},
		{"last file of another log", testLogOfAnother("00003.wal"), corrupt, "another log", "00003.wal"},
		{"file under a wrong number", testLogRename("00003.wal", "00004.wal"), corrupt, "", "00004.wal"},
		{"two names for a number", func(t *testing.T, dir string) {
			testLogCopyFile(t, filepath.Join(dir, "00001.wal"), filepath.Join(dir, "1.wal"))
		}, corrupt, "two names", "1.wal"},
		{"short name alone", testLogRename("00001.wal", "1.wal"), corrupt, "00001.wal", "1.wal"},
		{"header lost", testLogLoseHeader("00002.wal"), corrupt, "header", "00002.wal"},
		{"header of the last file lost", testLogLoseHeader("00003.wal"), corrupt, "header", "00003.wal"},
		{"both promised pages lost", func(t *testing.T, dir string) {
			testLogFlip(t, filepath.Join(dir, "wal.meta"), 520)
			testLogFlip(t, filepath.Join(dir, "wal.meta"), page.Size+520)
		}, corrupt, "both lost", "wal.meta"},
		{"page 0 changed since the close", func(t *testing.T, dir string) {
			testLogEdit(t, filepath.Join(dir, "wal.meta"), func(p []byte) []byte { p[521]++; return p }) // the commit index
		}, corrupt, imports, "wal.meta"},
	}
}

// TestRefusedDirectories: Open says what is wrong and changes nothing.
func TestRefusedDirectories(t *testing.T) {
	for _, c := range testLogRefusedDirs() {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			testLogThreeFiles(t, dir)
			c.prepare(t, dir)
			before := testLogDirState(t, dir)
			_, err := mmapwal.Open(dir, testLogOptions())
			testLogRefusal(t, err, c, dir)
			testLogSame(t, "files", testLogDirState(t, dir), before)
			_, err = mmapwal.Open(dir, testLogOptions(testLogReadOnly))
			if err == nil {
				t.Fatal("it opens for reading")
			}
			testLogSame(t, "files", testLogDirState(t, dir), before)
		})
	}
}

func testLogRefusal(t *testing.T, err error, c testLogRefused, dir string) {
	t.Helper()
	testLogIs(t, err, c.want...)
	if !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), dir) {
		t.Errorf("message %q lacks %q or the directory", err, c.says)
	}
	if strings.Contains(err.Error(), "already closed") {
		t.Errorf("message %q tells of a second close", err)
	}
	if c.file != "" {
		testLogCorrupt(t, err, filepath.Join(dir, c.file))
	}
}

func TestDirectoryIsAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	testLogWriteFile(t, file, []byte("content"))
	for _, dir := range []string{file, filepath.Join(file, "log")} {
		_, err := mmapwal.Open(dir, testLogOptions())
		testLogIs(t, err, syscall.ENOTDIR)
		_, err = mmapwal.Open(dir, testLogOptions(testLogReadOnly))
		testLogIs(t, err, syscall.ENOTDIR)
	}
	if content, _ := os.ReadFile(file); string(content) != "content" {
		t.Fatal("the file was changed")
	}
}

// TestUnwritableDirectory: EACCES comes from the operations, since root may
// write everywhere.
func TestUnwritableDirectory(t *testing.T) {
	for _, op := range []vfstest.Op{vfstest.OpMkdirAll, vfstest.OpCreate, vfstest.OpRename, vfstest.OpOpen} {
		dir := filepath.Join(t.TempDir(), "log")
		fsys := vfstest.New(vfs.OS(), func(o vfstest.Op, name string) error {
			if o != op {
				return nil
			}
			return vfstest.Error(o, name, syscall.EACCES)
		})
		_, err := mmapwal.Open(dir, testLogOptions(testLogOn(fsys)))
		testLogIs(t, err, fs.ErrPermission)
		d := testLogOpen(t, dir) // nothing is in the way once it is writable
		testLogSave(t, d, nil, testLogEntries(1, 3, 1, 10))
		testLogUsable(t, d, dir)
	}
}

// TestNoLocks: without locks one owner cannot be ensured.
func TestNoLocks(t *testing.T) {
	fsys := vfstest.New(vfs.OS(), func(op vfstest.Op, name string) error {
		if op != vfstest.OpLock {
			return nil
		}
		return &fs.PathError{Op: "lock", Path: name, Err: vfs.ErrNoLocks}
	})
	dir := t.TempDir()
	_, err := mmapwal.Open(dir, testLogOptions(testLogOn(fsys)))
	testLogIs(t, err, mmapwal.ErrUnsupported, errors.ErrUnsupported)
	testLogThreeFiles(t, dir)
	before := testLogDirState(t, dir)
	_, err = mmapwal.Open(dir, testLogOptions(testLogOn(fsys)))
	testLogIs(t, err, mmapwal.ErrUnsupported)
	testLogSame(t, "files", testLogDirState(t, dir), before)
	d := testLogOpen(t, dir, testLogOn(fsys), testLogReadOnly) // takes no lock
	testLogClose(t, d)
}

// TestInterruptedCreations: what they left is removed, and is in nobody's way.
func TestInterruptedCreations(t *testing.T) {
	dir := t.TempDir()
	testLogThreeFiles(t, dir)
	content := testLogContentOf(t, dir)
	names := []string{"00002.wal.tmp", "00004.wal.tmp", "wal.meta.tmp", "0000000000000001-0000000000000003.snap.tmp", "0000000000000001-0000000000000002.snap"}
	for _, name := range names {
		testLogWriteFile(t, filepath.Join(dir, name), make([]byte, 10_000)) // their headers are written last
	}
	others := []string{"mine.snap", "mine.tmp", "1.wal.tmp", "0000000000000001-0000000000000002.snap.bak"}
	for _, name := range others {
		testLogWriteFile(t, filepath.Join(dir, name), []byte("somebody else's"))
	}
	d := testLogOpen(t, dir)
	for _, name := range names {
		if testLogExists(filepath.Join(dir, name)) {
			t.Errorf("%s is still there", name)
		}
	}
	for _, name := range others {
		if !testLogExists(filepath.Join(dir, name)) {
			t.Errorf("%s is gone", name)
		}
	}
	testLogSame(t, "content", testLogContent(t, d), content)
	testLogUsable(t, d, dir)
}

func testLogContentOf(t testing.TB, dir string) string {
	t.Helper()
	d := testLogOpen(t, dir, testLogReadOnly)
	defer testLogClose(t, d)
	return testLogContent(t, d)
}

// TestInterruptedFirstCreation: a wal.meta.tmp alone is no obstacle.
func TestInterruptedFirstCreation(t *testing.T) {
	for _, size := range []int{0, 100, page.Size, 4 * page.Size} {
		dir := t.TempDir()
		testLogWriteFile(t, filepath.Join(dir, "wal.meta.tmp"), make([]byte, size))
		d := testLogOpen(t, dir)
		testLogUsable(t, d, dir)
	}
}
