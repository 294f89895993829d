package mmapwal_test

import (
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
	"weak"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

func testAllSynced(d *mmapwal.DiskStorage) func() bool {
	return func() bool { return d.Stats().UnsyncedEntries == 0 }
}

// TestBatchSyncBehindLateSave: a Save that waits for the disk, since too many entries or
// bytes are not synced, leaves the interval running for those behind it.
func TestBatchSyncBehindLateSave(t *testing.T) {
	const wait = time.Millisecond
	for name, policy := range map[string]mmapwal.SyncPolicy{"bytes": mmapwal.BatchSync(1000, wait), "entries": mmapwal.BatchSync(10, wait)} {
		t.Run(name, func(t *testing.T) {
			d := testLogOpen(t, t.TempDir(), testLogOn(testLogFastFS{vfs.OS()}), func(o *mmapwal.Options) {
				o.Sync, o.MaxUnsyncedBytes = policy, 2000
			})
			for i := uint64(1); i <= 100; i += 21 {
				testLogSave(t, d, nil, testLogEntries(i, i+19, 1, 200))
				testLogSave(t, d, nil, testLogEntries(i+20, i+20, 1, 10))
				testLogEventually(t, "the small one is synced", testAllSynced(d))
			}
		})
	}
}

// TestBatchSyncFails: when the sync at the end of the interval fails, Saves do.
func TestBatchSyncFails(t *testing.T) {
	disk := newTestSlowDisk()
	d := testLogOpen(t, t.TempDir(), testLogOn(disk), testBatch(1000, time.Millisecond))
	testLogSave(t, d, testLogHard(1, 1, 0), nil)
	disk.close()
	testLogSave(t, d, nil, testLogEntries(1, 1, 1, 10))
	<-disk.waiting
	disk.open(syscall.EIO)
	testLogEventually(t, "the log is poisoned", func() bool { return d.Stats().Poisoned != nil })
	testLogIs(t, d.Save(nil, testLogEntries(2, 2, 1, 10), nil), mmapwal.ErrPoisoned)
	testLogIs(t, d.Close(), mmapwal.ErrPoisoned)
}

// TestDoneThatBlocks: what is saved while a done function does not return becomes durable;
// its own done function waits for its turn.
func TestDoneThatBlocks(t *testing.T) {
	for name, policy := range map[string]mmapwal.SyncPolicy{"HardSync": mmapwal.HardSync, "BatchSync": mmapwal.BatchSync(1000, time.Millisecond)} {
		t.Run(name, func(t *testing.T) {
			disk := vfstest.New(testLogFastFS{vfs.OS()}, nil)
			d := testLogOpen(t, t.TempDir(), testLogOn(disk), func(o *mmapwal.Options) { o.Sync = policy })
			testLogSave(t, d, testLogHard(1, 1, 0), testLogEntries(1, 1, 1, 10))
			var a testAsync
			blocks, released := make(chan struct{}), make(chan struct{})
			release := sync.OnceFunc(func() { close(released) })
			t.Cleanup(release)
			first := a.done("first")
			d.SaveAsync(nil, testLogEntries(2, 2, 1, 10), nil, func(err error) {
				close(blocks)
				<-released
				first(err)
			})
			<-blocks
			d.SaveAsync(testLogHard(1, 1, 2), testLogEntries(3, 3, 1, 10), nil, a.done("second"))
			testLogEventually(t, "what is saved meanwhile is durable", testAllSynced(d))
			d.SaveAsync(nil, testLogEntries(5, 5, 1, 10), nil, a.done("a gap"))
			a.want(t)
			if n := d.Stats().PendingSaves; n != 3 {
				t.Errorf("%d Saves are pending, want 3", n)
			}
			release()
			a.want(t, "first: nil", "second: nil", "a gap: "+mmapwal.ErrInvalid.Error())
			testLogClose(t, d)
		})
	}
}

// TestHardStateIsThatSaved: a Save that has returned, and a SaveAsync, show their hard
// state under every policy, whatever of it the disk has.
func TestHardStateIsThatSaved(t *testing.T) {
	for name, policy := range map[string]mmapwal.SyncPolicy{
		"HardSync": mmapwal.HardSync, "BatchSync": mmapwal.BatchSync(1000, time.Hour), "NoSync": mmapwal.NoSync,
	} {
		t.Run(name, func(t *testing.T) {
			d := testLogOpen(t, t.TempDir(), func(o *mmapwal.Options) { o.Sync = policy })
			check := func(commit uint64) {
				t.Helper()
				h, err := d.HardState()
				if err != nil || h.GetTerm() != 1 || h.GetCommit() != commit {
					t.Errorf("HardState: %v, %v; commit %d was saved", h, err, commit)
				}
				h, _, err = d.InitialState()
				if err != nil || h.GetTerm() != 1 || h.GetCommit() != commit {
					t.Errorf("InitialState: %v, %v; commit %d was saved", h, err, commit)
				}
			}
			testLogSave(t, d, testLogHard(1, 1, 0), testLogEntries(1, 5, 1, 10))
			check(0)
			testLogSave(t, d, testLogHard(1, 1, 5), testLogEntries(6, 6, 1, 10))
			check(5)
			testLogSave(t, d, testLogHard(1, 1, 6), nil)
			check(6)
			d.SaveAsync(testLogHard(1, 1, 7), testLogEntries(7, 7, 1, 10), nil, nil)
			check(7)
			if err := d.CreateSnapshot(6, testLogConf(1), nil); err != nil {
				t.Fatal(err)
			}
			check(7)
		})
	}
}

// TestClosedLogIsNotKept: once a log is closed, nothing of it stays in memory because a
// time is not over yet: that of BatchSync, or the one after which a file is sealed.
func TestClosedLogIsNotKept(t *testing.T) {
	use := func(policy mmapwal.SyncPolicy) weak.Pointer[mmapwal.DiskStorage] {
		d, err := mmapwal.Open(t.TempDir(), testLogOptions(testLogOn(testLogFastFS{vfs.OS()}), func(o *mmapwal.Options) { o.Sync = policy }))
		if err != nil {
			t.Fatal(err)
		}
		testLogSave(t, d, nil, testLogEntries(1, 20, 1, testLogMiB/8)) // more than a file
		testLogClose(t, d)
		return weak.Make(d)
	}
	for name, policy := range map[string]mmapwal.SyncPolicy{"BatchSync": mmapwal.BatchSync(1000, time.Hour), "NoSync": mmapwal.NoSync} {
		p := use(policy)
		testLogEventually(t, name+": the log is gone", func() bool {
			runtime.GC()
			return p.Value() == nil
		})
	}
}
