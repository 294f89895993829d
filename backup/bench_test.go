package backup_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/backup"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// BenchmarkSaveBesideBackup measures single Saves of 1 KB, in turn alone and while
// backups of a log of 256 MB run one after another, to nowhere and to a file of the
// same disk; and, to tell what is the processor's, while somebody only hashes. One
// iteration is a round of both.
func BenchmarkSaveBesideBackup(b *testing.B) {
	for _, policy := range []struct {
		name  string
		sync  mmapwal.SyncPolicy
		saves int
	}{{"NoSync", mmapwal.NoSync, 20000}, {"HardSync", mmapwal.HardSync, 1000}} {
		for _, beside := range []struct {
			name string
			work func(context.Context, *mmapwal.DiskStorage, string) error
		}{{"hashing", hashing}, {"nowhere", toNowhere}, {"file", toFile}} {
			b.Run(policy.name+"/"+beside.name, func(b *testing.B) {
				d := openOn(b, host.OS(), b.TempDir(), func(o *mmapwal.Options) { o.FileDataSize, o.Sync = 0, policy.sync })
				next := uint64(1)
				for range 256 {
					save(b, d, next, next+63, 1, 16<<10)
					next += 64
				}
				must(b, d.Sync())
				dir := b.TempDir()
				var was, is []time.Duration
				for b.Loop() {
					was = append(was, saves(b, d, &next, policy.saves)...)
					stop := start(b, func(ctx context.Context) error { return beside.work(ctx, d, dir) })
					is = append(is, saves(b, d, &next, policy.saves)...)
					stop()
				}
				report(b, was, is)
			})
		}
	}
}

func toNowhere(ctx context.Context, d *mmapwal.DiskStorage, _ string) error {
	_, err := d.Backup(ctx, io.Discard)
	return err
}

func toFile(ctx context.Context, d *mmapwal.DiskStorage, dir string) error {
	f, err := os.Create(filepath.Join(dir, "backup"))
	if err != nil {
		return err
	}
	_, err = d.Backup(ctx, f)
	return errors.Join(err, f.Close())
}

func hashing(ctx context.Context, _ *mmapwal.DiskStorage, _ string) error {
	p := make([]byte, 256<<10)
	for sum := sha256.New(); ctx.Err() == nil; {
		sum.Write(p)
	}
	return nil
}

// start does something again and again until it is stopped.
func start(b *testing.B, do func(ctx context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			if err := do(ctx); err != nil && ctx.Err() == nil {
				b.Error(err)
				return
			}
		}
	})
	return func() { cancel(); running.Wait() }
}

// saves times single Saves.
func saves(b *testing.B, d *mmapwal.DiskStorage, next *uint64, n int) (took []time.Duration) {
	b.Helper()
	for range n {
		begun := time.Now()
		save(b, d, *next, *next, 1, 1000)
		took = append(took, time.Since(begun))
		*next++
	}
	return took
}

func report(b *testing.B, alone, beside []time.Duration) {
	slices.Sort(alone)
	slices.Sort(beside)
	for _, p := range []struct {
		name string
		at   float64
	}{{"p50", 0.5}, {"p99", 0.99}} {
		was, is := at(alone, p.at), at(beside, p.at)
		b.ReportMetric(was, p.name+"-alone-µs")
		b.ReportMetric(is, p.name+"-beside-µs")
		b.ReportMetric(is/was, p.name+"-ratio")
	}
}

// at returns a quantile in µs.
func at(sorted []time.Duration, q float64) float64 {
	return float64(sorted[int(q*float64(len(sorted)-1))].Nanoseconds()) / 1000
}

// BenchmarkBackup and BenchmarkRestore are of a log of 256 MB.
func BenchmarkBackup(b *testing.B) {
	d := large(b)
	b.SetBytes(256 << 20)
	for b.Loop() {
		_, err := d.Backup(b.Context(), io.Discard)
		must(b, err)
	}
}

func BenchmarkRestore(b *testing.B) {
	full, _ := full(b, large(b))
	b.SetBytes(256 << 20)
	for b.Loop() {
		dir := filepath.Join(b.TempDir(), "log")
		_, err := backup.Restore(b.Context(), dir, nil, bytes.NewReader(full))
		must(b, err)
		must(b, os.RemoveAll(dir))
	}
}

func large(b *testing.B) *mmapwal.DiskStorage {
	b.Helper()
	d := openOn(b, host.OS(), b.TempDir(), func(o *mmapwal.Options) { o.FileDataSize = 0 })
	for k := range uint64(256) {
		save(b, d, 64*k+1, 64*k+64, 1, 16<<10)
	}
	return d
}
