package mmapwal_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// testLogFaultOps is a workload that meets every path of a log that writes:
// appends, a replaced suffix, rotation, snapshots inline and in a file, compaction,
// truncation, a snapshot that empties the log.
func testLogFaultOps() []oracle.Op {
	terms := func(term uint64, n int) []uint64 { return slices.Repeat([]uint64{term}, n) }
	return []oracle.Op{
		{Hard: [3]uint64{1, 1, 1}, From: 1, Terms: terms(1, 2)},
		{Hard: [3]uint64{1, 1, 3}, From: 3, Terms: terms(1, 18)}, // over a megabyte: rotates
		{Hard: [3]uint64{2, 2, 8}, From: 12, Terms: terms(2, 2)}, // replaces in an older file
		{Hard: [3]uint64{3, 2, 8}, From: 13, Terms: terms(3, 7)},
		{Create: 8}, // inline
		{Checkpoint: 5},
		{Truncate: 9},
		{Hard: [3]uint64{4, 2, 10}, From: 15, Terms: terms(4, 2)}, // uncovers
		{Create: 10},  // data in a file
		{Compact: 10}, // all files but the last
		{Hard: [3]uint64{5, 2, 31}, Snap: [2]uint64{31, 5}, From: 32, Terms: terms(5, 3)}, // empties the log
		{Hard: [3]uint64{5, 2, 34}, From: 35, Terms: terms(5, 1)},
		{Hard: [3]uint64{5, 2, 35}, From: 36, Terms: terms(5, 2)},
		{Hard: [3]uint64{5, 2, 37}, From: 38, Terms: terms(5, 7)}, // with a cache, both around the page cache
	}
}

// testLogFaultData is the data of an entry of the workload: every eighth is large.
func testLogFaultData(i, term uint64) []byte {
	if i%8 == 5 {
		return oracle.Data(i, term, 500_000)
	}
	return oracle.Data(i, term, 6000)
}

// testLogFault is a run of the workload in which one operation fails.
type testLogFault struct {
	t      *testing.T
	dir    string
	fsys   *vfstest.FS
	errno  syscall.Errno
	edits  []func(*mmapwal.Options)
	only   []vfstest.Op    // those that are counted; none: all
	ops    []oracle.Op     // the calls; nil: testLogFaultOps
	model  *oracle.Model   // what is acknowledged
	models []*oracle.Model // what may be there

	mu     sync.Mutex
	seen   int
	failed string // the operation that failed, and its file
	op     vfstest.Op
}

// testLogFailNth prepares a run whose n-th operation, counted from 0, fails.
func testLogFailNth(t *testing.T, dir string, n int, errno syscall.Errno, edits ...func(*mmapwal.Options)) *testLogFault {
	f := &testLogFault{t: t, dir: dir, errno: errno, model: &oracle.Model{Retain: 5, Data: testLogFaultData}}
	f.fsys = vfstest.New(testLogFastFS{vfs.OS()}, func(op vfstest.Op, name string) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.only) > 0 && !slices.Contains(f.only, op) {
			return nil
		}
		f.seen++
		if f.seen != n+1 {
			return nil
		}
		f.op, f.failed = op, fmt.Sprintf("operation %d, %s of %s, %v", n, op, filepath.Base(name), errno)
		return vfstest.Error(op, name, errno)
	})
	f.edits = append(edits, testLogOn(f.fsys), func(o *mmapwal.Options) { o.RetainEntries = 5 })
	return f
}

// fault returns which operation has failed, "" if none has.
func (f *testLogFault) fault() (vfstest.Op, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.op, f.failed
}

func (f *testLogFault) fatalf(format string, args ...any) {
	f.t.Helper()
	_, failed := f.fault()
	f.t.Fatalf("%s: %s", failed, fmt.Sprintf(format, args...))
}

func (f *testLogFault) errorf(format string, args ...any) {
	f.t.Helper()
	_, failed := f.fault()
	f.t.Errorf("%s: %s", failed, fmt.Sprintf(format, args...))
}

