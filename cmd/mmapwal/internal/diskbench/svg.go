package diskbench

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Measures of the picture, in pixels.
const (
	left, plot, right = 130, 760, 30
	top, panel, gap   = 60, 90, 34
)

// SVG draws the histogram of each series, all on one logarithmic scale.
func (r *Result) SVG() string {
	from, to := math.Inf(1), 0.0
	for _, s := range r.Series {
		from, to = min(from, s.Buckets[0].From), max(to, s.Buckets[len(s.Buckets)-1].To)
	}
	x := func(us float64) float64 { return left + plot*math.Log(us/from)/math.Log(to/from) }
	var b strings.Builder
	width, height := left+plot+right, top+len(r.Series)*(panel+gap)+20
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#ffffff"/>`+"\n"+`<text x="10" y="20">%s (%s), %.1f s: time of a sync, logarithmic</text>`+"\n",
		html.EscapeString(r.Dir), html.EscapeString(r.System.Title()), r.Seconds)
	fmt.Fprintf(&b, `<text x="10" y="38">%s: %s</text>`+"\n", r.Verdict, html.EscapeString(r.Reason))
	for k := range r.Series {
		drawPanel(&b, &r.Series[k], top+k*(panel+gap), k == 0, x)
	}
	drawScale(&b, from, to, top+len(r.Series)*(panel+gap)-gap+14, x)
	b.WriteString("</svg>\n")
	return b.String()
}

// drawPanel draws one series: bars, and lines at its percentiles.
func drawPanel(b *strings.Builder, s *Series, y int, reference bool, x func(float64) float64) {
	most := 1
	for _, c := range s.Buckets {
		most = max(most, c.Count)
	}
	fill := "#4a7bd0"
	if reference {
		fill = "#8a93a0"
	}
	fmt.Fprintf(b, `<text x="10" y="%d">%s</text><text x="10" y="%d" font-size="10">%d calls</text>`+"\n", y+panel/2, html.EscapeString(s.Name), y+panel/2+14, s.Count)
	for _, c := range s.Buckets {
		h := float64(panel) * float64(c.Count) / float64(most)
		fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s to %s: %d</title></rect>`+"\n",
			x(c.From), float64(y+panel)-h, max(x(c.To)-x(c.From)-1, 0.5), h, fill, Time(c.From), Time(c.To), c.Count)
	}
	for k, m := range []struct {
		name string
		us   float64
	}{{"p50", s.P50}, {"p99", s.P99}, {"p99.9", s.P999}, {"max", s.Max}} {
		at, anchor := x(m.us)+2, "start"
		if at > left+plot-60 {
			at, anchor = at-4, "end"
		}
		fmt.Fprintf(b, `<path d="M%.1f %d v%d" stroke="#d64541"/><text x="%.1f" y="%d" text-anchor="%s" font-size="9">%s %s</text>`+"\n",
			x(m.us), y, panel, at, y+9+10*k, anchor, m.name, Time(m.us))
	}
	fmt.Fprintf(b, `<path d="M%d %d h%d" stroke="#333"/>`+"\n", left, y+panel, plot)
}

// drawScale draws marks at powers of ten.
func drawScale(b *strings.Builder, from, to float64, y int, x func(float64) float64) {
	for us := math.Pow(10, math.Ceil(math.Log10(from)-1e-9)); us <= to*1.001; us *= 10 {
		fmt.Fprintf(b, `<path d="M%.1f %d v-6" stroke="#333"/><text x="%.1f" y="%d" text-anchor="middle" font-size="10">%s</text>`+"\n",
			x(us), y-8, x(us), y+6, Time(us))
	}
}
