package mmapwal_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// testSlowDisk is a disk whose syncs of mapped memory wait until they may go on.
type testSlowDisk struct {
	*vfstest.FS
	mu      sync.Mutex
	gate    chan error // nil: open
	waiting chan struct{}
}

func newTestSlowDisk() *testSlowDisk {
	s := &testSlowDisk{waiting: make(chan struct{}, 100)}
	s.FS = vfstest.New(vfs.OS(), s.before)
	return s
}

func (s *testSlowDisk) before(op vfstest.Op, name string) error {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if op != vfstest.OpMsync || gate == nil {
		return nil
	}
	s.waiting <- struct{}{}
	if err := <-gate; err != nil {
		return vfstest.Error(op, name, err.(syscall.Errno))
	}
	return nil
}

// close lets syncs wait from now on; open lets those that wait, and all others, go on.
func (s *testSlowDisk) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = make(chan error, 100)
}

func (s *testSlowDisk) open(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 100 {
		s.gate <- err
	}
	s.gate = nil
}

// testAsync notes in which order done functions are called, and with what.
type testAsync struct {
	mu   sync.Mutex
	told []string
}

func (a *testAsync) done(name string) func(error) {
	return func(err error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		what := "nil"
		for _, known := range []error{mmapwal.ErrPoisoned, mmapwal.ErrInvalid} {
			if errors.Is(err, known) {
				what = known.Error()
			}
		}
		a.told = append(a.told, name+": "+what)
	}
}

func (a *testAsync) want(t *testing.T, want ...string) {
	t.Helper()
	testLogEventually(t, fmt.Sprintf("%d done functions were called", len(want)), func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.told) >= len(want)
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Equal(a.told, want) {
		t.Fatalf("told %q, want %q", a.told, want)
	}
}

// testLast checks the last index.
func testLast(t *testing.T, d *mmapwal.DiskStorage, want uint64) {
	t.Helper()
	if last, err := d.LastIndex(); err != nil || last != want {
		t.Fatalf("last index %d, %v, want %d", last, err, want)
	}
}

// TestSaveAsync: entries can be read at once, done functions are called in order, and
// not before the disk has synced; those that wait share one sync.
func TestSaveAsync(t *testing.T) {
	disk, dir := newTestSlowDisk(), t.TempDir()
	d := testLogOpen(t, dir, testLogOn(disk))
	testLogSave(t, d, testLogHard(1, 1, 0), testLogEntries(1, 1, 1, 100))
	var a testAsync
	disk.close()
	disk.Reset()
	var want []string
	for i := uint64(2); i <= 51; i++ {
		name := fmt.Sprint(i)
		d.SaveAsync(testLogHard(1, 1, i-1), testLogEntries(i, i, 1, 100), nil, a.done(name))
		testLast(t, d, i)
		want = append(want, name+": nil")
		if i == 2 {
			<-disk.waiting // the first one is on its way alone
		}
	}
	a.want(t)
	disk.open(nil)
	a.want(t, want...)
	if n := disk.Count(vfstest.OpMsync); n != 2 {
		t.Errorf("%d syncs for 50 Saves, want 2", n)
	}
	testLogClose(t, d)
	d = testLogOpen(t, dir)
	testLast(t, d, 51)
	if h, err := d.HardState(); err != nil || h.GetCommit() != 50 {
		t.Errorf("commit %d, %v", h.GetCommit(), err)
	}
}

