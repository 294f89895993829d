// Package report shows the results of a run: as tables, as JSON and as charts.
package report

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
	"github.com/seed-2fef92ad/raftwal/bench/internal/stats"
	"github.com/seed-2fef92ad/raftwal/bench/internal/suite"
)

// section is a part of a report.
type section struct {
	name  string
	write func(b *strings.Builder, res *suite.Results)
}

// sections are all parts, in their order.
func sections() []section {
	return []section{
		{"machine", writeMachine},
		{"ratios", writeRatios},
		{"latencies", writeLatencies},
		{"growth", writeGrowth},
		{"reopen", writeReopens},
		{"compaction", writeCompactions},
		{"idle", writeIdle},
	}
}

// Tables writes the results as tables in Markdown, which a terminal shows well.
func Tables(out io.Writer, res *suite.Results) error {
	var b strings.Builder
	for _, s := range sections() {
		s.write(&b, res)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func writeMachine(b *strings.Builder, res *suite.Results) {
	m := res.Machine
	fmt.Fprintf(b, "%s, %d cores, %s, kernel %s, %s, %s.\n", m.CPU, m.CPUs, m.FileSystem, m.Kernel, m.Go, m.Platform)
	fmt.Fprintf(b, "Load before %s, after %s. Reading the clock takes %.0f ns.\n", m.LoadBefore, m.LoadAfter, m.ClockNs)
	fmt.Fprintf(b, "Seed %d, %d rounds, %v for each measurement.\n", res.Seed, res.Rounds, millis(res.TimeMs))
	if m.DeviceError != "" {
		fmt.Fprintf(b, "No counts of the device: %s.\n", m.DeviceError)
	}
}

func millis(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// writeRatios writes a row for each workload and a column for each contender.
func writeRatios(b *strings.Builder, res *suite.Results) {
	names := contendersOf(res)
	if len(res.Results) == 0 {
		return
	}
	b.WriteString("\nTime of a call, as a multiple of the reference's in the same round (median of the rounds). " +
		"`*`: the best log; `<`: we are not; not encrypted.\n\n")
	t := table{append([]string{"workload", "reference"}, names...)}
	for _, w := range res.Workloads {
		best := bestOf(res, w.Name)
		row := []string{w.Name, "–"}
		if f := find(res, w.Name, contender.Reference); f != nil {
			row[1] = duration(f.NsPerCall.Median)
		}
		for _, name := range names {
			row = append(row, ratioCell(find(res, w.Name, name), best))
		}
		t = append(t, row)
	}
	t.write(b)
}

// ratioCell shows a ratio, and whether it is the best, or ours and is not.
func ratioCell(r *suite.Result, best string) string {
	switch {
	case r == nil:
		return "–"
	case r.Contender == best:
		return ratio(r.Ratio.Median) + " *"
	case r.Contender == contender.Ours && best != "":
		return ratio(r.Ratio.Median) + " <"
	}
	return ratio(r.Ratio.Median)
}

// bestOf returns the best of the other logs, or ours, if that is better; "" if there
// are no others.
func bestOf(res *suite.Results, workload string) string {
	other := bestOther(res, workload)
	ours := find(res, workload, contender.Ours)
	if other != nil && ours != nil && ours.Ratio.Median < other.Ratio.Median {
		return contender.Ours
	}
	return nameOf(other)
}

// bestOther returns the result of the log with the lowest ratio that is not of this
// repository; nil if there is none.
func bestOther(res *suite.Results, workload string) (best *suite.Result) {
	for _, c := range contender.All() {
		r := find(res, workload, c.Name)
		if c.Ours || c.Name == contender.Reference || r == nil {
			continue
		}
		if best == nil || r.Ratio.Median < best.Ratio.Median {
			best = r
		}
	}
	return best
}

func nameOf(r *suite.Result) string {
	if r == nil {
		return ""
	}
	return r.Contender
}

// writeLatencies writes a row for each workload and contender.
func writeLatencies(b *strings.Builder, res *suite.Results) {
	if len(res.Results) == 0 {
		return
	}
	b.WriteString("\nLatency of single calls, throughput, and what the device did for a call. " +
		"The device counts what others write to it, too.\n\n")
	t := table{{"workload", "contender", "ratio (quartiles)", "mean", "p50", "p99", "p99.9", "max", "entries/s", "MB/s", "writes", "bytes", "flushes"}}
	for _, r := range res.Results {
		l := r.Latency
		row := []string{
			r.Workload, r.Contender, fmt.Sprintf("%s (%s–%s)", ratio(r.Ratio.Median), ratio(r.Ratio.Q1), ratio(r.Ratio.Q3)),
			duration(r.NsPerCall.Median), nanos(l.P50Ns), nanos(l.P99Ns), nanos(l.P999Ns), nanos(l.MaxNs),
			fmt.Sprintf("%.0f", r.PerSecond), fmt.Sprintf("%.1f", r.MBPerSecond),
		}
		t = append(t, append(row, deviceCells(r.Device)...))
	}
	t.write(b)
}

func deviceCells(d *suite.PerCall) []string {
	if d == nil {
		return []string{"–", "–", "–"}
	}
	return []string{fmt.Sprintf("%.2f", d.Writes), bytes(d.Bytes), fmt.Sprintf("%.2f", d.Flushes)}
}

// writeGrowth writes a row for each contender and length of the log.
func writeGrowth(b *strings.Builder, res *suite.Results) {
	if len(res.Growth) == 0 {
		return
	}
	b.WriteString("\nCost as the log grows: entries of 128 bytes, not synced, files in the page cache.\n\n")
	t := table{{"contender", "entries", "open", "append an entry", "read an entry", "look up a term", "heap per million entries"}}
	for _, g := range res.Growth {
		t = append(t, []string{
			g.Contender, fmt.Sprint(g.Entries), duration(g.OpenNs.Median), duration(g.AppendNsPerEntry.Median),
			median(g.ReadNs), median(g.TermNs), bytes(max(g.HeapBytesPerMillion, 0)),
		})
	}
	t.write(b)
}

// median shows a time that not every contender has.
func median(s *stats.Summary) string {
	if s == nil {
		return "–"
	}
	return duration(s.Median)
}

// writeReopens writes a row for each contender and length of the log.
func writeReopens(b *strings.Builder, res *suite.Results) {
	if len(res.Reopens) == 0 {
		return
	}
	b.WriteString("\nOpening a log of entries of 128 bytes, saved 256 at a time with a sync, and what it takes then; " +
		"the heap also of the log that saved them.\n\n")
	t := table{{"contender", "entries", "after Close", "after SIGKILL", "heap", "heap of the one that saved", "descriptors", "mappings", "goroutines"}}
	for _, r := range res.Reopens {
		t = append(t, []string{
			r.Contender, fmt.Sprint(r.Entries), duration(r.CleanNs.Median), duration(r.KilledNs.Median),
			bytes(r.Opened.HeapBytes), bytes(r.Filled.HeapBytes),
			count(r.Opened.Descriptors), count(r.Opened.Mappings), count(r.Opened.Goroutines),
		})
	}
	t.write(b)
}

// writeCompactions writes a row for each contender.
func writeCompactions(b *strings.Builder, res *suite.Results) {
	if len(res.Compactions) == 0 {
		return
	}
	b.WriteString("\nDropping the first half of a log, and synced saves of one entry of 128 bytes around it.\n\n")
	t := table{{"contender", "entries", "in the caller", "p50 before", "p50 after", "p99 before", "p99 after", "max before", "max after"}}
	for _, c := range res.Compactions {
		t = append(t, []string{
			c.Contender, fmt.Sprint(c.Entries), duration(c.TookNs.Median), nanos(c.Before.P50Ns), nanos(c.After.P50Ns),
			nanos(c.Before.P99Ns), nanos(c.After.P99Ns), nanos(c.Before.MaxNs), nanos(c.After.MaxNs),
		})
	}
	t.write(b)
}

// writeIdle writes a row for each contender and number of logs.
func writeIdle(b *strings.Builder, res *suite.Results) {
	if len(res.Idle) == 0 {
		return
	}
	b.WriteString("\nWhat each of so many idle logs in one process takes, with one entry each.\n\n")
	t := table{{"contender", "logs", "heap", "resident", "disk", "descriptors", "mappings", "goroutines"}}
	for _, i := range res.Idle {
		u := i.Each
		t = append(t, []string{
			i.Contender, fmt.Sprint(i.Logs), bytes(u.HeapBytes), bytes(u.ResidentBytes), bytes(u.DiskBytes),
			count(u.Descriptors), count(u.Mappings), count(u.Goroutines),
		})
	}
	t.write(b)
}

// contendersOf returns the names of those that have results, in their order,
// without the reference.
func contendersOf(res *suite.Results) []string {
	var names []string
	seen := map[string]bool{contender.Reference: true}
	for _, r := range res.Results {
		if !seen[r.Contender] {
			seen[r.Contender] = true
			names = append(names, r.Contender)
		}
	}
	return names
}

func find(res *suite.Results, workload, name string) *suite.Result {
	for k := range res.Results {
		if r := &res.Results[k]; r.Workload == workload && r.Contender == name {
			return r
		}
	}
	return nil
}

func ratio(v float64) string {
	switch {
	case v < 0.1:
		return fmt.Sprintf("%.4f", v)
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// count shows how many of something there are, each of which is a part of one maybe.
func count(v float64) string { return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64) }

func nanos(ns int64) string { return duration(float64(ns)) }

// duration shows nanoseconds with three digits that count.
func duration(ns float64) string {
	for _, unit := range []struct {
		name string
		ns   float64
	}{{"s", 1e9}, {"ms", 1e6}, {"µs", 1e3}} {
		if ns >= 0.9995*unit.ns { // which is shown as one of it
			return fmt.Sprintf("%.3g %s", ns/unit.ns, unit.name)
		}
	}
	return fmt.Sprintf("%.3g ns", ns)
}

func bytes(n float64) string {
	for _, unit := range []struct {
		name string
		n    float64
	}{{"MB", 1e6}, {"KB", 1e3}} {
		if math.Abs(n) >= unit.n {
			return fmt.Sprintf("%.1f %s", n/unit.n, unit.name)
		}
	}
	return fmt.Sprintf("%.0f B", n)
}

// table has its head in the first row.
type table [][]string

// write writes the table with columns of even width.
func (t table) write(b *strings.Builder) {
	widths := make([]int, len(t[0]))
	for _, row := range t {
		for k, cell := range row {
			widths[k] = max(widths[k], utf8.RuneCountInString(cell), 3)
		}
	}
	for k, row := range t {
		writeRow(b, row, widths)
		if k == 0 {
			writeRule(b, widths)
		}
	}
}

func writeRow(b *strings.Builder, row []string, widths []int) {
	b.WriteString("|")
	for k, cell := range row {
		fmt.Fprintf(b, " %s%s |", cell, strings.Repeat(" ", widths[k]-utf8.RuneCountInString(cell)))
	}
	b.WriteString("\n")
}

func writeRule(b *strings.Builder, widths []int) {
	b.WriteString("|")
	for _, n := range widths {
		b.WriteString(" " + strings.Repeat("-", n) + " |")
	}
	b.WriteString("\n")
}
