package rulestest

import (
	"encoding/json"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/seed-2fef92ad/raftwal/metrics"
)

// known returns the metrics of a Collector by the names of their series, of which a
// histogram has three.
func known(t *testing.T) map[string]string {
	t.Helper()
	stats, backup := healthy(1)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.NewCollector(&log{stats}, metrics.WithLastBackup(func() time.Time { return backup })))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := make(map[string]string)
	for _, f := range families {
		if f.GetType() != dto.MetricType_HISTOGRAM {
			series[f.GetName()] = f.GetName()
			continue
		}
		for _, suffix := range []string{"", "_bucket", "_sum", "_count"} { // "" as a native one
			series[f.GetName()+suffix] = f.GetName()
		}
	}
	return series
}

// selected returns the names of the series that an expression asks for.
func selected(t *testing.T, expr string) (names []string) {
	t.Helper()
	// What Grafana puts in.
	expr = strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h").Replace(expr)
	e, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Errorf("%s: %v", expr, err)
		return nil
	}
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		if s, ok := node.(*parser.VectorSelector); ok {
			names = append(names, s.Name)
		}
		return nil
	})
	if len(names) == 0 {
		t.Errorf("%s asks for nothing", expr)
	}
	return names
}

// TestNames: alerts and dashboard use metrics that there are, and leave out none.
func TestNames(t *testing.T) {
	series := known(t)
	unused := make(map[string]bool)
	for _, metric := range series {
		unused[metric] = true
	}
	use := func(where, expr string) {
		for _, name := range selected(t, expr) {
			metric, ok := series[name]
			if !ok {
				t.Errorf("%s: there is no %s", where, name)
			}
			delete(unused, metric)
		}
	}
	for name, r := range rules(t) {
		use(name, r.Expr)
	}
	for _, p := range load(t).Panels {
		for _, target := range p.Targets {
			use(p.Title, target.Expr)
		}
	}
	for _, v := range load(t).variables() {
		delete(unused, v)
	}
	if len(unused) > 0 {
		t.Errorf("neither an alert nor the dashboard uses %v", slices.Sorted(maps.Keys(unused)))
	}
}

// dashboard is what Grafana reads of the file, as far as it is checked here.
type dashboard struct {
	UID, Title    string
	SchemaVersion int
	Panels        []panel
	Templating    struct {
		List []struct{ Name, Type, Query string }
	}
}

// variables returns the metrics that the dashboard's variables are made of.
func (d *dashboard) variables() (names []string) {
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			names = append(names, regexp.MustCompile(`raftwal_\w+`).FindAllString(v.Query, -1)...)
		}
	}
	return names
}

type panel struct {
	ID          int
	Type, Title string
	Description string
	GridPos     struct{ X, Y, W, H int }
	Datasource  struct{ UID string }
	FieldConfig struct{ Defaults struct{ Unit string } }
	Targets     []struct{ RefID, Expr, LegendFormat string }
}

func load(t *testing.T) *dashboard {
	t.Helper()
	content, err := os.ReadFile("../../../docs/grafana/raftwal.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(content, &d); err != nil {
		t.Fatal(err)
	}
	return &d
}

// TestDashboard: each panel has a place of its own, a unit, and targets that keep
// to the variables.
func TestDashboard(t *testing.T) {
	d, series := load(t), known(t)
	if d.UID == "" || d.Title == "" || d.SchemaVersion == 0 || len(d.Panels) < 10 {
		t.Errorf("dashboard %q, %q, version %d, %d panels", d.UID, d.Title, d.SchemaVersion, len(d.Panels))
	}
	if len(d.variables()) < 3 {
		t.Errorf("variables of %v", d.variables())
	}
	for _, name := range d.variables() {
		if series[name] == "" {
			t.Errorf("a variable: there is no %s", name)
		}
	}
	taken := make(map[[2]int]string)
	ids := make(map[int]bool)
	for _, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("%s: id %d", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, is := taken[[2]int{x, y}]; is || x >= 24 {
					t.Fatalf("%s lies over %q, or outside", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Title == "" || p.Datasource.UID != "${datasource}" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 || p.GridPos.W == 0 {
			t.Errorf("panel %d %q lacks something: %+v", p.ID, p.Title, p)
		}
		for _, target := range p.Targets {
			if strings.Count(target.Expr, `{job=~"$job",instance=~"$instance",group=~"$group"`) != len(selected(t, target.Expr)) {
				t.Errorf("%s: %s does not keep to the variables", p.Title, target.Expr)
			}
		}
	}
}
