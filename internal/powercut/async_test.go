package powercut_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/powercut"
)

// TestPowerCutAsync tries SaveAsync, BatchSync and NoSync where order matters most: a suffix is
// replaced after its term was stored, so that only the commit index, which covers it,
// changes beside the entries.
func TestPowerCutAsync(t *testing.T) {
	limits := powercut.Limits{PerCut: 1 << 8, Torn: 2, Depth: 64, PerStep: 4, Workers: runtime.GOMAXPROCS(0)}
	var histories [][]powercut.Op
	for seed := range 12 {
		histories = append(histories, parse(t, fmt.Sprintf("a,h,o%d", seed+1)), parse(t, fmt.Sprintf("a,a,h,o%d,a", seed+1)))
	}
	for name, cfg := range map[string]*powercut.Config{"SaveAsync": {Async: true}, "BatchSync": {Batch: true}, "NoSync": {NoSync: true}} {
		t.Run(name, func(t *testing.T) {
			report := tryShort(t, cfg, limits, histories)
			atLeast(t, "images", report.Images, 500)
		})
	}
}
