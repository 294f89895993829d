package mmapwal_test

import (
	"fmt"
	"log/slog"
	"math"
	"testing"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

func benchLog(b *testing.B, sync mmapwal.SyncPolicy) *mmapwal.DiskStorage {
	b.Helper()
	d, err := mmapwal.Open(b.TempDir(), &mmapwal.Options{Sync: sync, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := d.Close(); err != nil {
			b.Error(err)
		}
	})
	return d
}

// benchEntries returns n entries with size bytes of data each, from index first on.
func benchEntries(first uint64, n, size int) []*raftpb.Entry {
	es := make([]*raftpb.Entry, n)
	for k := range es {
		es[k] = &raftpb.Entry{Index: new(first + uint64(k)), Term: new(uint64(1)), Data: make([]byte, size)}
	}
	return es
}

func benchSave(b *testing.B, sync mmapwal.SyncPolicy, n, size int) {
	d := benchLog(b, sync)
	es := benchEntries(1, n, size)
	hard := &raftpb.HardState{Term: new(uint64(1)), Commit: new(uint64(0))}
	b.SetBytes(int64(n * size))
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Save(hard, es, nil); err != nil {
			b.Fatal(err)
		}
		*hard.Commit = es[n-1].GetIndex()
		for _, e := range es {
			*e.Index += uint64(n)
		}
	}
}

func BenchmarkSave(b *testing.B) {
	for name, sync := range map[string]mmapwal.SyncPolicy{"HardSync": mmapwal.HardSync, "NoSync": mmapwal.NoSync} {
		for _, n := range []int{1, 16} {
			for _, size := range []int{128, 4096} {
				b.Run(fmt.Sprintf("%s/%dx%d", name, n, size), func(b *testing.B) { benchSave(b, sync, n, size) })
			}
		}
	}
}

func BenchmarkEntries(b *testing.B) {
	const count, size = 1000, 1024
	d := benchLog(b, mmapwal.NoSync)
	if err := d.Save(nil, benchEntries(1, count, size), nil); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(count * size)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Entries(1, count+1, math.MaxUint64); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkTerm(b *testing.B) {
	d := benchLog(b, mmapwal.NoSync)
	if err := d.Save(nil, benchEntries(1, 40_000, 0), nil); err != nil {
		b.Fatal(err)
	}
	i := uint64(0)
	for b.Loop() {
		i = i%40_000 + 1
		if _, err := d.Term(i); err != nil {
			b.Fatal(err)
		}
	}
}
