package repair

import (
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/inspect"
)

// TestTornBehindAnEnd: torn bytes behind the end of a file, which recovery has dropped, and
// cannot give back where there are no holes, are nothing to repair.
func TestTornBehindAnEnd(t *testing.T) {
	needs := repairable(&inspect.Log{Files: []*inspect.File{{Name: "sealed", Sealed: true}, {Name: "ended", Ended: true}, {Name: "open"}}})
	for name, want := range map[string]bool{"sealed": false, "ended": false, "open": true} {
		if got := needs(inspect.Problem{Severity: inspect.Note, Kind: inspect.KindTorn, File: name}); got != want {
			t.Errorf("%s: repairable is %v", name, got)
		}
	}
}