// run does the workload, and reports whether an operation has failed.
func (f *testLogFault) run() bool {
	f.t.Helper()
	f.models = []*oracle.Model{f.model}
	if d := f.open(); d != nil {
		f.work(d)
	}
	f.reopen()
	_, failed := f.fault()
	return failed != ""
}

// open opens the log, twice if the first time fails.
func (f *testLogFault) open() *mmapwal.DiskStorage {
	f.t.Helper()
	d, err := mmapwal.Open(f.dir, testLogOptions(f.edits...))
	if err == nil {
		return d
	}
	f.typed(err)
	if d, err = mmapwal.Open(f.dir, testLogOptions(f.edits...)); err != nil {
		f.fatalf("a second open fails: %v", err)
	}
	return d
}

// typed checks that err tells of the fault, as the caller was promised.
func (f *testLogFault) typed(err error) {
	f.t.Helper()
	op, failed := f.fault()
	if failed == "" || !errors.Is(err, f.errno) {
		f.fatalf("error %q", err)
	}
	space := slices.Contains([]vfstest.Op{vfstest.OpCreate, vfstest.OpTruncate, vfstest.OpReserve, vfstest.OpWrite}, op)
	poisoned := errors.Is(err, mmapwal.ErrPoisoned)
	switch noSpace := errors.Is(err, mmapwal.ErrNoSpace); {
	case noSpace && poisoned:
		f.errorf("error %q is ErrNoSpace, but the log is poisoned", err)
	case noSpace && f.errno != syscall.ENOSPC:
		f.errorf("error %q is ErrNoSpace", err)
	case !noSpace && !poisoned && space && f.errno == syscall.ENOSPC:
		f.errorf("error %q is not ErrNoSpace", err)
	}
}

// work does the calls of the workload, again if one fails, and closes the log.
func (f *testLogFault) work(d *mmapwal.DiskStorage) {
	f.t.Helper()
	ops := f.ops
	if ops == nil {
		ops = testLogFaultOps()
	}
	for k, op := range ops {
		f.models = op.Outcomes(f.model)
		_, before := f.fault()
		err := op.Do(d, f.model)
		f.syncTold(d, before, err)
		if err != nil {
			f.typed(err)
			if errors.Is(err, mmapwal.ErrPoisoned) {
				f.poisoned(d, err)
				return
			}
			f.unchanged(d, k)
			if err := op.Do(d, f.model); err != nil {
				f.fatalf("call %d fails again: %v", k, err)
			}
		}
		f.model = f.models[len(f.models)-1]
		f.models = []*oracle.Model{f.model}
	}
	if err := d.Close(); err != nil {
		f.typed(err)
	}
}

// syncTold checks that a call in which a sync failed, none having failed before
// it, says that the log is poisoned; if the sync was one in the background, the
// log says so soon.
func (f *testLogFault) syncTold(d *mmapwal.DiskStorage, before string, err error) {
	f.t.Helper()
	op, now := f.fault()
	if before != "" || now == "" || op != vfstest.OpSync && op != vfstest.OpMsync {
		return
	}
	if err == nil {
		testLogEventually(f.t, now+": the log says that it is poisoned", func() bool { return d.Stats().Poisoned != nil })
		return
	}
	if !errors.Is(err, mmapwal.ErrPoisoned) || !errors.Is(err, f.errno) {
		f.fatalf("the call says %v", err)
	}
}

// unchanged checks that a call that failed, but did not poison, changed nothing.
func (f *testLogFault) unchanged(d *mmapwal.DiskStorage, k int) {
	f.t.Helper()
	got, err := oracle.Describe(d)
	if err != nil {
		f.fatalf("call %d: reads fail: %v", k, err)
	}
	if got != f.model.String() {
		f.fatalf("call %d failed and changed the log", k)
	}
}