// TestSaveAsyncHardState: a commit index is not in wal.meta before its entries are
// durable, and a new term waits for what is queued.
func TestSaveAsyncHardState(t *testing.T) {
	disk, dir := newTestSlowDisk(), t.TempDir()
	d := testLogOpen(t, dir, testLogOn(disk))
	testLogSave(t, d, testLogHard(1, 1, 0), testLogEntries(1, 3, 1, 100))
	var a testAsync
	disk.close()
	d.SaveAsync(testLogHard(1, 1, 5), testLogEntries(2, 5, 1, 100), nil, a.done("entries"))
	<-disk.waiting
	beside := testLogOpen(t, dir, testLogReadOnly)
	if h, err := beside.HardState(); err != nil || h.GetCommit() != 0 {
		t.Errorf("commit %d, %v, in wal.meta before the entries are durable", h.GetCommit(), err)
	}
	d.SaveAsync(testLogHard(1, 1, 4), nil, nil, a.done("commit"))
	disk.open(nil)
	d.SaveAsync(testLogHard(2, 1, 4), nil, nil, a.done("term"))
	if h, err := d.HardState(); err != nil || h.GetTerm() != 2 || h.GetCommit() != 4 {
		t.Fatalf("hard state %v, %v", h, err)
	}
	a.want(t, "entries: nil", "commit: nil", "term: nil")
}

// TestSaveAsyncRefused: what is queued behind a Save that is refused fails likewise and
// changes nothing, until that was told.
func TestSaveAsyncRefused(t *testing.T) {
	disk := newTestSlowDisk()
	d := testLogOpen(t, t.TempDir(), testLogOn(disk))
	testLogSave(t, d, testLogHard(1, 1, 0), testLogEntries(1, 1, 1, 100))
	var a testAsync
	disk.close()
	d.SaveAsync(nil, testLogEntries(2, 3, 1, 100), nil, a.done("good"))
	<-disk.waiting
	d.SaveAsync(nil, testLogEntries(5, 6, 1, 100), nil, a.done("gap"))
	d.SaveAsync(nil, testLogEntries(4, 4, 1, 100), nil, a.done("behind"))
	testLogIs(t, d.Save(testLogHard(1, 1, 3), nil, nil), mmapwal.ErrInvalid)
	testLast(t, d, 3)
	disk.open(nil)
	a.want(t, "good: nil", "gap: "+mmapwal.ErrInvalid.Error(), "behind: "+mmapwal.ErrInvalid.Error())
	testLogEventually(t, "the log takes Saves again", func() bool { return d.Save(nil, testLogEntries(4, 4, 1, 100), nil) == nil })
	testLast(t, d, 4)
}

// TestSaveAsyncSyncFails: all that wait for the sync, and all behind, fail alike.
func TestSaveAsyncSyncFails(t *testing.T) {
	disk, dir := newTestSlowDisk(), t.TempDir()
	d := testLogOpen(t, dir, testLogOn(disk))
	testLogSave(t, d, testLogHard(1, 1, 0), testLogEntries(1, 1, 1, 100))
	var a testAsync
	disk.close()
	d.SaveAsync(nil, testLogEntries(2, 2, 1, 100), nil, a.done("first"))
	<-disk.waiting
	d.SaveAsync(nil, testLogEntries(3, 3, 1, 100), nil, a.done("second"))
	disk.open(syscall.EIO)
	poisoned := mmapwal.ErrPoisoned.Error()
	a.want(t, "first: "+poisoned, "second: "+poisoned)
	d.SaveAsync(nil, testLogEntries(4, 4, 1, 100), nil, a.done("third"))
	a.want(t, "first: "+poisoned, "second: "+poisoned, "third: "+poisoned)
	testLogIs(t, d.Close(), mmapwal.ErrPoisoned)
}

// TestSharedSync: Saves that come while the disk is busy share the next sync.
func TestSharedSync(t *testing.T) {
	disk := newTestSlowDisk()
	d := testLogOpen(t, t.TempDir(), testLogOn(disk))
	testLogSave(t, d, testLogHard(1, 1, 0), testLogEntries(1, 1, 1, 100))
	disk.close()
	disk.Reset()
	var wg sync.WaitGroup
	for i := uint64(2); i <= 9; i++ {
		wg.Go(func() { testLogSave(t, d, nil, testLogEntries(i, i, 1, 100)) })
		testLogEventually(t, "the entry is stored", func() bool { last, _ := d.LastIndex(); return last == i })
		if i == 2 {
			<-disk.waiting
		}
	}
	disk.open(nil)
	wg.Wait()
	if n := disk.Count(vfstest.OpMsync); n != 2 {
		t.Errorf("%d syncs for 8 Saves, want 2", n)
	}
}

