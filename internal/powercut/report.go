package powercut

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
)

// Place is where a history was cut.
type Place struct {
	Op   string // the last operation
	Step string // of the disk, in place of which the power went; "return" behind all
}

// Tally counts the images of a place.
type Tally struct{ Cuts, Images, Distinct int64 }

// Report says what was tried.
type Report struct {
	Histories   int64 // those in which each operation does something
	FailedSyncs int64 // each followed by the death of the process
	Kills       int64 // other ones
	Cuts        int64 // places at which the power went
	Images      int64
	Distinct    int64           // those of them that were checked: no two equal ones with the same expectation
	InRecovery  int64           // those of the images whose recovery was cut before
	Places      map[Place]Tally // of Short
}

// Add adds the figures of other, but for those by place.
func (r *Report) Add(other *Report) {
	r.Histories += other.Histories
	r.FailedSyncs += other.FailedSyncs
	r.Kills += other.Kills
	r.Cuts += other.Cuts
	r.Images += other.Images
	r.Distinct += other.Distinct
	r.InRecovery += other.InRecovery
}

func (r *Report) String() string {
	return fmt.Sprintf("%d histories, %d cuts, %d failed syncs, %d kills, %d images (%d of a second cut, in recovery), %d distinct",
		r.Histories, r.Cuts, r.FailedSyncs, r.Kills, r.Images, r.InRecovery, r.Distinct)
}

// Table shows the images by place.
func (r *Report) Table() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%-16s %-9s %8s %9s %9s\n", "operation", "cut at", "cuts", "images", "distinct")
	places := slices.SortedFunc(maps.Keys(r.Places), func(a, b Place) int {
		return strings.Compare(a.Op+" "+a.Step, b.Op+" "+b.Step)
	})
	for _, p := range places {
		t := r.Places[p]
		fmt.Fprintf(&out, "%-16s %-9s %8d %9d %9d\n", p.Op, p.Step, t.Cuts, t.Images, t.Distinct)
	}
	return out.String()
}

// counter counts what was tried. It may be used concurrently.
type counter struct {
	histories, cuts, images, distinct, inRecovery, failedSyncs, kills atomic.Int64
}

func (c *counter) report() *Report {
	return &Report{
		Histories: c.histories.Load(), FailedSyncs: c.failedSyncs.Load(), Kills: c.kills.Load(),
		Cuts: c.cuts.Load(), Images: c.images.Load(), Distinct: c.distinct.Load(), InRecovery: c.inRecovery.Load(),
	}
}
