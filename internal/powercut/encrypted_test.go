package powercut_test

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/powercut"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// Minimum figures of TestPowerCutEncrypted.
const (
	minEncryptedShort = 7_500
	minEncryptedLong  = 1_500
)

// TestPowerCutEncrypted does the same with an encrypted log, on a smaller scale.
func TestPowerCutEncrypted(t *testing.T) {
	edit := func(o *mmapwal.Options) { o.Key = bytes.Repeat([]byte{7}, 32) }
	limits := powercut.Limits{PerCut: 24, Torn: 8, Depth: 1 << 10, PerStep: 1, Workers: runtime.GOMAXPROCS(0)}
	histories := powercut.All(1)
	if light() {
		histories = powercut.Sample(1, 2, 1)
	}
	for n := 2; n <= 4 && !light(); n++ {
		histories = append(histories, powercut.Sample(n, 6, number(t, "SEED", 1))...)
	}
	report, err := powercut.Short(&powercut.Config{Retain: 1, Edit: edit}, limits, histories)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("short histories: %v", report)
	atLeast(t, "images", report.Images, minEncryptedShort)
	var sum powercut.Report
	images := int64(minEncryptedLong)
	if light() {
		images = 200
	}
	for seed := number(t, "SEED", 1); sum.Images < images; seed++ {
		cfg := longConfig(seed, seed%2 == 0)
		cfg.Edit = edit
		report, err := powercut.Long(cfg, powercut.RandomHistory(seed), perCut)
		if err != nil {
			t.Fatalf("SEED=%d: %v", seed, err)
		}
		sum.Add(report)
	}
	t.Logf("long histories: %v", &sum)
}
