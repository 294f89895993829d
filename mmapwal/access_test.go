package mmapwal_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// testLogChildEnv names what a child process of a test is to do.
const testLogChildEnv = "MMAPWAL_TEST_CHILD"

// TestLogChild is the main function of the child processes of other tests.
func TestLogChild(t *testing.T) {
	dir := os.Getenv("MMAPWAL_TEST_DIR")
	switch os.Getenv(testLogChildEnv) {
	case "":
		t.Skip("for child processes only")
	case "lock":
		testLogOpen(t, dir)
		testLogTell("ready")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	case "first":
		testLogFirst(dir)
	case "save":
		testLogKillChild(t, dir)
	}
}

// testLogTell sends a line to the parent process, in one write.
func testLogTell(line string) { _, _ = os.Stdout.WriteString("tell " + line + "\n") }

// testLogCommand returns the command that runs a child process.
func testLogCommand(t *testing.T, what, dir string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestLogChild$", "-test.timeout=1m")
	cmd.Env = append(append(os.Environ(), testLogChildEnv+"="+what, "MMAPWAL_TEST_DIR="+dir), env...)
	return cmd
}

func TestLockedInProcess(t *testing.T) {
	dir := t.TempDir()
	d := testLogBase(t, dir)
	content := testLogContent(t, d)
	_, err := mmapwal.Open(dir, testLogOptions())
	testLogIs(t, err, mmapwal.ErrLocked)
	testLogSame(t, "content", testLogContent(t, d), content)
	testLogUsable(t, d, dir)
}

func TestLockedAcrossProcesses(t *testing.T) {
	dir := t.TempDir()
	testLogClose(t, testLogBase(t, dir))
	cmd := testLogCommand(t, "lock", dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "tell ready\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
	_, err = mmapwal.Open(dir, testLogOptions())
	testLogIs(t, err, mmapwal.ErrLocked)
	if pid := fmt.Sprintf("process %d", cmd.Process.Pid); runtime.GOOS == "linux" && !strings.Contains(err.Error(), pid) {
		t.Logf("the error does not name %s, as it does where the kernel tells: %v", pid, err)
	}
	testLogClose(t, testLogOpen(t, dir, testLogReadOnly))
	_ = in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	testLogUsable(t, testLogOpen(t, dir), dir)
}

// testLogWrites are all calls that write.
func testLogWrites(d *mmapwal.DiskStorage) map[string]error {
	return map[string]error{
		"Save":                 d.Save(testLogHard(9, 1, 1), testLogEntries(31, 31, 9, 10), nil),
		"Save nothing":         d.Save(nil, nil, nil),
		"CreateSnapshot":       d.CreateSnapshot(20, nil, nil),
		"Compact":              d.Compact(5),
		"SetUint":              d.SetUint(mmapwal.CheckpointIndex, 3),
		"TruncateEntriesUntil": d.TruncateEntriesUntil(20),
		"Sync":                 d.Sync(),
	}
}

// testLogReads are all calls that read and can fail.
func testLogReads(d *mmapwal.DiskStorage) map[string]error {
	_, _, err1 := d.InitialState()
	_, err2 := d.HardState()
	_, err3 := d.FirstIndex()
	_, err4 := d.LastIndex()
	_, err5 := d.Term(10)
	_, err6 := d.Entries(10, 12, math.MaxUint64)
	_, err7 := d.Snapshot()
	_, err8 := d.Checkpoint()
	return map[string]error{
		"InitialState": err1, "HardState": err2, "FirstIndex": err3, "LastIndex": err4,
		"Term": err5, "Entries": err6, "Snapshot": err7, "Checkpoint": err8,
	}
}

func testLogAllAre(t *testing.T, errs map[string]error, want error) {
	t.Helper()
	for name, err := range errs {
		if !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", name, err, want)
		}
	}
}

