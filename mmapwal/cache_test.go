package mmapwal_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"google.golang.org/protobuf/proto"
)

func testCache(bytes int64) func(*mmapwal.Options) {
	return func(o *mmapwal.Options) { o.CacheSize = bytes }
}

// TestCacheReturnsWhatWasSaved: recent entries are not copied, older ones are.
func TestCacheReturnsWhatWasSaved(t *testing.T) {
	d := testLogOpen(t, t.TempDir(), testLogNoSync, testCache(64<<10))
	es := testLogEntries(1, 1000, 1, 1000)
	testLogSave(t, d, nil, es)
	got, err := d.Entries(991, 1001, math.MaxUint64)
	if err != nil || len(got) != 10 || got[0] != es[990] || got[9] != es[999] {
		t.Fatalf("%d entries, %v: not those that were saved", len(got), err)
	}
	if got, err = d.Entries(1, 11, math.MaxUint64); err != nil || len(got) != 10 || got[0] == es[0] || !proto.Equal(got[0], es[0]) {
		t.Fatalf("%d entries, %v: those of the cache are not bounded", len(got), err)
	}
}

// TestCacheAgrees: a log with a small cache, one with a large one, and one without show
// the same, whatever is done to them and read.
func TestCacheAgrees(t *testing.T) {
	seed := testLogSeed(t)
	r := rand.New(rand.NewPCG(seed, 1))
	sizes := []int64{-1, 2000, 1 << 20}
	var logs []*mmapwal.DiskStorage
	for _, size := range sizes {
		logs = append(logs, testLogOpen(t, t.TempDir(), testLogNoSync, testCache(size)))
	}
	m := &oracle.Model{Data: func(i, term uint64) []byte { return oracle.Data(i, term, int(i*7+term*13)%200) }}
	for range 600 {
		op := oracle.Next(r, m)
		if r.IntN(40) == 0 {
			op = oracle.Op{Truncate: r.Uint64N(m.Snap[0] + 2)}
		}
		for _, d := range logs {
			if err := op.Do(d, m); err != nil && op.Truncate == 0 {
				t.Fatal(err)
			}
		}
		m = op.Done(m)
		lo, hi, limit := m.Base[0]+r.Uint64N(m.Last()-m.Base[0]+2), m.Base[0]+r.Uint64N(m.Last()-m.Base[0]+3), r.Uint64N(2000)
		want, wantErr := logs[0].Entries(lo, hi, limit)
		for k, d := range logs[1:] {
			got, err := d.Entries(lo, hi, limit)
			if (err == nil) != (wantErr == nil) || len(got) != len(want) {
				t.Fatalf("cache of %d: entries %d to %d, %d bytes: %d entries, %v, want %d, %v", sizes[k+1], lo, hi, limit, len(got), err, len(want), wantErr)
			}
			for n := range got {
				if !proto.Equal(got[n], want[n]) {
					t.Fatalf("cache of %d: entry %d is %v, want %v", sizes[k+1], got[n].GetIndex(), got[n], want[n])
				}
			}
		}
	}
}
