package report

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
	"github.com/seed-2fef92ad/raftwal/bench/internal/suite"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

const (
	chartWidth  = 18 * vg.Centimeter
	chartHeight = 11 * vg.Centimeter
)

// reusedLine is the name of the line of our log that writes to files used before.
const reusedLine = contender.Ours + ", reused files"

// chart is a file with a line for each contender. Both axes are logarithmic.
type chart struct {
	file, title, x, y string
	marks             []plot.Tick // on the x axis; nil: powers of ten
	lines             map[string]plotter.XYs
}

// Charts writes an SVG file for each chart into dir.
func Charts(dir string, res *suite.Results) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	charts := slices.Concat(latencyCharts(res), throughputCharts(res), []*chart{inFlightChart(res)}, growthCharts(res), reopenCharts(res))
	for _, c := range charts {
		if err := c.save(dir); err != nil {
			return fmt.Errorf("%s: %w", c.file, err)
		}
	}
	return nil
}

// save draws the chart, unless it has nothing to show.
func (c *chart) save(dir string) error {
	if len(c.lines) == 0 {
		return nil
	}
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.title, c.x, c.y
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.LogTicks{Prec: -1}, plot.LogTicks{Prec: -1}
	if c.marks != nil {
		p.X.Tick.Marker = plot.ConstantTicks(c.marks)
	}
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	names := []string{reusedLine}
	for _, known := range contender.All() {
		names = append(names, known.Name)
	}
	for k, name := range names {
		if err := c.draw(p, k, name); err != nil {
			return err
		}
	}
	widen(&p.X)
	widen(&p.Y)
	p.Y.Max *= math.Pow(p.Y.Max/p.Y.Min, 0.5) // room for the legend
	return p.Save(chartWidth, chartHeight, filepath.Join(dir, c.file+".svg"))
}

// draw adds the line of the k-th contender: each has its colour in all charts.
func (c *chart) draw(p *plot.Plot, k int, name string) error {
	points := c.lines[name]
	if len(points) == 0 {
		return nil
	}
	line, dots, err := plotter.NewLinePoints(points)
	if err != nil {
		return err
	}
	line.Color, dots.Color = plotutil.Color(k), plotutil.Color(k)
	line.Dashes = plotutil.Dashes(k / 7)
	if name == contender.Ours {
		line.Width = vg.Points(2.5)
	}
	dots.Shape, dots.Radius = plotutil.Shape(k), vg.Points(1.5)
	p.Add(line, dots)
	p.Legend.Add(name, line, dots)
	return nil
}

// widen gives an axis with a single value some length, and never ends at 0, which
// a logarithm does not have.
func widen(a *plot.Axis) {
	if a.Min <= 0 {
		a.Min = a.Max / 10
	}
	if a.Min == a.Max {
		a.Min, a.Max = a.Min/2, a.Max*2
	}
}

// add appends a point, if it can be shown.
func (c *chart) add(name string, x, y float64) {
	if x <= 0 || y <= 0 {
		return
	}
	if c.lines == nil {
		c.lines = map[string]plotter.XYs{}
	}
	c.lines[name] = append(c.lines[name], plotter.XY{X: x, Y: y})
}

// latencyCharts are the percentiles of workloads that save.
func latencyCharts(res *suite.Results) []*chart {
	var charts []*chart
	for _, w := range res.Workloads {
		if !w.Curve {
			continue
		}
		c := &chart{
			file: "latency-" + w.Name, title: "Latency: " + w.Name, x: "percentile", y: "microseconds",
			marks: percentiles(),
		}
		for _, r := range res.Results {
			if r.Workload != w.Name {
				continue
			}
			for _, p := range r.Latency.Curve {
				c.add(r.Contender, 1/(1-p.Share), float64(p.Ns)/1e3)
			}
		}
		charts = append(charts, c)
	}
	return charts
}

