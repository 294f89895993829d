package powercut_test

import (
	"errors"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/powercut"
)

// TestMain lets garbage pile up: images are small and many.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}

// number reads an environment variable.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func isSet(name string) bool { return os.Getenv(name) != "" }

// history reads OPS; nil if it is not set.
func history(t *testing.T) []powercut.Op {
	t.Helper()
	if !isSet("OPS") {
		return nil
	}
	return parse(t, os.Getenv("OPS"))
}

// light tells the tests to do a small part of what they do: under the race
// detector it takes twenty times as long, and the rest shows nothing new.
func light() bool { return underRace || testing.Short() }

func atLeast(t *testing.T, what string, got, want int64) {
	t.Helper()
	if got < want && !light() {
		t.Errorf("%d %s, want at least %d", got, what, want)
	}
}

// minimum is what TestPowerCutShort has to try, for it to prove anything.
type minimum struct{ histories, cuts, images, distinct int64 }

// TestPowerCutShort tries all histories up to a length, and some that are longer.
// LENGTH sets that length, PERCUT up to how many subsets of what may be lost all
// are tried, LONGER how many histories of lengths 3 and 4, and SEED which. One of
// DEPTH distinct images has its recovery cut, and PERSTEP images are taken of each
// step of that. With OPS only that one history is tried.
func TestPowerCutShort(t *testing.T) {
	t.Run("HardSync", func(t *testing.T) {
		testShort(t, false, 1<<5, 20, minimum{750, 18_000, 100_000, 11_500})
	})
	t.Run("NoSync", func(t *testing.T) {
		testShort(t, true, 1<<2, 6, minimum{500, 15_000, 90_000, 13_000})
	})
}

func testShort(t *testing.T, noSync bool, perCut, longer uint64, least minimum) {
	length := int(number(t, "LENGTH", 2))
	if light() {
		length, perCut, longer = 1, 8, 3
	}
	histories := [][]powercut.Op{history(t)}
	if histories[0] == nil {
		histories = all(length, int(number(t, "LONGER", longer)), number(t, "SEED", 1))
	}
	limits := powercut.Limits{
		PerCut: int(number(t, "PERCUT", perCut)), Torn: 8,
		Depth: int(number(t, "DEPTH", 64)), PerStep: int(number(t, "PERSTEP", 4)),
		FailedSyncs: true, Workers: runtime.GOMAXPROCS(0),
	}
	report, err := powercut.Short(&powercut.Config{NoSync: noSync, Retain: 1}, limits, histories)
	var failure *powercut.Failure
	if errors.As(err, &failure) {
		t.Fatalf("IMAGES=%d %v\n\nrun it again:\nOPS='%s' DEPTH=1 PERCUT=%d PERSTEP=%d go test ./internal/powercut -run '^%s$'",
			failure.Images, failure, powercut.Format(failure.History), limits.PerCut, limits.PerStep, t.Name())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%v\n%s", report, report.Table())
	if isSet("OPS") || length < 2 || isSet("PERCUT") || isSet("LONGER") {
		return
	}
	atLeast(t, "histories", report.Histories, least.histories)
	atLeast(t, "cuts", report.Cuts, least.cuts)
	atLeast(t, "images", report.Images, least.images)
	atLeast(t, "distinct images", report.Distinct, least.distinct)
}

// all returns all histories up to a length, a sample of those of up to 4, and
// those in which a sync fails before the last operation.
func all(length, longer int, seed uint64) (histories [][]powercut.Op) {
	for n := range length + 1 {
		histories = append(histories, powercut.All(n)...)
	}
	for n := max(length+1, 3); n <= 4; n++ {
		histories = append(histories, powercut.Sample(n, longer, seed)...)
	}
	syncs := 12
	if light() {
		syncs = 1
	}
	return append(histories, powercut.AfterFailedSync(syncs)...)
}

// TestPowerCutPlain tries recoveries on a disk without fallocate, where blocks are made by
// writing zeros: none of them is written where something stands.
func TestPowerCutPlain(t *testing.T) {
	for name, noSync := range map[string]bool{"HardSync": false, "NoSync": true} {
		t.Run(name, func(t *testing.T) {
			limits := powercut.Limits{PerCut: 8, Torn: 2, Depth: 64, PerStep: 4, Workers: runtime.GOMAXPROCS(0)}
			histories := append(powercut.All(1), powercut.Sample(3, 5, number(t, "SEED", 1))...)
			report := tryShort(t, &powercut.Config{NoSync: noSync, Plain: true, Retain: 1}, limits, histories)
			atLeast(t, "images", report.Images, 400)
		})
	}
}

// TestPowerCutFound tries the histories that a fault of the engine, or a mutation, was found
// with more thoroughly: the recovery of every image is cut at all its steps.
func TestPowerCutFound(t *testing.T) {
	for _, found := range []struct {
		ops             string
		noSync          bool
		perCut, perStep int
		retain          uint64
	}{
		// A snapshot replaces one that has a file; the power goes when one page of
		// wal.meta says so, and again when the recovery stores the first page.
		{"a,i,i", false, 1 << 8, 16, 1},
		// The power tears the page of wal.meta that names the first snapshot file,
		// and goes again when the recovery stores that page: what it stores brings
		// the missing sector.
		{"x,r,a,i", false, 1 << 8, 16, 1},
		// The power takes a record of a file behind which another begins, and goes again
		// when the recovery has sealed that file.
		{"a,i,o,r", true, 1 << 5, 4, 1},
		// A snapshot replaces a log that has its entry, and some behind it.
		{"a,r1,i15", false, 1 << 4, 4, 1},
		// A conflict replaces a file as a whole, the next one reaches deeper, and a snapshot
		// lets go of the file in front.
		{"i370561656,r860820233,a662162199,o540458037,o,a,s,a", false, 1 << 2, 1, 2},
	} {
		t.Run(found.ops, func(t *testing.T) {
			limits := powercut.Limits{PerCut: found.perCut, Torn: 2, Depth: 1, PerStep: found.perStep, Workers: runtime.GOMAXPROCS(0)}
			if light() {
				limits.PerCut, limits.Depth, limits.PerStep = 8, 16, 2
			}
			tryShort(t, &powercut.Config{Retain: found.retain, NoSync: found.noSync}, limits, [][]powercut.Op{parse(t, found.ops)})
		})
	}
}

// tryShort tries the histories.
func tryShort(t *testing.T, cfg *powercut.Config, limits powercut.Limits, histories [][]powercut.Op) *powercut.Report {
	t.Helper()
	report, err := powercut.Short(cfg, limits, histories)
	var failure *powercut.Failure
	if errors.As(err, &failure) {
		t.Fatalf("IMAGES=%d %v", failure.Images, failure)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report)
	return report
}