func TestClosed(t *testing.T) {
	dir := t.TempDir()
	d := testLogBase(t, dir)
	for range 3 {
		testLogClose(t, d)
		testLogAllAre(t, testLogWrites(d), mmapwal.ErrClosed)
		testLogAllAre(t, testLogReads(d), mmapwal.ErrClosed)
	}
	if d.Uint(mmapwal.RaftId) != 7 || d.Stats().LastIndex != 30 || d.NumEntries() != 25 {
		t.Error("the figures of a closed log are gone")
	}
	ro := testLogOpen(t, dir, testLogReadOnly)
	testLogClose(t, ro)
	testLogClose(t, ro)
	testLogAllAre(t, testLogWrites(ro), mmapwal.ErrClosed)
	testLogAllAre(t, testLogReads(ro), mmapwal.ErrClosed)
}

func TestReadOnlyCreatesNothing(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "log")
	_, err := mmapwal.Open(missing, testLogOptions(testLogReadOnly))
	testLogIs(t, err, fs.ErrNotExist)
	if testLogExists(missing) {
		t.Fatal("the directory was made")
	}
	empty := t.TempDir()
	_, err = mmapwal.Open(empty, testLogOptions(testLogReadOnly))
	testLogIs(t, err, fs.ErrNotExist)
	testLogSame(t, "files", testLogDirState(t, empty), "")
}

// TestReadOnlyWritesNothing: neither in a clean log nor in one to be recovered.
func TestReadOnlyWritesNothing(t *testing.T) {
	dir := t.TempDir()
	owner := testLogBase(t, dir, testLogNoSync)
	want := testLogContent(t, owner)
	unclean := testLogCopyDir(t, dir)
	testLogClose(t, owner)
	for _, dir := range []string{dir, unclean} {
		testLogWriteFile(t, filepath.Join(dir, "00009.wal.tmp"), []byte("left over"))
		before := testLogDirState(t, dir)
		d := testLogOpen(t, dir, testLogReadOnly)
		testLogAllAre(t, testLogWrites(d), mmapwal.ErrReadOnly)
		testLogAllAre(t, testLogReads(d), nil)
		testLogSame(t, "content", testLogContent(t, d), want)
		testLogClose(t, d)
		testLogSame(t, "files", testLogDirState(t, dir), before)
	}
}

// testLogLiveOwner writes until it is told to stop: it appends, replaces
// suffixes by such of a higher term, rotates, and compacts.
type testLogLiveOwner struct {
	d     *mmapwal.DiskStorage
	acked atomic.Uint64 // last index that was saved
	stop  atomic.Bool
	done  chan error
}

const testLogLiveSize = 20_000

func (w *testLogLiveOwner) run() {
	var err error
	term, last := uint64(1), uint64(0)
	for k := uint64(1); err == nil && !w.stop.Load(); k++ {
		from := last + 1
		if k%7 == 0 {
			from, term = last-1, term+1
		}
		last += 3
		err = w.d.Save(testLogHard(term, 1, from-1), testLogEntries(from, last, term, testLogLiveSize), nil)
		w.acked.Store(last)
		if err == nil && k%50 == 0 {
			err = w.d.CreateSnapshot(last-60, nil, oracle.Data(last-60, 0, 3000*int(k/50%2)))
		}
		if err == nil && k%70 == 0 {
			err = w.d.TruncateEntriesUntil(w.d.Uint(mmapwal.SnapshotIndex) - 20)
		}
	}
	w.done <- err
}

// TestReadOnlyBesideOwner: every open succeeds, and shows all that was saved
// before it, consistently, but for what the owner drops meanwhile.
func TestReadOnlyBesideOwner(t *testing.T) {
	dir := t.TempDir()
	d := testLogOpen(t, dir, func(o *mmapwal.Options) { o.RetainEntries = 100 })
	owner := &testLogLiveOwner{d: d, done: make(chan error, 1)}
	go owner.run()
	opens := 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end) && !t.Failed(); opens++ {
		testLogLiveRead(t, dir, owner)
		runtime.Gosched()
	}
	owner.stop.Store(true)
	if err := <-owner.done; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d opens while %d entries were saved; %d files removed", opens, owner.acked.Load(), d.Stats().FilesRemoved)
	want := testLogContent(t, d)
	testLogSame(t, "read-only", testLogContentOf(t, dir), want)
	testLogClose(t, d)
}