// percentiles marks what 1/(1-share) means: 10 is 90 %, 100 is 99 %.
func percentiles() []plot.Tick {
	ticks := []plot.Tick{{Value: 1, Label: "0"}, {Value: 2, Label: "50"}}
	for nines := 1; nines <= 6; nines++ {
		beyond := math.Pow(10, -float64(nines))
		ticks = append(ticks, plot.Tick{Value: 1 / beyond, Label: fmt.Sprintf("%.*f", max(nines-2, 0), 100*(1-beyond))})
	}
	return ticks
}

// throughputCharts show what synced saves of different sizes achieve, a chart for each
// number of entries.
func throughputCharts(res *suite.Results) []*chart {
	var charts []*chart
	of := map[int]*chart{}
	for _, w := range res.Workloads {
		if !w.Synced() {
			continue
		}
		c := of[w.Entries]
		if c == nil {
			c = &chart{
				file: fmt.Sprintf("throughput-%d", w.Entries), title: fmt.Sprintf("Throughput of synced saves of %d entries", w.Entries),
				x: "bytes in an entry", y: "MB/s",
			}
			of[w.Entries] = c
			charts = append(charts, c)
		}
		for _, r := range res.Results {
			switch {
			case r.Workload != w.Name:
			case !w.Reused:
				c.add(r.Contender, float64(w.Size), r.MBPerSecond)
			case r.Contender == contender.Ours:
				c.add(reusedLine, float64(w.Size), r.MBPerSecond)
			}
		}
	}
	return charts
}

// inFlightChart shows what it brings not to wait for each save.
func inFlightChart(res *suite.Results) *chart {
	c := &chart{file: "inflight", title: "Saves of an entry of 128 bytes, by how many are under way", x: "in flight", y: "entries a second"}
	for _, w := range res.Workloads {
		for _, r := range res.Results {
			if w.InFlight > 0 && r.Workload == w.Name {
				c.add(r.Contender, float64(w.InFlight), r.PerSecond)
			}
		}
	}
	return c
}

// reopenCharts show how long it takes to open a log.
func reopenCharts(res *suite.Results) []*chart {
	clean := &chart{file: "reopen-clean", title: "Opening a log after Close", x: "entries", y: "milliseconds"}
	killed := &chart{file: "reopen-killed", title: "Opening a log after SIGKILL", x: "entries", y: "milliseconds"}
	for _, r := range res.Reopens {
		clean.add(r.Contender, float64(r.Entries), r.CleanNs.Median/1e6)
		killed.add(r.Contender, float64(r.Entries), r.KilledNs.Median/1e6)
	}
	return []*chart{clean, killed}
}

// growthCharts show what grows as the log does.
func growthCharts(res *suite.Results) []*chart {
	open := &chart{file: "growth-open", title: "Opening a log", x: "entries", y: "milliseconds"}
	appended := &chart{file: "growth-append", title: "Appending, not synced, 256 entries of 128 bytes at a time", x: "entries", y: "nanoseconds an entry"}
	read := &chart{file: "growth-read", title: "Reading an entry at random", x: "entries", y: "microseconds"}
	term := &chart{file: "growth-term", title: "Looking up a term at random", x: "entries", y: "nanoseconds"}
	heap := &chart{file: "growth-heap", title: "Go heap of an open log", x: "entries", y: "MB"}
	for _, g := range res.Growth {
		x := float64(g.Entries)
		open.add(g.Contender, x, g.OpenNs.Median/1e6)
		appended.add(g.Contender, x, g.AppendNsPerEntry.Median)
		heap.add(g.Contender, x, g.HeapBytesPerMillion*x/1e12)
		if g.ReadNs != nil {
			read.add(g.Contender, x, g.ReadNs.Median/1e3)
		}
		if g.TermNs != nil {
			term.add(g.Contender, x, g.TermNs.Median)
		}
	}
	return []*chart{open, appended, read, term, heap}
}
