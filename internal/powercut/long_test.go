package powercut_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/powercut"
)

// perCut is how many images TestPowerCut takes at each power cut.
const perCut = 6

// Minimum figures of TestPowerCut, for each sync policy: with fewer it proves
// nothing.
const (
	minLongImages   = 4_000
	minLongDistinct = 2_000
	minLongCuts     = 600
	minLongKills    = 150
	minLongFailed   = 250
	minInRecovery   = 1_000
)

// TestPowerCut runs long histories on a disk that loses its power, and compares
// what is found with what was promised. SEED sets the first seed, N the number of
// images for each sync policy. With OPS only that one history is run, with what
// belongs to SEED.
func TestPowerCut(t *testing.T) {
	t.Run("HardSync", func(t *testing.T) { testLong(t, false) })
	t.Run("NoSync", func(t *testing.T) { testLong(t, true) })
}

// longConfig is what belongs to a seed besides its history.
func longConfig(seed uint64, noSync bool) *powercut.Config {
	r := rand.New(rand.NewPCG(seed, 8))
	c := &powercut.Config{NoSync: noSync, Plain: seed%4 == 2, Retain: uint64(r.IntN(3) * r.IntN(10))}
	if !noSync { // all that syncs, in turn
		c.Async, c.Batch = seed%3 == 1, seed%3 == 2
	}
	return c
}

func testLong(t *testing.T, noSync bool) {
	t.Parallel()
	seed := number(t, "SEED", 1)
	if ops := history(t); ops != nil {
		if _, err := powercut.Long(longConfig(seed, noSync), ops, perCut); err != nil {
			t.Fatal(err)
		}
		return
	}
	first, images := seed, int64(number(t, "N", minLongImages+minLongImages/8))
	if light() {
		images = 500
	}
	var sum powercut.Report
	for ; sum.Images < images; seed++ {
		report, err := powercut.Long(longConfig(seed, noSync), powercut.RandomHistory(seed), perCut)
		sum.Add(report)
		if err != nil {
			reportLong(t, err, seed, noSync, sum.Images)
		}
	}
	t.Logf("seeds %d to %d: %v", first, seed-1, &sum)
	if isSet("N") || isSet("SEED") {
		return
	}
	atLeast(t, "images", sum.Images, minLongImages)
	atLeast(t, "distinct images", sum.Distinct, minLongDistinct)
	atLeast(t, "cuts", sum.Cuts, minLongCuts)
	atLeast(t, "kills", sum.Kills, minLongKills)
	atLeast(t, "failed syncs", sum.FailedSyncs, minLongFailed)
	atLeast(t, "cut recoveries", sum.InRecovery, minInRecovery)
}

// reportLong shrinks the history that failed, and says how to run it again.
func reportLong(t *testing.T, err error, seed uint64, noSync bool, images int64) {
	t.Helper()
	var failure *powercut.Failure
	if !errors.As(err, &failure) {
		t.Fatal(err)
	}
	cfg := longConfig(seed, noSync)
	shrunk := failure
	fails := func(ops []powercut.Op) bool {
		_, err := powercut.Long(cfg, ops, perCut)
		return errors.As(err, &shrunk)
	}
	until := time.Now().Add(time.Duration(number(t, "SHRINK", 20)) * time.Second)
	ops := powercut.Shrink(failure.History, fails, until)
	fails(ops)
	replay := fmt.Sprintf("SEED=%d OPS='%s' go test ./internal/powercut -run '^%s$'", seed, powercut.Format(ops), t.Name())
	t.Fatalf("IMAGES=%d SEED=%d: %v\n\nits %d operations shrunk to %d:\n%v\n\nrun it again:\n%s\nor as it was found: SEED=%d N=1 go test ./internal/powercut -run '^%s$'",
		images, seed, failure, len(failure.History), len(ops), shrunk, replay, seed, t.Name())
}
