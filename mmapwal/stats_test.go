package mmapwal_test

import (
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// TestStatsOfSaves: each Save with entries is one sync under HardSync; under
// NoSync what was saved counts as unsynced until something syncs it.
func TestStatsOfSaves(t *testing.T) {
	d := testLogOpen(t, t.TempDir())
	for k := range uint64(3) {
		testLogSave(t, d, testLogHard(1, 1, k), testLogEntries(2*k+1, 2*k+2, 1, 100))
	}
	testLogSave(t, d, testLogHard(1, 1, 6), nil) // no entries, no sync
	s := d.Stats()
	if s.AppendedEntries != 6 || s.AppendedBytes != 600 || s.UnsyncedEntries != 0 || s.UnsyncedBytes != 0 {
		t.Errorf("HardSync: %+v", s)
	}
	if s.SaveTime.Count() != 4 || s.WaitTime.Count() != 4 || s.WaitTime.Sum != 0 || s.SaveTime.Sum <= s.SyncTime.Sum {
		t.Errorf("HardSync: %d Saves, %d waits of %v s, Saves of %v s, syncs of %v s",
			s.SaveTime.Count(), s.WaitTime.Count(), s.WaitTime.Sum, s.SaveTime.Sum, s.SyncTime.Sum)
	}
	if s.SyncTime.Count() != 3 || s.SyncEntries.Count() != 3 || s.SyncEntries.Sum != 6 || s.SyncSaves.Sum != 3 {
		t.Errorf("HardSync: %d syncs of %v entries, %v Saves", s.SyncTime.Count(), s.SyncEntries.Sum, s.SyncSaves.Sum)
	}

	d = testLogOpen(t, t.TempDir(), testLogNoSync)
	testLogSave(t, d, nil, testLogEntries(1, 4, 1, 10))
	testLogSave(t, d, nil, testLogEntries(3, 4, 2, 10)) // written anew
	if s := d.Stats(); s.UnsyncedEntries != 6 || s.UnsyncedBytes != 6*48 || s.SyncTime.Count() != 0 {
		t.Errorf("NoSync: %d entries, %d bytes unsynced, %d syncs", s.UnsyncedEntries, s.UnsyncedBytes, s.SyncTime.Count())
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	if s := d.Stats(); s.UnsyncedEntries != 0 || s.UnsyncedBytes != 0 || s.SyncSaves.Sum != 2 {
		t.Errorf("after Sync: %d entries, %d bytes unsynced, %v Saves", s.UnsyncedEntries, s.UnsyncedBytes, s.SyncSaves.Sum)
	}
}

// TestStatsOfAsync: a SaveAsync is pending until its done function has returned, and
// counted before it is called.
func TestStatsOfAsync(t *testing.T) {
	d := testLogOpen(t, t.TempDir())
	called, hold := make(chan mmapwal.Stats), make(chan bool)
	d.SaveAsync(nil, testLogEntries(1, 2, 1, 100), nil, func(error) { called <- d.Stats(); <-hold })
	if s := <-called; s.PendingSaves != 1 || s.SaveTime.Count() != 1 || s.SyncEntries.Sum != 2 {
		t.Errorf("%d pending, %d Saves, %v entries synced", s.PendingSaves, s.SaveTime.Count(), s.SyncEntries.Sum)
	}
	close(hold)
	failed := make(chan error)
	d.SaveAsync(nil, testLogEntries(9, 9, 1, 100), nil, func(err error) { failed <- err })
	testLogIs(t, <-failed, mmapwal.ErrInvalid)
	testLogClose(t, d)
	if s := d.Stats(); s.PendingSaves != 0 || s.SaveErrors != 1 || s.SaveTime.Count() != 1 {
		t.Errorf("%d pending, %d Saves, %d failed", s.PendingSaves, s.SaveTime.Count(), s.SaveErrors)
	}
}

// TestStatsOfSealing: what is in a file that is sealed in the background is not
// unsynced, under NoSync either.
func TestStatsOfSealing(t *testing.T) {
	d := testLogOpen(t, t.TempDir(), testLogNoSync)
	for k := range uint64(2) {
		testLogSave(t, d, nil, testLogEntries(8*k+1, 8*k+8, 1, 110_000))
	}
	d.SealNow() // what would be done half a minute later
	if s := d.Stats(); s.SyncTime.Count() != 1 || s.SyncEntries.Sum != 8 || s.PinnedFiles != 0 || s.OldestFile.IsZero() {
		t.Errorf("%d syncs of %v entries, %d files pinned, oldest file %v", s.SyncTime.Count(), s.SyncEntries.Sum, s.PinnedFiles, s.OldestFile)
	}
}

// TestStatsOfFiles follows the files of a log from the first one to a snapshot
// that covers most of them.
func TestStatsOfFiles(t *testing.T) {
	dir := t.TempDir()
	before := time.Now()
	d := testLogOpen(t, dir, func(o *mmapwal.Options) { o.RetainEntries = 12 })
	if s := d.Stats(); !s.OldestFile.IsZero() || !s.LastSnapshot.IsZero() || s.Opened.Before(before) {
		t.Errorf("a new log: oldest file %v, last snapshot %v, opened %v", s.OldestFile, s.LastSnapshot, s.Opened)
	}
	for k := range uint64(4) {
		testLogSave(t, d, testLogHard(1, 1, 1), testLogEntries(8*k+1, 8*k+8, 1, 110_000))
	}
	s := d.Stats()
	if s.Files != 4 || s.Rotations != 3 || s.Compactions != 0 || s.RetainedFiles != 0 || !between(before, s.OldestFile) {
		t.Errorf("four files: %+v", s)
	}
	if s.FreeBytes <= 0 || s.TotalBytes < s.FreeBytes {
		t.Errorf("%d bytes of %d are free", s.FreeBytes, s.TotalBytes)
	}
	if err := d.CreateSnapshot(30, nil, nil); err != nil {
		t.Fatal(err)
	}
	after := d.Stats()
	if after.Compactions != 1 || after.RetainedFiles != 1 || after.Files != 2 || !between(before, after.LastSnapshot) {
		t.Errorf("after a snapshot: %+v", after)
	}
	if after.OldestFile.Before(s.OldestFile) {
		t.Errorf("the oldest file was begun at %v, before one that is gone, %v", after.OldestFile, s.OldestFile)
	}
	if err := d.Compact(30); err != nil {
		t.Fatal(err)
	}
	if s := d.Stats(); s.Compactions != 2 || s.RetainedFiles != 0 || !s.LastSnapshot.Equal(after.LastSnapshot) {
		t.Errorf("after a compaction: %+v", s)
	}
}

func between(before, at time.Time) bool { return !at.Before(before) && !at.After(time.Now()) }

// TestStatsOfEarlierRun: what an earlier run stored has the time of its file.
func TestStatsOfEarlierRun(t *testing.T) {
	dir := t.TempDir()
	d := testLogOpen(t, dir)
	testLogSave(t, d, testLogHard(1, 1, 1), testLogEntries(1, 8, 1, 110_000))
	if err := d.CreateSnapshot(2, nil, make([]byte, 5000)); err != nil {
		t.Fatal(err)
	}
	testLogSave(t, d, nil, testLogEntries(9, 16, 1, 110_000))
	testLogClose(t, d)
	snapshots, err := filepath.Glob(filepath.Join(dir, "*.snap"))
	if err != nil || len(snapshots) != 1 {
		t.Fatalf("snapshots %v, %v", snapshots, err)
	}
	fileTime, snapTime := time.Unix(1_000_000, 0), time.Unix(2_000_000, 0)
	for name, at := range map[string]time.Time{filepath.Join(dir, "00001.wal"): fileTime, snapshots[0]: snapTime} {
		if err := os.Chtimes(name, at, at); err != nil {
			t.Fatal(err)
		}
	}
	for _, edit := range []func(*mmapwal.Options){testLogReadOnly, testLogNoSync} {
		d = testLogOpen(t, dir, edit)
		if s := d.Stats(); !s.OldestFile.Equal(fileTime) || !s.LastSnapshot.Equal(snapTime) {
			t.Errorf("oldest file %v, last snapshot %v; want %v, %v", s.OldestFile, s.LastSnapshot, fileTime, snapTime)
		}
	}
}

// TestStatsOfDamage: what callers were told of is counted, and healed slots are
// logged, once.
func TestStatsOfDamage(t *testing.T) {
	dir := t.TempDir()
	testLogThreeFiles(t, dir)
	testLogFlip(t, filepath.Join(dir, "00001.wal"), testLogRecords(t, filepath.Join(dir, "00001.wal"))[3]+1000)
	testLogEdit(t, filepath.Join(dir, "00002.wal"), func(content []byte) []byte {
		clear(content[:960_000])
		return content
	})
	var lines testLogLines
	d := testLogOpen(t, dir, testLogLogged(&lines))
	for range 2 {
		_, err := d.Entries(1, 5, math.MaxUint64)
		testLogIs(t, err, mmapwal.ErrCorrupt)
		if _, err := d.Entries(12, 14, math.MaxUint64); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Term(13); err != nil {
			t.Fatal(err)
		}
	}
	s := d.Stats()
	if s.CorruptReads != 2 || s.Faults != 0 || s.HealedFiles != 1 || s.ReadEntries != 4 || s.ReadBytes != 4*110_000 {
		t.Errorf("%d corrupt reads, %d faults, %d files healed, %d entries, %d bytes read", s.CorruptReads, s.Faults, s.HealedFiles, s.ReadEntries, s.ReadBytes)
	}
	if n := strings.Count(lines.String(), "damaged slots rebuilt"); n != 1 || !strings.Contains(lines.String(), "00002.wal") {
		t.Errorf("healed slots are logged %d times:\n%s", n, lines.String())
	}
}

func testLogLogged(lines *testLogLines) func(*mmapwal.Options) {
	return func(o *mmapwal.Options) { o.Logger = slog.New(slog.NewTextHandler(lines, nil)) }
}

// TestStatsOfErrors: a full disk and a failed sync.
func TestStatsOfErrors(t *testing.T) {
	var disk vfstest.Switch
	d := testLogOpen(t, t.TempDir(), testLogOn(vfstest.New(vfs.OS(), disk.Before)))
	disk.Set(vfstest.FailFrom(1, syscall.ENOSPC, vfstest.OpReserve))
	large := testLogEntries(1, 5, 1, 1_000_000)
	testLogIs(t, d.Save(nil, large, nil), mmapwal.ErrNoSpace)
	disk.Set(vfstest.FailFrom(1, syscall.EIO, vfstest.OpMsync))
	testLogIs(t, d.Save(nil, large[:1], nil), mmapwal.ErrPoisoned)
	testLogIs(t, d.Save(nil, large[:1], nil), mmapwal.ErrPoisoned)
	s := d.Stats()
	if s.SaveErrors != 3 || s.NoSpace != 1 || s.SaveTime.Count() != 0 || s.SyncTime.Count() != 0 {
		t.Errorf("%d errors, %d for want of room, %d Saves, %d syncs", s.SaveErrors, s.NoSpace, s.SaveTime.Count(), s.SyncTime.Count())
	}
	if s.UnsyncedEntries != 1 || !errors.Is(s.Poisoned, syscall.EIO) {
		t.Errorf("%d entries unsynced, poisoned: %v", s.UnsyncedEntries, s.Poisoned)
	}
	if s.TotalBytes != 0 { // of a file system that cannot tell
		t.Errorf("%d bytes in all", s.TotalBytes)
	}
}

// TestStatsDuringSync: Stats does not wait for the disk, and tells what a power
// cut would take now.
func TestStatsDuringSync(t *testing.T) {
	var disk vfstest.Switch
	d := testLogOpen(t, t.TempDir(), testLogOn(vfstest.New(vfs.OS(), disk.Before)))
	syncing, proceed := make(chan struct{}), make(chan struct{})
	disk.Set(func(op vfstest.Op, _ string) error {
		if op == vfstest.OpMsync {
			close(syncing)
			<-proceed
		}
		return nil
	})
	var saves sync.WaitGroup
	saves.Go(func() { testLogSaveIn(t, d, 1) })
	<-syncing
	during := d.Stats()
	close(proceed)
	saves.Wait()
	disk.Set(nil)
	if s := d.Stats(); during.UnsyncedEntries != 1 || s.UnsyncedEntries != 0 || s.SyncTime.Sum <= 0 {
		t.Errorf("%d entries unsynced during the sync, %d after it; it took %v s", during.UnsyncedEntries, s.UnsyncedEntries, s.SyncTime.Sum)
	}
}

func testLogSaveIn(t *testing.T, d *mmapwal.DiskStorage, i uint64) {
	if err := d.Save(nil, testLogEntries(i, i, 1, 10), nil); err != nil {
		t.Error(err)
	}
}

// TestSlowSyncIsLogged, but not with every Save; and not if nobody wants it.
func TestSlowSyncIsLogged(t *testing.T) {
	for _, test := range []struct {
		threshold time.Duration
		slow      uint64
		lines     int
	}{{time.Nanosecond, 5, 1}, {time.Hour, 0, 0}, {-1, 0, 0}} {
		var lines testLogLines
		d := testLogOpen(t, t.TempDir(), testLogLogged(&lines), func(o *mmapwal.Options) { o.SlowSync = test.threshold })
		for i := range uint64(5) {
			testLogSaveIn(t, d, i+1)
		}
		if n := strings.Count(lines.String(), "slow sync"); n != test.lines || d.Stats().SlowSyncs != test.slow {
			t.Errorf("%v: %d slow syncs, %d lines:\n%s", test.threshold, d.Stats().SlowSyncs, n, lines.String())
		}
	}
}
