package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
	"github.com/seed-2fef92ad/raftwal/bench/internal/suite"
)

func TestMain(m *testing.M) {
	suite.Child()
	os.Exit(m.Run())
}

// bench runs the command line.
func bench(t *testing.T, args ...string) (out, errs string, err error) {
	t.Helper()
	var o, e bytes.Buffer
	cmd := newCommand()
	cmd.SetOut(&o)
	cmd.SetErr(&e)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(t.Context())
	return o.String(), e.String(), err
}

// TestSmoke runs everything once, and looks at all that comes out.
func TestSmoke(t *testing.T) {
	dir, svg := t.TempDir(), filepath.Join(t.TempDir(), "charts")
	file := filepath.Join(t.TempDir(), "results.json")
	out, errs, err := bench(t, "--smoke", "--dir", dir, "--seed", "42", "--json", file, "--svg", svg)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	for _, name := range append(workloadNames(), suite.Studies()...) {
		if !strings.Contains(errs, "round 1, "+name+": ") {
			t.Errorf("the order of %s was not shown", name)
		}
	}
	if !strings.Contains(out, "Seed 42, 1 rounds") {
		t.Error("the seed was not shown")
	}
	checkJSON(t, file)
	checkCharts(t, svg)
}

// checkJSON checks that the file has every figure.
func checkJSON(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var res suite.Results
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&res); err != nil {
		t.Fatal(err)
	}
	for _, w := range suite.Workloads() {
		measured := map[string]bool{}
		for _, r := range res.Results {
			if r.Workload == w.Name {
				measured[r.Contender] = true
			}
		}
		if !measured[contender.Reference] || !measured[contender.Ours] || w.Saves() && !w.Ours && len(measured) != len(contender.All()) {
			t.Errorf("%s was measured of %v", w.Name, measured)
		}
	}
	if logs := len(contender.All()) - 1; len(res.Growth) != 4*logs || len(res.Reopens) != 2*logs || len(res.Compactions) != 6 || len(res.Idle) != 4 {
		t.Errorf("%d of growth, %d reopens, %d compactions, %d of idle logs", len(res.Growth), len(res.Reopens), len(res.Compactions), len(res.Idle))
	}
	for _, r := range res.Results {
		if r.NsPerCall.Median <= 0 || r.Ratio.Median <= 0 || r.Latency.P50Ns <= 0 || r.Latency.MaxNs < r.Latency.P999Ns || len(r.Latency.Curve) == 0 {
			t.Errorf("a figure is missing: %+v", r)
		}
		if r.Contender == contender.Reference && r.Ratio.Median != 1 {
			t.Errorf("the reference is %v times itself", r.Ratio.Median)
		}
	}
	for _, r := range res.Reopens {
		if r.CleanNs.Median <= 0 || r.KilledNs.Median <= 0 {
			t.Errorf("a figure is missing: %+v", r)
		}
	}
	if m := res.Machine; (m.Device == "") == (m.DeviceError == "") {
		t.Errorf("device %q, error %q", m.Device, m.DeviceError)
	}
}

func checkCharts(t *testing.T, dir string) {
	files, err := filepath.Glob(filepath.Join(dir, "*.svg"))
	if err != nil || len(files) != 23 {
		t.Errorf("%d charts, %v: %v", len(files), err, files)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil || !bytes.Contains(text, []byte(contender.Ours)) {
			t.Errorf("%s does not show this log: %v", f, err)
		}
	}
}

func TestChoice(t *testing.T) {
	out, errs, err := bench(t, "--smoke", "--dir", t.TempDir(), "--only", "raftwal,tidwall-wal", "--workload", "save-1x128", "--workload", "read-random")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(errs, "round 1, "); n != 2 {
		t.Errorf("%d workloads were measured:\n%s", n, errs)
	}
	if strings.Contains(out, "pebble") || strings.Contains(out, "append an entry") || !strings.Contains(out, "reference") {
		t.Errorf("not what was chosen:\n%s", out)
	}
}

func TestSameSeedSameOrder(t *testing.T) {
	args := []string{"--smoke", "--dir", t.TempDir(), "--workload", "nosync-1x128", "--seed"}
	_, first, err1 := bench(t, append(args, "7")...)
	_, again, err2 := bench(t, append(args, "7")...)
	if err1 != nil || err2 != nil || first != again {
		t.Errorf("seed 7 gives %q and %q, %v, %v", first, again, err1, err2)
	}
}

func TestWrongFlags(t *testing.T) {
	for want, args := range map[string][]string{
		"no contender is called": {"--only", "nobody"},
		"no workload is called":  {"--workload", "nothing"},
		"must be positive":       {"--rounds", "0"},
		"no such file":           {"--dir", filepath.Join(t.TempDir(), "missing")},
		"unknown command":        {"argument"},
	} {
		if _, _, err := bench(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}