// poisoned checks that a poisoned log says so, is read, and takes nothing.
func (f *testLogFault) poisoned(d *mmapwal.DiskStorage, cause error) {
	f.t.Helper()
	op, _ := f.fault()
	if op == vfstest.OpOpen || op == vfstest.OpCreate || op == vfstest.OpRename || op == vfstest.OpReserve || op == vfstest.OpTruncate {
		f.fatalf("what does not store poisons: %v", cause)
	}
	for name, err := range testLogWrites(d) {
		if err != cause {
			f.fatalf("%s says %v, not %v", name, err, cause)
		}
	}
	if d.Stats().Poisoned != cause {
		f.fatalf("Stats says %v, not %v", d.Stats().Poisoned, cause)
	}
	if _, err := oracle.Describe(d); err != nil {
		f.fatalf("reads fail: %v", err)
	}
	if err := d.Close(); !errors.Is(err, mmapwal.ErrPoisoned) {
		f.fatalf("Close says %v", err)
	}
}

// reopen checks what is there once all works again.
func (f *testLogFault) reopen() {
	f.t.Helper()
	d, err := mmapwal.Open(f.dir, testLogOptions(append(f.edits, testLogOn(testLogFastFS{vfs.OS()}))...))
	if err != nil {
		f.fatalf("reopen: %v", err)
	}
	got, err := oracle.Describe(d)
	if err != nil {
		f.fatalf("reads of the reopened log: %v", err)
	}
	if !slices.ContainsFunc(f.models, func(m *oracle.Model) bool { return m.String() == got }) {
		_, failed := f.fault()
		testLogSame(f.t, failed+": reopened", got, f.model.String())
	}
	if err := d.Close(); err != nil {
		f.fatalf("close: %v", err)
	}
	testLogNoLeaks(f.t, f.dir)
}

// testLogNoLeaks checks that no descriptor and no mapping of dir is left. It
// knows how on Linux only.
func testLogNoLeaks(t *testing.T, dir string) {
	t.Helper()
	if maps, err := os.ReadFile("/proc/self/maps"); err == nil && bytes.Contains(maps, []byte(dir+"/")) {
		t.Fatal("a mapping is left")
	}
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		if name, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && (name == dir || strings.HasPrefix(name, dir+"/")) {
			t.Fatalf("the descriptor of %s is left", name)
		}
	}
}

// testLogNoGoroutines waits until there are no more goroutines than before.
func testLogNoGoroutines(t *testing.T, before int) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// testLogAll is how many operations there are to one that is made to fail: each is, but
// for short runs.
func testLogAll() int {
	if testing.Short() {
		return 7
	}
	return 1
}

// testLogSome is the same where another test has nearly all of them: FULL=1 has each
// fail.
func testLogSome() int {
	if os.Getenv("FULL") == "1" {
		return 1
	}
	return 3 * testLogAll()
}

// testLogEachFault runs the workload with each of its operations failing once, or one
// of so many.
func testLogEachFault(t *testing.T, one int, errnos []syscall.Errno, edits ...func(*mmapwal.Options)) {
	t.Helper()
	goroutines := runtime.NumGoroutine()
	for _, errno := range errnos {
		n := 0
		for again := true; again; n += one {
			dir, err := os.MkdirTemp(t.TempDir(), "")
			if err != nil {
				t.Fatal(err)
			}
			f := testLogFailNth(t, filepath.Join(dir, "log"), n, errno, edits...)
			again = f.run()
			_ = os.RemoveAll(dir)
		}
		t.Logf("%v: %d runs", errno, n)
	}
	testLogNoGoroutines(t, goroutines)
}

// TestFaults: whichever operation fails, what was acknowledged stays.
func TestFaults(t *testing.T) {
	testLogEachFault(t, testLogAll(), []syscall.Errno{syscall.ENOSPC, syscall.EIO})
}

// TestFaultsDirect: the same for writes around the page cache.
func TestFaultsDirect(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO} {
		n := 0
		for again := true; again; n++ {
			f := testLogFailNth(t, filepath.Join(t.TempDir(), fmt.Sprintf("%v-%d", errno, n)), n, errno, testCache(testLogMiB))
			f.only = []vfstest.Op{vfstest.OpDirect}
			again = f.run()
		}
		if n < 4 {
			t.Errorf("%v: %d runs", errno, n)
		}
	}
}

