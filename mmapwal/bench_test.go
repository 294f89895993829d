package mmapwal_test

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

func benchLog(b *testing.B, sync mmapwal.SyncPolicy, key ...byte) *mmapwal.DiskStorage {
	b.Helper()
	d, err := mmapwal.Open(b.TempDir(), &mmapwal.Options{Sync: sync, Key: key, Logger: slog.New(slog.DiscardHandler), CacheSize: -1})
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

// What BenchmarkEntries and BenchmarkCopy read at once, of how many.
const benchRead, benchReadOf, benchReadSize = 64, 16_000, 1024

func BenchmarkEntries(b *testing.B) {
	d := benchLog(b, mmapwal.NoSync)
	if err := d.Save(nil, benchEntries(1, benchReadOf, benchReadSize), nil); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(benchRead * benchReadSize)
	b.ReportAllocs()
	lo := uint64(1)
	for b.Loop() {
		if _, err := d.Entries(lo, lo+benchRead, math.MaxUint64); err != nil {
			b.Fatal(err)
		}
		lo = (lo+benchRead-1)%benchReadOf + 1
	}
}

// BenchmarkCopy is the least that a read has to do: a copy and a CRC of as many bytes as
// BenchmarkEntries reads. A read hands out memory of its own each time.
func BenchmarkCopy(b *testing.B) {
	const size = benchRead * benchReadSize
	from := bytes.Repeat([]byte{1}, benchReadOf*benchReadSize)
	for name, own := range map[string]bool{"memory of its own": true, "the same memory": false} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			var to []byte
			at, sum := 0, uint32(0)
			for b.Loop() {
				if own {
					to = nil
				}
				to = append(to[:0], from[at:at+size]...)
				sum = crc32.Update(sum, castagnoli, to)
				at = (at + size) % len(from)
			}
		})
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

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

// BenchmarkEncryption measures an encrypted log beside a plain one: in each round
// one, then the other, and the other way round. It reports the time of a call on
// each, and the median of the rounds' ratios.
func BenchmarkEncryption(b *testing.B) {
	b.Run("HardSync/Save 1x128", func(b *testing.B) { benchBeside(b, mmapwal.HardSync, 10, benchSaves(1, 128)) })
	b.Run("HardSync/Save 16x1024", func(b *testing.B) { benchBeside(b, mmapwal.HardSync, 10, benchSaves(16, 1024)) })
	b.Run("NoSync/Save 1x1024", func(b *testing.B) { benchBeside(b, mmapwal.NoSync, 1000, benchSaves(1, 1024)) })
	b.Run("NoSync/Save 16x1024", func(b *testing.B) { benchBeside(b, mmapwal.NoSync, 100, benchSaves(16, 1024)) })
	b.Run("Entries 1000x1024", func(b *testing.B) { benchBeside(b, mmapwal.NoSync, 10, benchReads) })
}

// benchBeside compares calls; prepare returns one for a log.
func benchBeside(b *testing.B, sync mmapwal.SyncPolicy, calls int, prepare func(*testing.B, *mmapwal.DiskStorage) func()) {
	logs := [2]func(){
		prepare(b, benchLog(b, sync)),
		prepare(b, benchLog(b, sync, testLogKey(32, 7)...)),
	}
	var total [2]time.Duration
	var ratios []float64
	for round := 0; b.Loop(); round++ {
		var took [2]time.Duration
		for k := range logs {
			k ^= round & 1
			started := time.Now()
			for range calls {
				logs[k]()
			}
			took[k] = time.Since(started)
			total[k] += took[k]
		}
		ratios = append(ratios, float64(took[1])/float64(took[0]))
	}
	slices.Sort(ratios)
	each := float64(len(ratios) * calls)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(total[0])/each, "plain-ns")
	b.ReportMetric(float64(total[1])/each, "encrypted-ns")
	b.ReportMetric(ratios[len(ratios)/2], "encrypted/plain")
}

// benchSaves saves n entries of size bytes with each call.
func benchSaves(n, size int) func(*testing.B, *mmapwal.DiskStorage) func() {
	return func(b *testing.B, d *mmapwal.DiskStorage) func() {
		es := benchEntries(1, n, size)
		return func() {
			if err := d.Save(nil, es, nil); err != nil {
				b.Fatal(err)
			}
			for _, e := range es {
				*e.Index += uint64(n)
			}
		}
	}
}

// benchReads reads the same 1,000 entries of 1 KB with each call.
func benchReads(b *testing.B, d *mmapwal.DiskStorage) func() {
	if err := d.Save(nil, benchEntries(1, 1000, 1024), nil); err != nil {
		b.Fatal(err)
	}
	return func() {
		if _, err := d.Entries(1, 1001, math.MaxUint64); err != nil {
			b.Fatal(err)
		}
	}
}
