package mmapwal_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// TestStoreWaits: while a write waits for the disk, as on a file system that is frozen, what does
// not need that disk goes on, whatever the sync policy is. A power cut then takes nothing that was
// promised, and the Save is done when the disk goes on.
func TestStoreWaits(t *testing.T) {
	policies := map[string]mmapwal.SyncPolicy{
		"HardSync": mmapwal.HardSync, "NoSync": mmapwal.NoSync, "BatchSync": mmapwal.BatchSync(1000, time.Hour),
	}
	saves := map[string][]*raftpb.Entry{"entries": testLogEntries(31, 35, 1, 100), "a commit index": nil}
	r := rand.New(rand.NewPCG(testLogSeed(t), 0))
	for policy, sync := range policies {
		for what, es := range saves {
			t.Run(policy+", "+what, func(t *testing.T) {
				testStoreWaits(t, r, es, func(o *mmapwal.Options) { o.Sync, o.CacheSize = sync, -1 })
			})
		}
	}
}

func testStoreWaits(t *testing.T, r *rand.Rand, es []*raftpb.Entry, policy func(*mmapwal.Options)) {
	disk := simdisk.New()
	testNil(t, disk.MkdirAll("/log"))
	d := testLogOpen(t, "/log", testLogOn(disk), policy)
	testLogSave(t, d, testLogHard(1, 1, 10), testLogEntries(1, 30, 1, 100))
	testNil(t, d.Sync())
	d.WaitForBackground()
	waits, goOn := make(chan string, 1), make(chan struct{})
	disk.Stall(func(op simdisk.Op, name string) {
		if op == simdisk.OpWrite {
			select {
			case waits <- name:
			default:
			}
			<-goOn
		}
	})
	saved := make(chan error, 1)
	go func() { saved <- d.Save(testLogHard(1, 1, 20), es, nil) }()
	name := <-waits
	testStoreWaitsReads(t, d)
	select {
	case err := <-saved:
		t.Errorf("Save did not wait for the write to %s: %v", name, err)
	default:
	}
	for range 5 {
		image := testLogOpen(t, "/log", testLogOn(disk.Crash(r)))
		testStoreWaitsReads(t, image)
		testLogClose(t, image)
	}
	close(goOn)
	testNil(t, <-saved)
	if last, err := d.LastIndex(); last != 30+uint64(len(es)) || err != nil {
		t.Errorf("the last entry is %d, %v", last, err)
	}
}

// testStoreWaitsReads reads the entries that were promised.
func testStoreWaitsReads(t *testing.T, d *mmapwal.DiskStorage) {
	t.Helper()
	got, err := d.Entries(1, 31, math.MaxUint64)
	testNil(t, err)
	if len(got) != 30 {
		t.Errorf("%d entries", len(got))
	}
	for name, err := range testLogReads(d) {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s := d.Stats(); s.Poisoned != nil {
		t.Error(s.Poisoned)
	}
}
