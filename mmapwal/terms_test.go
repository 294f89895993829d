package mmapwal_test

import (
	"testing"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// TestTerms: whether terms change seldom or with every entry, in files that are sealed,
// being sealed, replaced in part or compacted, Term tells the right one.
func TestTerms(t *testing.T) {
	dir := t.TempDir()
	d := testLogOpen(t, dir)
	want := map[uint64]uint64{}
	last, term := uint64(0), uint64(1)
	check := func(what string, first uint64) {
		t.Helper()
		for i := first; i <= last; i++ {
			if got, err := d.Term(i); got != want[i] || err != nil {
				t.Fatalf("%s: entry %d has term %d, %v, want %d", what, i, got, err, want[i])
			}
		}
		if _, err := d.Term(last + 1); err != raft.ErrUnavailable {
			t.Fatalf("%s: behind the last entry: %v", what, err)
		}
		if _, err := d.Term(first - 2); first > 2 && err != raft.ErrCompacted {
			t.Fatalf("%s: compacted entry: %v", what, err)
		}
	}
	save := func(from uint64, n, perTerm, size int) {
		t.Helper()
		var es []*raftpb.Entry
		for k := range n {
			if k%perTerm == 0 {
				term++
			}
			es = append(es, testLogEntries(from+uint64(k), from+uint64(k), term, size)...)
			want[from+uint64(k)] = term
		}
		last = from + uint64(n) - 1
		testLogSave(t, d, nil, es)
	}
	save(1, 9000, 9000, 300)
	check("one term", 1)
	save(9001, 9000, 100, 300)
	check("some", 1)
	save(18001, 9000, 1, 300)
	check("as many as entries", 1)
	save(20000, 5000, 700, 300)
	check("replaced", 1)
	save(8000, 9000, 50, 300)
	check("replaced from an older file on", 1)
	d.WaitForBackground()
	check("sealed", 1)
	save(17000, 9000, 2, 6000)
	d.WaitForBackground()
	check("more than are kept in memory", 1)
	if err := d.CreateSnapshot(4000, testLogConf(1), nil); err != nil {
		t.Fatal(err)
	}
	check("compacted", 4001)
	testLogClose(t, d)
	if _, err := d.Term(8000); err != mmapwal.ErrClosed {
		t.Errorf("closed: %v", err)
	}
	d = testLogOpen(t, dir)
	check("opened", 4001)
}