func TestFaultsEncrypted(t *testing.T) {
	testLogEachFault(t, testLogSome(), []syscall.Errno{syscall.EIO}, testLogEncrypted)
}

func TestFaultsNoSync(t *testing.T) {
	if testing.Short() {
		t.Skip("TestFaults does nearly the same")
	}
	testLogEachFault(t, testLogSome(), []syscall.Errno{syscall.EIO}, testLogNoSync)
}

// TestFaultsInRecovery: the same for an Open that has to recover.
func TestFaultsInRecovery(t *testing.T) {
	t.Run("plain", func(t *testing.T) { testLogFaultsInRecovery(t, testLogAll()) })
	t.Run("encrypted", func(t *testing.T) { testLogFaultsInRecovery(t, testLogSome(), testLogEncrypted) })
}

func testLogFaultsInRecovery(t *testing.T, one int, edits ...func(*mmapwal.Options)) {
	dir := t.TempDir()
	m := &oracle.Model{Data: testLogFaultData}
	for from := range uint64(2) { // a file that was sealed, and a tail that was not
		op := oracle.Op{Hard: [3]uint64{1, 1, 2}, From: 2*from + 1, Terms: []uint64{1, 1}}
		if err := op.Do(testLogOpen(t, dir, append(edits, testLogNoSync)...), m); err != nil {
			t.Fatal(err)
		}
		m = op.Done(m)
		dir = testLogCopyDir(t, dir)
	}
	testLogRecoveryFaults(t, one, dir, m, edits...)
	testLogTear(t, dir)
	testLogRecoveryFaults(t, one, dir, m, edits...)
}

// testLogTear appends what a torn write may leave to the records of the last file.
func testLogTear(t *testing.T, dir string) {
	t.Helper()
	name := testLogLastFile(t, dir)
	end := testLogRecordsEnd(t, name)
	testLogEdit(t, name, func(content []byte) []byte {
		copy(content[end:], "torn torn torn torn torn torn torn torn")
		return content
	})
}

// testLogRecoveryFaults opens a copy of unclean for each operation that can fail, or one
// of so many.
func testLogRecoveryFaults(t *testing.T, one int, unclean string, want *oracle.Model, edits ...func(*mmapwal.Options)) {
	t.Helper()
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO} {
		n := 0
		for again := true; again; n += one {
			dir := testLogCopyDir(t, unclean)
			f := testLogFailNth(t, dir, n, errno, edits...)
			f.model, f.models = want, []*oracle.Model{want}
			if err := f.open().Close(); err != nil {
				f.typed(err)
			}
			f.reopen()
			_, failed := f.fault()
			again = failed != ""
			_ = os.RemoveAll(dir)
		}
		t.Logf("%v: %d runs", errno, n)
	}
}

// TestFullDisk: while there is no room a Save changes nothing, reads and
// compaction go on, and the same Save works once there is room.
func TestFullDisk(t *testing.T) {
	for _, op := range []vfstest.Op{vfstest.OpCreate, vfstest.OpTruncate, vfstest.OpReserve} {
		t.Run(string(op), func(t *testing.T) {
			dir := t.TempDir()
			var disk vfstest.Switch
			d := testLogBase(t, dir, testLogOn(vfstest.New(vfs.OS(), disk.Before)))
			content := testLogContent(t, d)
			disk.Set(func(o vfstest.Op, name string) error {
				if o != op {
					return nil
				}
				return vfstest.Error(o, name, syscall.ENOSPC)
			})
			large := testLogEntries(31, 40, 3, 400_000)
			for range 3 {
				testLogIs(t, d.Save(testLogHard(4, 2, 30), large, nil), mmapwal.ErrNoSpace, syscall.ENOSPC)
				testLogSame(t, "content", testLogContent(t, d), content)
			}
			if err := d.CreateSnapshot(20, nil, []byte("small")); err != nil {
				t.Fatalf("a small snapshot needs room: %v", err)
			}
			disk.Set(nil)
			testLogSave(t, d, testLogHard(4, 2, 30), large)
			testLogUsable(t, d, dir)
		})
	}
}

