package mmapwal_test

import (
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// testKeptMeta returns what a power cut leaves of a disk if the kernel had written
// wal.meta back, and nothing else that was not synced.
func testKeptMeta(disk *simdisk.FS) *simdisk.FS {
	r := disk.Remains()
	units := r.Units()
	return r.Image(func(k int) simdisk.Fate {
		if strings.HasSuffix(units[k].Name, "wal.meta") {
			return simdisk.Fate{State: units[k].States}
		}
		return simdisk.Fate{}
	})
}

// TestNoSyncCommit: under NoSync a power cut can bring replaced entries back, but no
// commit index with them that was about those that had replaced them; nor can what commits
// wal.meta for another reason.
func TestNoSyncCommit(t *testing.T) {
	for name, between := range map[string]func(d *mmapwal.DiskStorage) error{
		"":         func(*mmapwal.DiskStorage) error { return nil },
		"clear":    func(d *mmapwal.DiskStorage) error { return d.TruncateEntriesUntil(2) },
		"number":   func(d *mmapwal.DiskStorage) error { return d.SetUint(mmapwal.RaftId, 7) },
		"snapshot": func(d *mmapwal.DiskStorage) error { return d.CreateSnapshot(2, testLogConf(1), nil) },
		"key":      func(d *mmapwal.DiskStorage) error { return d.RotateKey(make([]byte, 16)) },
	} {
		t.Run(name, func(t *testing.T) {
			disk := simdisk.New()
			open := func(disk *simdisk.FS, key []byte) *mmapwal.DiskStorage {
				d, err := mmapwal.OpenOn(testHost(disk, func(f func()) { f() }), "/log", testLogOptions(testLogNoSync, func(o *mmapwal.Options) {
					if name == "key" {
						o.Key = key
					}
				}))
				if err != nil {
					t.Fatal(err)
				}
				return d
			}
			d := open(disk, make([]byte, 32))
			if err := d.Save(testLogHard(1, 1, 1), testLogEntries(2, 5, 1, 100), testLogSnapshot(1, 1, nil)); err != nil { // 2 to 5 are not committed
				t.Fatal(err)
			}
			if err := d.Sync(); err != nil {
				t.Fatal(err)
			}
			// A new leader replaces 3 to 5, and commits them.
			testLogSave(t, d, testLogHard(2, 2, 2), testLogEntries(3, 5, 2, 100))
			testLogSave(t, d, testLogHard(2, 2, 5), nil)
			if err := between(d); err != nil {
				t.Fatal(err)
			}
			e := open(testKeptMeta(disk), make([]byte, 16))
			h, err := e.HardState()
			if err != nil {
				t.Fatal(err)
			}
			for i := uint64(3); i <= h.GetCommit(); i++ {
				if term, err := e.Term(i); err != nil || term != 2 {
					t.Errorf("hard state %v, but entry %d is of term %d, %v", h, i, term, err)
				}
			}
			// And a process that was only killed has lost nothing.
			disk.CutAt(1)
			_ = d.Close()
			disk.Restart()
			e = open(disk, make([]byte, 16))
			if h, err := e.HardState(); err != nil || h.GetTerm() != 2 || h.GetVote() != 2 || h.GetCommit() != 5 {
				t.Errorf("killed: hard state %v, %v", h, err)
			}
		})
	}
}

// TestNoSyncRecoveryDies: a recovery that finds a hard state without its records, and dies at
// any step, leaves none that counts for the next one: not by the record with which it ended
// the file either, which reaches the place where those ended.
func TestNoSyncRecoveryDies(t *testing.T) {
	disk := simdisk.New()
	now := func(f func()) { f() }
	d, err := mmapwal.OpenOn(testHost(disk, now), "/log", testLogOptions(testLogNoSync))
	if err != nil {
		t.Fatal(err)
	}
	testLogSave(t, d, testLogHard(1, 1, 2), testLogEntries(1, 3, 1, 100))
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
	testLogSave(t, d, testLogHard(2, 2, 3), testLogEntries(3, 3, 2, 0)) // a record as large as the one that ends a file
	for n := 1; ; n++ {
		image := testKeptMeta(disk)
		image.CutAt(n)
		_, err := mmapwal.OpenOn(testHost(image, now), "/log", testLogOptions())
		whole := err == nil
		image.Restart()
		if whole {
			break
		}
		e, err := mmapwal.OpenOn(testHost(image, now), "/log", testLogOptions())
		if err != nil {
			t.Fatalf("step %d: %v", n, err)
		}
		h, err := e.HardState()
		term, err3 := e.Term(3)
		if err != nil || err3 != nil || h.GetCommit() != 2 || term != 1 {
			t.Fatalf("step %d: hard state %v, %v; entry 3 is of term %d, %v", n, h, err, term, err3)
		}
	}
}
