package metrics_test

import (
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/seed-2fef92ad/raftwal/metrics"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// fixed is a log whose figures do not change.
type fixed mmapwal.Stats

func (f *fixed) Stats() mmapwal.Stats { return mmapwal.Stats(*f) }

func histogram(first float64, counts ...uint64) mmapwal.Histogram {
	h := mmapwal.Histogram{Counts: counts, Sum: 100 * first}
	for k := range counts[1:] {
		h.Bounds = append(h.Bounds, first*float64(int(1)<<k))
	}
	return h
}

// example has another number for each figure.
func example() *fixed {
	return &fixed{
		Opened: time.Unix(1000, 0), FirstIndex: 1, LastIndex: 2, SnapshotIndex: 3, LastSnapshot: time.Unix(1004, 5e8),
		SaveTime: histogram(0.25, 1, 0, 2), WaitTime: histogram(0.5, 3, 4, 0), SyncTime: histogram(1, 0, 5, 6),
		SyncEntries: histogram(1, 7, 8, 9), SyncSaves: histogram(1, 10, 11, 12), SlowSyncs: 13,
		SaveErrors: 30, NoSpace: 14, PendingSaves: 17,
		AppendedEntries: 18, AppendedBytes: 19, ReadEntries: 20, ReadBytes: 21, UnsyncedEntries: 22, UnsyncedBytes: 23,
		CorruptReads: 24, Faults: 25, Rotations: 26, Compactions: 27,
		Files: 28, SpareFiles: 29, PreparedFiles: 31, OldestFile: time.Unix(1032, 0), RetainedFiles: 33, PinnedFiles: 34,
		FilesRemoved: 35, FailedRemovals: map[string]error{"a": os.ErrPermission, "b": os.ErrPermission}, HealedFiles: 36,
		Encrypted: true, PlainFiles: 37, FreeBytes: 38, TotalBytes: 39, Poisoned: mmapwal.ErrPoisoned,
		Recovery: mmapwal.Recovery{Clean: false, Duration: 1500 * time.Millisecond, FilesScanned: 40, Entries: 41, TornBytes: 42,
			HealedPages: 43, SetAside: []string{"x", "y", "z"}},
	}
}

// TestValues: each figure is shown under its name. testdata/values.txt was checked
// number by number.
func TestValues(t *testing.T) {
	want, err := os.Open("testdata/values.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	c := metrics.NewCollector(example(), metrics.WithLabels(prometheus.Labels{"group": "7"}),
		metrics.WithLastBackup(func() time.Time { return time.Unix(1045, 0) }))
	if err := testutil.CollectAndCompare(c, want); err != nil {
		t.Error(err)
	}
}

// TestUnknown: what is not known is left out, and not shown as 0.
func TestUnknown(t *testing.T) {
	unknown := []string{
		"raftwal_last_snapshot_timestamp_seconds", "raftwal_last_backup_timestamp_seconds", "raftwal_oldest_file_timestamp_seconds",
		"raftwal_filesystem_free_bytes", "raftwal_filesystem_size_bytes", "raftwal_open_timestamp_seconds",
	}
	c := metrics.NewCollector(&fixed{})
	if n := testutil.CollectAndCount(c, unknown...); n != 0 {
		t.Errorf("%d of %v are shown", n, unknown)
	}
	if n := testutil.CollectAndCount(c); n < 30 {
		t.Errorf("only %d metrics are shown", n)
	}
	never := metrics.NewCollector(&fixed{}, metrics.WithLastBackup(func() time.Time { return time.Time{} }))
	if err := testutil.CollectAndCompare(never, strings.NewReader(
		"# HELP raftwal_last_backup_timestamp_seconds Unix time in seconds of the newest backup; 0 if there is none, absent if nobody said.\n"+
			"# TYPE raftwal_last_backup_timestamp_seconds gauge\nraftwal_last_backup_timestamp_seconds 0\n"),
		"raftwal_last_backup_timestamp_seconds"); err != nil {
		t.Error(err)
	}
}

func open(t testing.TB) *mmapwal.DiskStorage {
	t.Helper()
	d, err := mmapwal.Open(t.TempDir(), &mmapwal.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func save(t testing.TB, d *mmapwal.DiskStorage, i uint64) {
	t.Helper()
	e := &raftpb.Entry{Index: &i, Term: new(uint64(1)), Data: make([]byte, 100)}
	if err := d.Save(nil, []*raftpb.Entry{e}, nil); err != nil {
		t.Error(err)
	}
}

// TestConventions: names, units and help texts are as Prometheus wants them, and
// what is collected was described.
func TestConventions(t *testing.T) {
	d := open(t)
	save(t, d, 1)
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(metrics.NewCollector(d, metrics.WithLastBackup(time.Now))); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	if n, err := testutil.GatherAndCount(registry); n == 0 || err != nil {
		t.Errorf("%d metrics, %v", n, err)
	}
}

// TestSeveralLogs in one process need labels, and are told apart by them.
func TestSeveralLogs(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	for group, saves := range map[string]uint64{"1": 3, "2": 5} {
		d := open(t)
		for i := range saves {
			save(t, d, i+1)
		}
		if err := registry.Register(metrics.NewCollector(d, metrics.WithLabels(prometheus.Labels{"group": group}))); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil { // the last figures stay
			t.Fatal(err)
		}
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(
		"# HELP raftwal_last_index Index of the last entry.\n# TYPE raftwal_last_index gauge\n"+
			"raftwal_last_index{group=\"1\"} 3\nraftwal_last_index{group=\"2\"} 5\n"), "raftwal_last_index"); err != nil {
		t.Error(err)
	}
	one := prometheus.NewRegistry()
	if err := one.Register(metrics.NewCollector(&fixed{})); err != nil {
		t.Fatal(err)
	}
	if err := one.Register(metrics.NewCollector(&fixed{})); err == nil {
		t.Error("two logs without labels can both be registered")
	}
}

// TestWhileInUse: a scrape may come at any time.
func TestWhileInUse(t *testing.T) {
	d := open(t)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.NewCollector(d))
	var saves sync.WaitGroup
	saves.Go(func() {
		for i := range uint64(300) {
			save(t, d, i+1)
		}
	})
	for range 50 {
		if _, err := registry.Gather(); err != nil {
			t.Fatal(err)
		}
	}
	saves.Wait()
}

// described returns the names that a Collector describes.
func described() []string {
	descs := make(chan *prometheus.Desc, 100)
	metrics.NewCollector(&fixed{}).Describe(descs)
	close(descs)
	var names []string
	for d := range descs {
		names = append(names, regexp.MustCompile(`fqName: "(\w+)"`).FindStringSubmatch(d.String())[1])
	}
	return names
}

// TestDocument: docs/metrics.md has all metrics, in the same order, with the right
// type.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.NewCollector(example(), metrics.WithLastBackup(time.Now)))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	types := make(map[string]string)
	for _, f := range families {
		types[f.GetName()] = strings.ToLower(f.GetType().String())
	}
	var names []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(raftwal_\\w+)` \\| (\\w+) \\|").FindAllStringSubmatch(string(text), -1) {
		names = append(names, row[1])
		if row[2] != types[row[1]] {
			t.Errorf("%s is said to be a %s, and is a %s", row[1], row[2], types[row[1]])
		}
	}
	if want := described(); !slices.Equal(names, want) {
		t.Errorf("documented are\n%v,\nand there are\n%v", names, want)
	}
	if got, want := slices.Sorted(maps.Keys(types)), slices.Sorted(slices.Values(names)); !slices.Equal(got, want) {
		t.Errorf("collected are\n%v,\nand described\n%v", got, want)
	}
}
