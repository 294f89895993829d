package histories_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/histories"
)

// number returns a number of the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text, set := os.LookupEnv(name)
	if !set || text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// few is how many histories there are if nobody says how many.
func few() uint64 {
	if testing.Short() {
		return 8
	}
	return 40
}

// directories returns a function that makes new directories.
func directories(t *testing.T) func() string {
	root := t.TempDir()
	return func() string {
		dir, err := os.MkdirTemp(root, "")
		if err != nil {
			t.Error(err)
		}
		return filepath.Clean(dir)
	}
}

// TestRandom runs the histories of N seeds, from SEED on. With ALL each call is followed by
// all looks. It ends with the first one that fails, unless KEEP is set.
func TestRandom(t *testing.T) {
	first, n := number(t, "SEED", 1), number(t, "N", few())
	all := os.Getenv("ALL") != ""
	var mu sync.Mutex
	var sum histories.Count
	failed := 0
	seeds := make(chan uint64)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for seed := range seeds {
				count, err := histories.Random(seed, all, directories(t))
				mu.Lock()
				sum.Add(count)
				mu.Unlock()
				if err != nil {
					mu.Lock()
					failed++
					mu.Unlock()
					report(t, seed, err)
				}
			}
		})
	}
	for seed := first; seed < first+n && (!t.Failed() || os.Getenv("KEEP") != ""); seed++ {
		seeds <- seed
	}
	close(seeds)
	workers.Wait()
	t.Logf("failed %d; %v", failed, sum)
}

func report(t *testing.T, seed uint64, err error) {
	t.Helper()
	var failure *histories.Failure
	if !errors.As(err, &failure) {
		t.Errorf("SEED=%d: %v", seed, err)
		return
	}
	until := time.Now().Add(time.Duration(number(t, "SHRINK", 20)) * time.Second)
	shrunk := histories.Shrink(failure, directories(t), until)
	t.Errorf("SEED=%d N=1: %s\n%d calls, shrunk to %d: %v", seed, failure.Reason, len(failure.Program.Calls), len(shrunk.Program.Calls), shrunk)
}

// TestRecorded replays what the nodes of raft groups saved, of the seeds from SEED on: a
// group for twenty of N.
func TestRecorded(t *testing.T) {
	first, n := number(t, "SEED", 1), (number(t, "N", few())+19)/20
	var sum histories.Count
	for seed := first; seed < first+n; seed++ {
		programs, err := histories.Record(seed)
		if err != nil {
			t.Fatalf("SEED=%d: %v", seed, err)
		}
		for k, p := range programs {
			count, err := histories.Run(p, directories(t))
			sum.Add(count)
			if err != nil {
				t.Errorf("node %d", k+1)
				report(t, seed, err)
			}
			if err := histories.Legal(p); err != nil {
				t.Errorf("SEED=%d: node %d does what is not thought to be legal: %v", seed, k+1, err)
			}
		}
	}
	t.Logf("%v", sum)
}

// TestDamage damages the logs that histories of the seeds from SEED on leave, four times each:
// a history for ten of N.
func TestDamage(t *testing.T) {
	first, n := number(t, "SEED", 1), (number(t, "N", few())+9)/10
	var sum histories.Damages
	for seed := first; seed < first+n; seed++ {
		damages, err := histories.Damage(seed, 4, directories(t))
		sum.Add(damages)
		if err != nil {
			t.Errorf("SEED=%d: %v", seed, err)
		}
	}
	t.Logf("%v", sum)
}

// TestDamageFound repeats the damages that found a fault.
func TestDamageFound(t *testing.T) {
	for _, seed := range []uint64{
		21, // behind a damaged record at the begin of a file, one of a lower index than the next
	} {
		if _, err := histories.Damage(seed, 4, directories(t)); err != nil {
			t.Errorf("SEED=%d: %v", seed, err)
		}
	}
}