func testLogLiveRead(t *testing.T, dir string, owner *testLogLiveOwner) {
	t.Helper()
	acked := owner.acked.Load()
	d, err := mmapwal.Open(dir, testLogOptions(testLogReadOnly))
	if err != nil {
		t.Error(err)
		return
	}
	defer testLogClose(t, d)
	first, _ := d.FirstIndex()
	last, err := d.LastIndex()
	if err != nil || last+1 < acked { // the last two are being replaced, one by one
		t.Errorf("last index %d, %v; %d was saved before", last, err, acked)
	}
	if last < first {
		return
	}
	es, err := oracle.Entries(d, first, last+1)
	if errors.Is(err, raft.ErrCompacted) {
		return // the owner has dropped them since, and uses their file again
	}
	if err != nil {
		t.Error(err)
		return
	}
	testLogLiveCheck(t, first, last, es)
}

func testLogLiveCheck(t *testing.T, first, last uint64, es []*raftpb.Entry) {
	t.Helper()
	if uint64(len(es)) != last-first+1 {
		t.Errorf("%d entries from %d to %d", len(es), first, last)
	}
	for k, e := range es {
		i, term := e.GetIndex(), e.GetTerm()
		if i != first+uint64(k) || k > 0 && term < es[k-1].GetTerm() {
			t.Errorf("entry %d, term %d behind entry %d, term %d", i, term, es[k-1].GetIndex(), es[k-1].GetTerm())
		}
		if len(e.GetData()) == 0 {
			continue // it was cleared, or dropped since
		}
		if !bytes.Equal(e.GetData(), oracle.Data(i, term, testLogLiveSize)) {
			t.Errorf("entry %d, term %d has the data of another", i, term)
		}
	}
}

// TestReadOnlySnapshotBesideOwner: a reader shows the snapshot of the time it
// was opened, or a newer one; not that there is damage.
func TestReadOnlySnapshotBesideOwner(t *testing.T) {
	dir := t.TempDir()
	d := testLogBase(t, dir)
	if err := d.CreateSnapshot(10, nil, make([]byte, 5000)); err != nil {
		t.Fatal(err)
	}
	ro := testLogOpen(t, dir, testLogReadOnly)
	if err := d.CreateSnapshot(20, nil, make([]byte, 6000)); err != nil {
		t.Fatal(err)
	}
	testLogClose(t, d) // waits for the removal of the file
	snap, err := ro.Snapshot()
	if errors.Is(err, mmapwal.ErrCorrupt) {
		t.Fatalf("a replaced snapshot is called damage: %v", err)
	}
	if err != nil || len(snap.GetData()) < 5000 {
		t.Fatalf("snapshot of %d bytes, %v", len(snap.GetData()), err)
	}
}

// TestReadOnlyBesideReopenedOwner: an owner that opens and closes the log is in
// no reader's way.
func TestReadOnlyBesideReopenedOwner(t *testing.T) {
	dir := t.TempDir()
	testLogClose(t, testLogBase(t, dir))
	var stop atomic.Bool
	done := make(chan error, 1)
	go func() {
		var err error
		for i := uint64(31); err == nil && !stop.Load(); i++ {
			err = testLogSaveOne(dir, i)
		}
		done <- err
	}()
	last := uint64(30)
	for end := time.Now().Add(time.Second); time.Now().Before(end) && !t.Failed(); {
		d, err := mmapwal.Open(dir, testLogOptions(testLogReadOnly))
		if err != nil {
			t.Error(err)
			break
		}
		now, _ := d.LastIndex()
		if _, err := d.Entries(6, now+1, math.MaxUint64); err != nil || now < last {
			t.Errorf("entries up to %d, %v; there were %d", now, err, last)
		}
		last = now
		testLogClose(t, d)
	}
	stop.Store(true)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d entries", last)
}

// testLogSaveOne opens the log, saves an entry, and closes it.
func testLogSaveOne(dir string, i uint64) error {
	d, err := mmapwal.Open(dir, testLogOptions())
	if err != nil {
		return err
	}
	return errors.Join(d.Save(nil, testLogEntries(i, i, 3, 100), nil), d.Close())
}
