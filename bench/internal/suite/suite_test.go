package suite

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
	"github.com/seed-2fef92ad/raftwal/bench/internal/device"
	"github.com/seed-2fef92ad/raftwal/bench/internal/stats"
)

func TestMain(m *testing.M) {
	Child()
	os.Exit(m.Run())
}

func config(t *testing.T, cs []contender.Contender, ws []Workload) *Config {
	return &Config{
		Dir: t.TempDir(), Rounds: 2, Time: time.Millisecond, Entries: 100, Grow: 100, ReadEntries: 100, IdleLogs: 2, FileBytes: 1 << 20,
		Contenders: cs, Workloads: ws, Log: io.Discard, Progress: func(int) {},
	}
}

func TestWorkloads(t *testing.T) {
	var names []string
	for _, w := range Workloads() {
		names = append(names, w.Name)
	}
	for _, kind := range []string{"save", "reused"} {
		for _, size := range []string{"1x128", "16x1K", "256x64K"} {
			if !slices.ContainsFunc(Workloads(), func(w Workload) bool { return w.Name == kind+"-"+size && w.Reused == (kind == "reused") }) {
				t.Errorf("there is no %s-%s", kind, size)
			}
		}
	}
	want := []string{
		"inflight1-1x128", "inflight8-1x128", "inflight64-1x128", "batchsync-1x128",
		"nosync-1x128", "nosync-1x1K", "nosync-64x128", "nosync-64x1K",
		"read-recent", "read-sequential", "read-random", "term-random",
	}
	names = slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(n, "save-") || strings.HasPrefix(n, "reused-") })
	if len(Workloads()) != 24+len(want) || !slices.Equal(names, want) {
		t.Errorf("%d workloads, and beside synced saves %v", len(Workloads()), names)
	}
}

// TestContinues: the entries of a measurement continue each other, block after
// block; the reference does not care, so a log has to check it.
func TestContinues(t *testing.T) {
	ours := slices.DeleteFunc(contender.All(), func(c contender.Contender) bool { return c.Name != contender.Ours })
	cfg := config(t, ours, Workloads())
	cfg.Studies = Studies()
	steps := 0
	cfg.Progress = func(done int) { steps = done }
	res, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if steps != cfg.Steps() || steps != cfg.Rounds*(len(Workloads())+len(Studies())) {
		t.Errorf("%d of %d steps", steps, cfg.Steps())
	}
	if len(res.Results) != len(Workloads()) || len(res.Growth) != len(growthPoints(cfg.Grow)) {
		t.Errorf("%d results, %d of growth", len(res.Results), len(res.Growth))
	}
	if len(res.Reopens) != 2 || len(res.Compactions) != 1 || len(res.Idle) != 2 {
		t.Errorf("%d reopens, %d compactions, %d of idle logs", len(res.Reopens), len(res.Compactions), len(res.Idle))
	}
}

// TestReused: where files are to be used again, they are: no new ones are made.
func TestReused(t *testing.T) {
	ours := contender.All()[slices.IndexFunc(contender.All(), func(c contender.Contender) bool { return c.Name == contender.Ours })]
	dir := t.TempDir()
	r := newRunner(config(t, nil, nil), dir)
	l, err := ours.Open(dir, contender.Options{Reuse: true, FileBytes: r.cfg.FileBytes})
	if err != nil {
		t.Fatal(err)
	}
	c := &recycler{r: r, l: l}
	if err := c.prepare(); err != nil {
		t.Fatal(err)
	}
	before := inodes(t, dir)
	for saved := 0; saved < 8*r.fileBytes(); saved += 16 << 10 {
		if err := errors.Join(l.Append(r.source.batch(16, 1024)), c.after(saved)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for inode, name := range inodes(t, dir) {
		if before[inode] == "" {
			t.Errorf("%s is a new file", name)
		}
	}
}

// inodes returns the entry files in dir, spare ones among them.
func inodes(t *testing.T, dir string) map[uint64]string {
	t.Helper()
	var found map[uint64]string
	for renamed := true; renamed; { // one that is, meanwhile, is found under its new name
		found, renamed = map[uint64]string{}, false
		names, err := filepath.Glob(filepath.Join(dir, "[0-9]*"))
		if err != nil || len(names) == 0 {
			t.Fatalf("no files: %v", err)
		}
		for _, name := range names {
			info, err := os.Stat(name)
			if errors.Is(err, fs.ErrNotExist) {
				renamed = true
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			found[info.Sys().(*syscall.Stat_t).Ino] = name
		}
	}
	return found
}

// TestInFlight: as many calls are under way as were asked for, and all are done in the
// end; an error ends it.
func TestInFlight(t *testing.T) {
	var underWay, most atomic.Int64
	s := &sample{}
	err := s.timeAsync(10, time.Minute, 3, func(_ int, done func(error)) {
		most.Store(max(most.Load(), underWay.Add(1)))
		time.AfterFunc(time.Millisecond, func() { underWay.Add(-1); done(nil) })
	})
	if err != nil || most.Load() != 3 || s.calls != 10 || s.latency.Total() != 10 {
		t.Errorf("%v; %d at most, %d calls, %d counted", err, most.Load(), s.calls, s.latency.Total())
	}
	broken := errors.New("no")
	err = (&sample{}).timeAsync(10, time.Minute, 3, func(_ int, done func(error)) { done(broken) })
	if err != broken {
		t.Errorf("got %v", err)
	}
}

// TestRatioOfSameRound: each round is compared with its own reference.
func TestRatioOfSameRound(t *testing.T) {
	w := Workload{Name: "w", Entries: 1, Size: 1000}
	r := &runner{cfg: &Config{}, samples: map[[2]string][]*sample{
		{"w", contender.Reference}: {{calls: 1, elapsed: 100}, {calls: 2, elapsed: 2000}, {calls: 1, elapsed: 10}},
		{"w", "log"}:               {{calls: 1, elapsed: 200}, {calls: 1, elapsed: 3000}, {calls: 1, elapsed: 40}},
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
