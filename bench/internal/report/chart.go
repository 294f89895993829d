package report

import (
	"cmp"
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
	charts := append(latencyCharts(res), throughputChart(res))
	for _, c := range append(charts, growthCharts(res)...) {
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
	for k, known := range contender.All() {
		if err := c.draw(p, k, known.Name); err != nil {
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

// latencyCharts are the percentiles of every workload that saves.
func latencyCharts(res *suite.Results) []*chart {
	var charts []*chart
	for _, w := range res.Workloads {
		if w.Reads {
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

// throughputChart shows what synced saves of different sizes achieve.
func throughputChart(res *suite.Results) *chart {
	c := &chart{file: "throughput", title: "Throughput of synced saves", x: "bytes in a Save", y: "MB/s"}
	for _, w := range res.Workloads {
		if w.Reads || w.NoSync {
			continue
		}
		for _, r := range res.Results {
			if r.Workload == w.Name {
				c.add(r.Contender, float64(w.Bytes()), r.MBPerSecond)
			}
		}
	}
	for _, points := range c.lines {
		slices.SortFunc(points, func(a, b plotter.XY) int { return cmp.Compare(a.X, b.X) })
	}
	return c
}

// growthCharts show what grows as the log does.
func growthCharts(res *suite.Results) []*chart {
	open := &chart{file: "growth-open", title: "Opening a log", x: "entries", y: "milliseconds"}
	appended := &chart{file: "growth-append", title: "Appending, not synced, 256 entries of 128 bytes at a time", x: "entries", y: "nanoseconds an entry"}
	read := &chart{file: "growth-read", title: "Reading an entry at random", x: "entries", y: "microseconds"}
	heap := &chart{file: "growth-heap", title: "Go heap of an open log", x: "entries", y: "MB"}
	for _, g := range res.Growth {
		x := float64(g.Entries)
		open.add(g.Contender, x, g.OpenNs.Median/1e6)
		appended.add(g.Contender, x, g.AppendNsPerEntry.Median)
		heap.add(g.Contender, x, g.HeapBytesPerMillion*x/1e12)
		if g.ReadNs != nil {
			read.add(g.Contender, x, g.ReadNs.Median/1e3)
		}
	}
	return []*chart{open, appended, read, heap}
}
