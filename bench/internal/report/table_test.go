package report

import (
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/bench/internal/stats"
	"github.com/seed-2fef92ad/raftwal/bench/internal/suite"
)

// results has one workload, with these ratios.
func results(ratios map[string]float64) *suite.Results {
	res := &suite.Results{Workloads: []suite.Workload{{Name: "save"}}}
	for _, name := range []string{"reference", "raftwal", "pebble"} {
		res.Results = append(res.Results, suite.Result{
			Workload: "save", Contender: name, Ratio: stats.Summary{Median: ratios[name]}, NsPerCall: stats.Summary{Median: 1500},
		})
	}
	return res
}

func render(t *testing.T, res *suite.Results) string {
	t.Helper()
	var b strings.Builder
	if err := Tables(&b, res); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestMarks(t *testing.T) {
	won := render(t, results(map[string]float64{"reference": 1, "raftwal": 1.5, "pebble": 20}))
	if want := "| save     | 1.5 µs    | 1.50 *  | 20     |"; !strings.Contains(won, want) {
		t.Errorf("want %s in:\n%s", want, won)
	}
	lost := render(t, results(map[string]float64{"reference": 1, "raftwal": 1.5, "pebble": 1.25}))
	if want := "| save     | 1.5 µs    | 1.50 <  | 1.25 * |"; !strings.Contains(lost, want) {
		t.Errorf("want %s in:\n%s", want, lost)
	}
}

// TestNoDevice: what was not counted is not shown as zero.
func TestNoDevice(t *testing.T) {
	res := results(map[string]float64{"reference": 1, "raftwal": 1, "pebble": 1})
	res.Machine.DeviceError = "there is none"
	text := render(t, res)
	if !strings.Contains(text, "No counts of the device: there is none.") || !strings.Contains(text, "| –      | –     | –       |") {
		t.Errorf("it does not say so:\n%s", text)
	}
}

func TestUnits(t *testing.T) {
	for ns, want := range map[float64]string{0.5: "0.5 ns", 999: "999 ns", 999_999: "1 ms", 1234: "1.23 µs", 5e6: "5 ms", 2.5e9: "2.5 s"} {
		if got := duration(ns); got != want {
			t.Errorf("duration(%v) = %q, want %q", ns, got, want)
		}
	}
	for n, want := range map[float64]string{0: "0 B", 4096: "4.1 KB", 1.5e6: "1.5 MB"} {
		if got := bytes(n); got != want {
			t.Errorf("bytes(%v) = %q, want %q", n, got, want)
		}
	}
}