func testBatch(n int, interval time.Duration) func(*mmapwal.Options) {
	return func(o *mmapwal.Options) { o.Sync = mmapwal.BatchSync(n, interval) }
}

// TestBatchSync: a Save returns at once while half of what may be lost is synced in the
// background, and waits when all of it is not. A new term is synced at once.
func TestBatchSync(t *testing.T) {
	disk := newTestSlowDisk()
	d := testLogOpen(t, t.TempDir(), testLogOn(disk), testBatch(10, time.Hour))
	testLogSave(t, d, testLogHard(1, 1, 0), testLogEntries(1, 1, 1, 100))
	disk.close()
	disk.Reset()
	for i := uint64(2); i <= 6; i++ {
		testLogSave(t, d, testLogHard(1, 1, i), testLogEntries(i, i, 1, 100))
	}
	if n := disk.Count(vfstest.OpMsync); n != 0 {
		t.Fatalf("%d syncs for 5 entries", n)
	}
	testLogSave(t, d, nil, testLogEntries(7, 7, 1, 100))
	<-disk.waiting // in the background
	for i := uint64(8); i <= 11; i++ {
		testLogSave(t, d, nil, testLogEntries(i, i, 1, 100))
	}
	waits := make(chan error)
	go func() { waits <- d.Save(nil, testLogEntries(12, 12, 1, 100), nil) }()
	testLogEventually(t, "the entry is stored", func() bool { last, _ := d.LastIndex(); return last == 12 })
	select {
	case err := <-waits:
		t.Fatalf("a Save with 11 entries that are not synced returns %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	disk.open(nil)
	if err := <-waits; err != nil {
		t.Fatal(err)
	}
	disk.Reset()
	testLogSave(t, d, testLogHard(2, 1, 12), testLogEntries(13, 13, 2, 100))
	if n := disk.Count(vfstest.OpMsync); n != 3 {
		t.Errorf("%d syncs for a new term, want 3", n)
	}
}

// TestBatchSyncInterval: what is saved is synced when the interval is over.
func TestBatchSyncInterval(t *testing.T) {
	disk := newTestSlowDisk()
	d := testLogOpen(t, t.TempDir(), testLogOn(disk), testBatch(1000, time.Millisecond))
	for i := uint64(1); i <= 3; i++ {
		disk.Reset()
		testLogSave(t, d, nil, testLogEntries(i, i, 1, 100))
		testLogEventually(t, "the entry is synced", func() bool { return disk.Count(vfstest.OpMsync) == 1 })
	}
}

// TestMaxUnsyncedBytes: SaveAsync waits for the disk when too much does.
func TestMaxUnsyncedBytes(t *testing.T) {
	disk := newTestSlowDisk()
	d := testLogOpen(t, t.TempDir(), testLogOn(disk), func(o *mmapwal.Options) { o.MaxUnsyncedBytes = 4000 })
	var a testAsync
	disk.close()
	d.SaveAsync(nil, testLogEntries(1, 1, 1, 3000), nil, a.done("1"))
	<-disk.waiting
	returned := make(chan struct{})
	go func() {
		d.SaveAsync(nil, testLogEntries(2, 2, 1, 3000), nil, a.done("2"))
		close(returned)
	}()
	select {
	case <-returned:
		t.Fatal("SaveAsync did not wait")
	case <-time.After(20 * time.Millisecond):
	}
	disk.open(nil)
	<-returned
	a.want(t, "1: nil", "2: nil")
}

// TestCloseBesideInterval: a log can be closed at the moment at which the interval of
// BatchSync is over.
func TestCloseBesideInterval(t *testing.T) {
	for range 100 {
		d := testLogOpen(t, t.TempDir(), testLogOn(testLogFastFS{vfs.OS()}), testBatch(1000, time.Microsecond))
		testLogSave(t, d, nil, testLogEntries(1, 3, 1, 100))
		testLogClose(t, d)
	}
}
