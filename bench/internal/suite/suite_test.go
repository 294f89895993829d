package suite

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
	"github.com/seed-2fef92ad/raftwal/bench/internal/device"
	"github.com/seed-2fef92ad/raftwal/bench/internal/stats"
)

func config(t *testing.T, cs []contender.Contender, ws []Workload) *Config {
	return &Config{
		Dir: t.TempDir(), Rounds: 3, Time: time.Millisecond, Entries: 100, ReadEntries: 100,
		Contenders: cs, Workloads: ws, Log: io.Discard, Progress: func(int) {},
	}
}

func TestWorkloads(t *testing.T) {
	var names []string
	for _, w := range Workloads() {
		names = append(names, w.Name)
	}
	want := []string{
		"save-1x128", "save-16x128", "save-256x128", "save-16x1K", "save-256x1K", "save-1x4K", "save-256x4K",
		"nosync-1x128", "nosync-16x1K", "read-sequential", "read-random",
	}
	if !slices.Equal(names, want) {
		t.Errorf("got %v", names)
	}
}

// TestContinues: the entries of a measurement continue each other, block after
// block; the floor does not care, so a log has to check it.
func TestContinues(t *testing.T) {
	ours := slices.DeleteFunc(contender.All(), func(c contender.Contender) bool { return c.Name != contender.Ours })
	cfg := config(t, ours, Workloads())
	cfg.Growth = true
	steps := 0
	cfg.Progress = func(done int) { steps = done }
	res, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if steps != cfg.Steps() || steps != 3*(len(Workloads())+1) {
		t.Errorf("%d of %d steps", steps, cfg.Steps())
	}
	if len(res.Results) != len(Workloads()) || len(res.Growth) != len(growthPoints(cfg.Entries)) {
		t.Errorf("%d results, %d of growth", len(res.Results), len(res.Growth))
	}
}

// TestRatioOfSameRound: each round is compared with its own floor.
func TestRatioOfSameRound(t *testing.T) {
	w := Workload{Name: "w", Entries: 1, Size: 1000}
	r := &runner{cfg: &Config{}, samples: map[[2]string][]*sample{
		{"w", contender.Floor}: {{calls: 1, elapsed: 100}, {calls: 2, elapsed: 2000}, {calls: 1, elapsed: 10}},
		{"w", "log"}:           {{calls: 1, elapsed: 200}, {calls: 1, elapsed: 3000}, {calls: 1, elapsed: 40}},
	}}
	got := r.result(w, "log")
	if want := (stats.Summary{Median: 3, Q1: 2.5, Q3: 3.5}); got.Ratio != want {
		t.Errorf("ratio %+v, want %+v", got.Ratio, want)
	}
	if got.NsPerCall.Median != 200 || got.MBPerSecond != 5000 {
		t.Errorf("%+v", got)
	}
	if got.Device != nil {
		t.Error("counts of a device that was not found")
	}
}

func TestDevicePerCall(t *testing.T) {
	samples := []*sample{
		{calls: 10, device: device.Counters{Writes: 30, Bytes: 40960, Flushes: 10}},
		{calls: 30, device: device.Counters{Writes: 50, Bytes: 40960, Flushes: 30}},
	}
	if got := *perCall(samples); got != (PerCall{Writes: 2, Bytes: 2048, Flushes: 1}) {
		t.Errorf("%+v", got)
	}
}

func TestGrowthPoints(t *testing.T) {
	if got := growthPoints(6400); !slices.Equal(got, []int{100, 400, 1600, 6400}) {
		t.Errorf("%v", got)
	}
	if got := growthPoints(1); !slices.Equal(got, []int{1}) {
		t.Errorf("%v", got)
	}
}

// TestInterrupted: the directory is given back, whatever happens.
func TestInterrupted(t *testing.T) {
	cfg := config(t, contender.All(), Workloads())
	ctx, cancel := context.WithCancel(t.Context())
	cfg.Progress = func(int) { cancel() }
	if _, err := Run(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(cfg.Dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestFailure names the workload and the contender.
func TestFailure(t *testing.T) {
	broken := contender.Contender{Name: "broken", Open: func(string, contender.Options) (contender.Log, error) {
		return nil, errors.New("no")
	}}
	_, err := Run(t.Context(), config(t, []contender.Contender{broken}, Workloads()))
	if err == nil || err.Error() != "save-1x128, broken: no" {
		t.Errorf("got %v", err)
	}
}
