// Package report shows the results of a run: as tables, as JSON and as charts.
package report

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
	"github.com/seed-2fef92ad/raftwal/bench/internal/suite"
)

// Tables writes the results as tables in Markdown, which a terminal shows well.
func Tables(out io.Writer, res *suite.Results) error {
	var b strings.Builder
	writeMachine(&b, res)
	writeRatios(&b, res)
	writeLatencies(&b, res)
	writeGrowth(&b, res)
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
	b.WriteString("\nTime of a call, as a multiple of the floor's in the same round (median of the rounds). " +
		"`*`: the best log; `<`: we are not.\n\n")
	t := table{append([]string{"workload", "floor"}, names...)}
	for _, w := range res.Workloads {
		best := bestOf(res, w.Name)
		row := []string{w.Name, "–"}
		if f := find(res, w.Name, contender.Floor); f != nil {
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
	case r.Contender == contender.Ours:
		return ratio(r.Ratio.Median) + " <"
	}
	return ratio(r.Ratio.Median)
}

// bestOf returns the contender with the lowest ratio; the floor is none.
func bestOf(res *suite.Results, workload string) string {
	var best *suite.Result
	for k := range res.Results {
		r := &res.Results[k]
		if r.Workload != workload || r.Contender == contender.Floor {
			continue
		}
		if best == nil || r.Ratio.Median < best.Ratio.Median {
			best = r
		}
	}
	if best == nil {
		return ""
	}
	return best.Contender
}

// writeLatencies writes a row for each workload and contender.
func writeLatencies(b *strings.Builder, res *suite.Results) {
	if len(res.Results) == 0 {
		return
	}
	b.WriteString("\nLatency of single calls, throughput, and what the device did for a call. " +
		"The device counts what others write to it, too.\n\n")
	t := table{{"workload", "contender", "ratio (quartiles)", "p50", "p99", "p99.9", "max", "MB/s", "writes", "bytes", "flushes"}}
	for _, r := range res.Results {
		l := r.Latency
		row := []string{
			r.Workload, r.Contender, fmt.Sprintf("%s (%s–%s)", ratio(r.Ratio.Median), ratio(r.Ratio.Q1), ratio(r.Ratio.Q3)),
			duration(float64(l.P50Ns)), duration(float64(l.P99Ns)), duration(float64(l.P999Ns)), duration(float64(l.MaxNs)),
			fmt.Sprintf("%.1f", r.MBPerSecond),
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
	t := table{{"contender", "entries", "open", "append an entry", "read an entry", "heap per million entries"}}
	for _, g := range res.Growth {
		read := "–"
		if g.ReadNs != nil {
			read = duration(g.ReadNs.Median)
		}
		t = append(t, []string{
			g.Contender, fmt.Sprint(g.Entries), duration(g.OpenNs.Median), duration(g.AppendNsPerEntry.Median),
			read, bytes(max(g.HeapBytesPerMillion, 0)),
		})
	}
	t.write(b)
}

// contendersOf returns the names of those that have results, in their order,
// without the floor.
func contendersOf(res *suite.Results) []string {
	var names []string
	seen := map[string]bool{contender.Floor: true}
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
	if v < 10 {
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// duration shows nanoseconds with three digits that count.
func duration(ns float64) string {
	for _, unit := range []struct {
		name string
		ns   float64
	}{{"s", 1e9}, {"ms", 1e6}, {"µs", 1e3}} {
		if ns >= unit.ns {
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
		if n >= unit.n {
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
