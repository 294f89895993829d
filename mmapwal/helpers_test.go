package mmapwal_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// testLogMiB is the smallest FileDataSize.
const testLogMiB = 1 << 20

// testLogQuiet discards what a log tells.
var testLogQuiet = slog.New(slog.DiscardHandler)

// testLogOptions returns options with small files and no output, edited.
func testLogOptions(edits ...func(*mmapwal.Options)) *mmapwal.Options {
	o := &mmapwal.Options{Logger: testLogQuiet, FileDataSize: testLogMiB, CacheSize: -1} // reads look at the files
	for _, edit := range edits {
		edit(o)
	}
	return o
}

func testLogReadOnly(o *mmapwal.Options)   { o.ReadOnly = true }
func testLogNoSync(o *mmapwal.Options)     { o.Sync = mmapwal.NoSync }
func testLogKeepPrefix(o *mmapwal.Options) { o.Recovery = mmapwal.KeepValidPrefix }

func testLogOn(fsys vfs.FS) func(*mmapwal.Options) {
	return func(o *mmapwal.Options) { o.SetFS(fsys) }
}

// testLogOpen opens the log in dir; it is closed when the test ends.
func testLogOpen(t testing.TB, dir string, edits ...func(*mmapwal.Options)) *mmapwal.DiskStorage {
	t.Helper()
	d, err := mmapwal.Open(dir, testLogOptions(edits...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	d.WaitForBackground() // which may make a file
	return d
}

func testLogClose(t testing.TB, d *mmapwal.DiskStorage) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func testLogEntry(i, term uint64, size int) *raftpb.Entry {
	return &raftpb.Entry{Index: &i, Term: &term, Data: oracle.Data(i, term, size)}
}

// testLogEntries returns the entries [from, to] of one term.
func testLogEntries(from, to, term uint64, size int) []*raftpb.Entry {
	var es []*raftpb.Entry
	for i := from; i <= to; i++ {
		es = append(es, testLogEntry(i, term, size))
	}
	return es
}

func testLogHard(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
}

func testLogConf(voters ...uint64) *raftpb.ConfState { return &raftpb.ConfState{Voters: voters} }

func testLogSnapshot(i, term uint64, data []byte) *raftpb.Snapshot {
	return &raftpb.Snapshot{
		Data:     data,
		Metadata: &raftpb.SnapshotMetadata{Index: &i, Term: &term, ConfState: testLogConf(1, 2, 3)},
	}
}

func testLogSave(t testing.TB, d *mmapwal.DiskStorage, h *raftpb.HardState, es []*raftpb.Entry) {
	t.Helper()
	if err := d.Save(h, es, nil); err != nil {
		t.Fatal(err)
	}
}

// testLogContent describes all that can be read from a log.
func testLogContent(t testing.TB, d *mmapwal.DiskStorage) string {
	t.Helper()
	content, err := oracle.Describe(d)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// testLogSame fails the test unless two descriptions are equal.
func testLogSame(t testing.TB, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for k := range min(len(g), len(w)) {
		if g[k] != w[k] {
			t.Fatalf("%s: line %d is %q, want %q", what, k+1, g[k], w[k])
		}
	}
	t.Fatalf("%s: %d lines, want %d", what, len(g), len(w))
}

// testLogUsable appends an entry, reopens the log, and compares.
func testLogUsable(t testing.TB, d *mmapwal.DiskStorage, dir string) {
	t.Helper()
	last, err := d.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	term, err := d.Term(last)
	if err != nil {
		t.Fatal(err)
	}
	testLogSave(t, d, testLogHard(term+1, 1, last), testLogEntries(last+1, last+1, term+1, 20))
	want := testLogContent(t, d)
	testLogClose(t, d)
	d = testLogOpen(t, dir)
	testLogSame(t, "reopened", testLogContent(t, d), want)
	if got, _ := d.LastIndex(); got != last+1 {
		t.Fatalf("last index %d after one more entry, want %d", got, last+1)
	}
	testLogClose(t, d)
}

// testLogDirState describes the files of a directory, their content included.
func testLogDirState(t testing.TB, dir string) string {
	t.Helper()
	infos, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return "no directory"
	}
	if err != nil {
		return err.Error()
	}
	var lines []string
	for _, info := range infos {
		content, err := os.ReadFile(filepath.Join(dir, info.Name()))
		lines = append(lines, fmt.Sprintf("%s %d %x %v", info.Name(), len(content), sha256.Sum256(content), err))
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// testLogCopyDir returns a copy of dir, as an unclean stop leaves it.
func testLogCopyDir(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	infos, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		testLogCopyFile(t, filepath.Join(dir, info.Name()), filepath.Join(to, info.Name()))
	}
	return to
}

func testLogCopyFile(t testing.TB, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	testLogWriteFile(t, to, content)
}

// testLogWriteFile writes a file, with holes where the content is zero.
func testLogWriteFile(t testing.TB, name string, content []byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	err = f.Truncate(int64(len(content)))
	var zeros [page.Size]byte
	for at := 0; at < len(content) && err == nil; at += page.Size {
		p := content[at:min(at+page.Size, len(content))]
		if !bytes.Equal(p, zeros[:len(p)]) {
			_, err = f.WriteAt(p, int64(at))
		}
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// testLogEdit changes a file's content in place.
func testLogEdit(t testing.TB, name string, edit func(content []byte) []byte) {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	testLogWriteFile(t, name, edit(content))
}

// testLogFlip flips a bit of the byte at offset at.
func testLogFlip(t testing.TB, name string, at int64) {
	t.Helper()
	testLogEdit(t, name, func(content []byte) []byte {
		content[at] ^= 1
		return content
	})
}

// testLogPages edits all pages of a wal.meta that were written, and seals them.
func testLogPages(t testing.TB, name string, edit func(p []byte)) {
	t.Helper()
	testLogEdit(t, name, func(content []byte) []byte {
		for at := 0; at < len(content); at += page.Size {
			p := content[at : at+page.Size]
			if string(p[24:32]) != "RAFTWALm" {
				continue
			}
			edit(p)
			page.Seal(p[:page.Order.Uint32(p[128:])], 60)
		}
		return content
	})
}

// testLogIs fails the test unless err is each of the wanted errors.
func testLogIs(t testing.TB, err error, want ...error) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %v", want)
	}
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Fatalf("error %q is not %q", err, w)
		}
	}
}

// testLogCorrupt returns the *CorruptError in err, which must name file.
func testLogCorrupt(t testing.TB, err error, file string) *mmapwal.CorruptError {
	t.Helper()
	testLogIs(t, err, mmapwal.ErrCorrupt)
	damage, ok := errors.AsType[*mmapwal.CorruptError](err)
	if !ok {
		t.Fatalf("error %q is no *CorruptError", err)
	}
	if damage.File != file || damage.Reason == "" || damage.Offset < 0 {
		t.Fatalf("error %q names file %q, offset %d, want file %q", err, damage.File, damage.Offset, file)
	}
	return damage
}

// testLogRecords returns the offset of each entry's live record in an entry
// file, by index, from reading its records.
func testLogRecords(t testing.TB, name string) map[uint64]int64 {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	records := make(map[uint64]int64)
	for at := testLogMiB; at+32 <= len(content); {
		index := page.Order.Uint64(content[at+16:])
		if index == 0 {
			break
		}
		if content[at+5]&4 == 0 { // not the one that ends the file
			records[index] = int64(at)
		}
		at += (32 + int(page.Order.Uint32(content[at+28:])) + 7) &^ 7
	}
	return records
}

func testLogExists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// testLogRecordsEnd returns where the records of an entry file end.
func testLogRecordsEnd(t testing.TB, name string) int64 {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	at := int64(testLogMiB)
	for at+32 <= int64(len(content)) && page.Order.Uint64(content[at+16:]) != 0 {
		at += (32 + int64(page.Order.Uint32(content[at+28:])) + 7) &^ 7
	}
	return at
}

// testLogLastFile returns the path of the entry file of the highest number.
func testLogLastFile(t testing.TB, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil || len(names) == 0 {
		t.Fatalf("entry files %v, %v", names, err)
	}
	return slices.Max(names)
}

// testLogFastFS leaves out the syncs: for tests that make many logs and cut no
// power.
type testLogFastFS struct{ vfs.FS }

func (testLogFastFS) SyncDir(string) error { return nil }

func (f testLogFastFS) OpenDir(string) (vfs.Dir, error) { return vfs.FixedDir(f), nil }

func (f testLogFastFS) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o700) }

func (f testLogFastFS) Create(name string) (vfs.File, error) {
	file, err := f.FS.Create(name)
	return testLogFastFile{file}, err
}

func (f testLogFastFS) Open(name string, readOnly bool) (vfs.File, error) {
	file, err := f.FS.Open(name, readOnly)
	return testLogFastFile{file}, err
}

type testLogFastFile struct{ vfs.File }

func (testLogFastFile) Sync() error { return nil }

func (f testLogFastFile) Map(size int64) (vfs.Mapping, error) {
	m, err := f.File.Map(size)
	return testLogFastMapping{m}, err
}

type testLogFastMapping struct{ vfs.Mapping }

func (testLogFastMapping) Sync(int64, int64) error { return nil }