// TestFullDiskAtOpen: a log can be opened, and compacted, without room for a new
// entry file.
func TestFullDiskAtOpen(t *testing.T) {
	dir := t.TempDir()
	live := testLogOpen(t, dir)
	testLogSave(t, live, testLogHard(1, 1, 30), testLogEntries(1, 30, 1, 100))
	dir = testLogCopyDir(t, dir) // unclean: the tail is ended and a new one begun
	var disk vfstest.Switch
	disk.Set(vfstest.FailFrom(1, syscall.ENOSPC, vfstest.OpCreate))
	d := testLogOpen(t, dir, testLogOn(vfstest.New(vfs.OS(), disk.Before)))
	testLogIs(t, d.Save(nil, testLogEntries(31, 31, 1, 10), nil), mmapwal.ErrNoSpace)
	if err := d.Save(testLogHard(2, 1, 30), nil, nil); err != nil {
		t.Fatalf("a hard state needs room: %v", err)
	}
	if err := d.CreateSnapshot(25, nil, nil); err != nil {
		t.Fatalf("compaction needs room: %v", err)
	}
	disk.Set(nil)
	testLogUsable(t, d, dir)
}

// testLogLines is a slog handler's output that may be read meanwhile.
type testLogLines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *testLogLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *testLogLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// testLogEventually waits until what is true.
func testLogEventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not so: %s", what)
		}
	}
}

// TestFailedRemoval is told, and tried again with the next compaction.
func TestFailedRemoval(t *testing.T) {
	dir := t.TempDir()
	testLogThreeFiles(t, dir)
	var disk vfstest.Switch
	var lines testLogLines
	disk.Set(func(op vfstest.Op, name string) error {
		if op != vfstest.OpRemove || filepath.Base(name) != "00001.wal" {
			return nil
		}
		return vfstest.Error(op, name, syscall.EACCES)
	})
	d := testLogOpen(t, dir, testLogOn(vfstest.New(vfs.OS(), disk.Before)), func(o *mmapwal.Options) {
		o.Logger = slog.New(slog.NewTextHandler(&lines, nil))
		o.SpareFiles = -1
	})
	if err := d.CreateSnapshot(19, nil, nil); err != nil {
		t.Fatal(err)
	}
	testLogEventually(t, "one file removed, one failed", func() bool {
		s := d.Stats()
		return s.FilesRemoved == 1 && errors.Is(s.FailedRemovals["00001.wal"], syscall.EACCES) && len(s.FailedRemovals) == 1
	})
	if !strings.Contains(lines.String(), "00001.wal") {
		t.Errorf("the log says nothing of it: %q", lines.String())
	}
	disk.Set(nil)
	if err := d.CreateSnapshot(20, nil, nil); err != nil {
		t.Fatal(err)
	}
	testLogEventually(t, "the file is removed", func() bool {
		s := d.Stats()
		return s.FilesRemoved == 2 && len(s.FailedRemovals) == 0 && !testLogExists(filepath.Join(dir, "00001.wal"))
	})
	testLogUsable(t, d, dir)
}

// TestFailedRemovalAndOpen: what could not be removed in one run is in the next.
func TestFailedRemovalAndOpen(t *testing.T) {
	dir := t.TempDir()
	testLogThreeFiles(t, dir)
	d := testLogOpen(t, dir, testLogOn(vfstest.New(vfs.OS(), vfstest.FailFrom(1, syscall.EACCES, vfstest.OpRemove))), func(o *mmapwal.Options) { o.SpareFiles = -1 })
	if err := d.CreateSnapshot(19, nil, nil); err != nil {
		t.Fatal(err)
	}
	testLogClose(t, d)
	if !testLogExists(filepath.Join(dir, "00001.wal")) {
		t.Fatal("the file was removed")
	}
	d = testLogOpen(t, dir)
	testLogEventually(t, "the file is removed", func() bool { return !testLogExists(filepath.Join(dir, "00001.wal")) })
	testLogUsable(t, d, dir)
}
