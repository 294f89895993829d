package demo

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// Report is what a run did and measured.
type Report struct {
	Seed                       uint64
	Dir                        string
	Writes, Resent             int // acknowledged; sent again
	LeaderKills, FollowerKills int
	Duration                   time.Duration

	saves      []time.Duration    // that had to sync, on any node
	recoveries []mmapwal.Recovery // of the logs of killed nodes
	logs       []logFigures
}

// Print writes the report as a table.
func (r *Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(t, name+"\t"+format+"\n", args...) // Flush returns the error
	}
	row("writes acknowledged", "%d (%d sent again)", r.Writes, r.Resent)
	row("kills", "%d (%d of the leader, %d of a follower)", r.LeaderKills+r.FollowerKills, r.LeaderKills, r.FollowerKills)
	r.printRecovery(row)
	row("Save, synced", "p50 %v, p99 %v (%d of them)", brief(percentile(r.saves, 50)), brief(percentile(r.saves, 99)), len(r.saves))
	for _, l := range r.logs {
		row(fmt.Sprintf("log of node %d", l.node), "%d entries, %d files, %.1f MiB", l.entries, l.files, float64(l.bytes)/(1<<20))
	}
	row("duration", "%v", brief(r.Duration))
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	return nil
}

func (r *Report) printRecovery(row func(name, format string, args ...any)) {
	if len(r.recoveries) == 0 {
		return
	}
	var took []time.Duration
	var torn int64
	for _, rec := range r.recoveries {
		took = append(took, rec.Duration)
		torn += rec.TornBytes
	}
	row("recovery (Open)", "p50 %v, max %v (%d torn bytes dropped)", brief(percentile(took, 50)), brief(slices.Max(took)), torn)
}

// percentile returns the value that p percent of the values do not exceed.
func percentile(values []time.Duration, p int) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[(len(sorted)*p+99)/100-1]
}

// brief rounds to what a reader wants to know.
func brief(d time.Duration) time.Duration {
	switch {
	case d >= time.Second:
		return d.Round(10 * time.Millisecond)
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Microsecond)
}
