// Package diskbench finds out whether a disk is good enough for a Raft log: how long
// the least that any log must do takes there, and how long this log.
package diskbench

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// What is written, in bytes.
const (
	referenceBytes = 4 << 10 // of one write of the reference
	referenceFile  = 8 << 20
	compactEach    = 64 << 20 // the log begins anew behind as many

	// Space is what a run needs: the file of the reference, and of the log the file in
	// use, the one before it, the one that is made and the one that is removed.
	Space = referenceFile + 4*(compactEach+1<<20)
)

// Pattern is the prefix of the temporary directory.
const Pattern = ".mmapwal-bench-"

// shapes are what is saved to the log, in turn.
var shapes = []struct {
	name           string
	entries, bytes int
}{
	{"log 1 x 128 B", 1, 128},
	{"log 16 x 1 KiB", 16, 1 << 10},
	{"log 64 x 4 KiB", 64, 4 << 10},
}

// Reference is the name of the series that any log is measured against.
const Reference = "reference 4 KiB"

// Run measures for a time in a temporary directory in dir, which is removed before
// it returns. Writes of the reference and Saves of each shape take turns, so that what
// else the disk does at a time is seen by all. progress is told how much time is
// over; it may be nil.
//
// Errors: ErrSpace; ctx.Err(); what the system or the log answers.
func Run(ctx context.Context, dir string, duration time.Duration, progress func(time.Duration)) (_ *Result, err error) {
	system, err := Look(dir)
	if err != nil {
		return nil, err
	}
	if err := system.hasRoom(dir); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(dir, Pattern)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	b, err := newBench(tmp)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	started := time.Now()
	for n := 0; n < 2 || time.Since(started) < duration; n++ {
		if err := b.round(); err != nil {
			return nil, err
		}
		if n == 0 {
			b.samples, started = make([][]time.Duration, len(b.samples)), time.Now() // the first one warms up
		}
		if progress != nil {
			progress(time.Since(started))
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	return newResult(dir, system, time.Since(started), b.samples), nil
}

// bench is what is measured: the reference's file and a log.
type bench struct {
	file *os.File
	buf  []byte
	at   int64

	wal       *mmapwal.DiskStorage
	last      uint64
	compacted int // bytes since

	samples [][]time.Duration // of the reference, and of each shape
}

func newBench(dir string) (_ *bench, err error) {
	b := &bench{buf: make([]byte, referenceFile), samples: make([][]time.Duration, 1+len(shapes))}
	random := rand.NewChaCha8([32]byte{}) // what a disk compresses would prove nothing
	_, _ = random.Read(b.buf)             // it never fails
	if b.file, err = os.Create(filepath.Join(dir, "reference")); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if _, err := b.file.WriteAt(b.buf, 0); err != nil {
		return nil, err
	}
	if err := b.file.Sync(); err != nil {
		return nil, err
	}
	b.wal, err = mmapwal.Open(filepath.Join(dir, "log"), &mmapwal.Options{Logger: slog.New(slog.DiscardHandler)})
	return b, err
}

func (b *bench) close() error {
	err := b.file.Close()
	if b.wal != nil {
		err = errors.Join(err, b.wal.Close())
	}
	return err
}

// round takes a sample of each series.
func (b *bench) round() error {
	if err := b.measure(0, b.writeReference); err != nil {
		return err
	}
	for k, s := range shapes {
		es := b.entries(s.entries, s.bytes)
		if err := b.measure(k+1, func() error { return b.wal.Save(nil, es, nil) }); err != nil {
			return err
		}
		b.last += uint64(s.entries)
		b.compacted += s.entries * s.bytes
	}
	if b.compacted < compactEach {
		return nil
	}
	b.compacted = 0
	return b.wal.CreateSnapshot(b.last, nil, nil)
}

func (b *bench) measure(series int, call func() error) error {
	started := time.Now()
	err := call()
	b.samples[series] = append(b.samples[series], time.Since(started))
	return err
}

// writeReference writes what a log has to write, in the plainest way: in place, where blocks
// were written before, and syncs.
func (b *bench) writeReference() error {
	if _, err := b.file.WriteAt(b.buf[:referenceBytes], b.at); err != nil {
		return err
	}
	b.at = (b.at + referenceBytes) % referenceFile
	return datasync(b.file)
}

func (b *bench) entries(n, bytes int) (es []*raftpb.Entry) {
	for k := range n {
		i := b.last + 1 + uint64(k)
		es = append(es, &raftpb.Entry{Index: &i, Term: new(uint64(1)), Data: b.buf[k*bytes : (k+1)*bytes]})
	}
	return es
}
