package mmapwal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
)

// TestReaderBesideOwner: files rotate, die, are cleared and used again while readers go on. A
// reader gets what there was when it opened the log, or is told that it is compacted or
// changed: a healthy log is never called damaged.
func TestReaderBesideOwner(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			b := testOvertaken{t: t, dir: t.TempDir(), random: mrand.New(mrand.NewPCG(seed, 14)), term: 1}
			fast := func(o *mmapwal.Options) { o.SetFS(testLogFastFS{vfs.OS()}) }
			b.edits = []func(*mmapwal.Options){fast, func(o *mmapwal.Options) { o.RetainEntries = seed / 2 % 2 * 6 }}
			if seed%2 == 1 {
				b.edits = append(b.edits, testLogEncrypted)
			}
			b.owner = testLogOpen(t, b.dir, b.edits...)
			testLogSave(t, b.owner, testLogHard(1, 1, 0), nil)
			for range 150 {
				b.change()
				b.read()
			}
			if b.overtaken == 0 || b.changed == 0 || b.whole == 0 {
				t.Errorf("overtaken %d times, %d backups of a changed log, %d of one that was not", b.overtaken, b.changed, b.whole)
			}
		})
	}
}

// testOvertaken is an owner with readers beside it.
type testOvertaken struct {
	t       *testing.T
	dir     string
	random  *mrand.Rand
	edits   []func(*mmapwal.Options)
	owner   *mmapwal.DiskStorage
	term    uint64
	readers []testOvertakenReader

	overtaken, changed, whole int
}

type testOvertakenReader struct {
	d           *mmapwal.DiskStorage
	first, last uint64
	terms       map[uint64]uint64
}

// change lets the owner do something.
func (b *testOvertaken) change() {
	last, _ := b.owner.LastIndex()
	snapshot := b.owner.Uint(mmapwal.SnapshotIndex)
	switch n := b.random.IntN(10); {
	case n < 6:
		if n == 0 && last > snapshot {
			last, b.term = snapshot+b.random.Uint64N(last-snapshot), b.term+1
		}
		testLogSave(b.t, b.owner, testLogHard(b.term, 1, snapshot), testLogEntries(last+1, last+1+b.random.Uint64N(4), b.term, 250_000))
	case n < 8 && last > snapshot:
		if err := b.owner.CreateSnapshot(snapshot+1+b.random.Uint64N(last-snapshot), testLogConf(1), bytes.Repeat([]byte("data"), 600*b.random.IntN(2))); err != nil {
			b.t.Fatal(err)
		}
		if n == 7 {
			b.owner.WaitForBackground() // there are spare files
		}
	case n == 8 && snapshot > 0:
		_ = b.owner.TruncateEntriesUntil(snapshot)
	case n == 9:
		testLogClose(b.t, b.owner)
		b.owner = testLogOpen(b.t, b.dir, b.edits...)
	}
}

// read lets a reader do something.
func (b *testOvertaken) read() {
	if n := len(b.readers); n < 4 {
		b.begin()
	} else if b.random.IntN(4) == 0 {
		testLogClose(b.t, b.readers[0].d)
		b.readers = b.readers[1:]
		b.begin()
	}
	r := &b.readers[b.random.IntN(len(b.readers))]
	if b.random.IntN(4) == 0 {
		_, err := r.d.Backup(b.t.Context(), io.Discard)
		switch {
		case err == nil:
			b.whole++
		case errors.Is(err, mmapwal.ErrChanged):
			b.changed++
		default:
			b.t.Fatalf("backup: %v", err)
		}
	}
	if r.last < r.first {
		return
	}
	i := r.first + b.random.Uint64N(r.last+1-r.first)
	term, err := r.d.Term(i)
	b.judge(i, term, r, err)
	es, err := r.d.Entries(i, r.last+1, 600_000)
	if len(es) > 0 {
		term = es[0].GetTerm()
	}
	b.judge(i, term, r, err)
}

func (b *testOvertaken) judge(i, term uint64, r *testOvertakenReader, err error) {
	b.t.Helper()
	switch {
	case errors.Is(err, raft.ErrCompacted):
		b.overtaken++
	case err != nil:
		b.t.Fatalf("entry %d: %v", i, err)
	case term != r.terms[i]:
		b.t.Fatalf("entry %d has term %d, had %d", i, term, r.terms[i])
	}
}

// begin opens one more reader.
func (b *testOvertaken) begin() {
	r := testOvertakenReader{d: testLogOpen(b.t, b.dir, append(b.edits, testLogReadOnly)...), terms: make(map[uint64]uint64)}
	r.first, _ = r.d.FirstIndex()
	r.last, _ = r.d.LastIndex()
	for i := r.first; i <= r.last; i++ {
		term, err := r.d.Term(i)
		if err != nil {
			b.t.Fatal(err)
		}
		r.terms[i] = term
	}
	b.readers = append(b.readers, r)
}

// TestReadersBackup: that of a log whose owner has cleared, compacted or used anew what is
// being copied is no report of damage.
func TestReadersBackup(t *testing.T) {
	for name, change := range map[string]func(d *mmapwal.DiskStorage) error{
		"cleared":   func(d *mmapwal.DiskStorage) error { return d.TruncateEntriesUntil(3) },
		"compacted": func(d *mmapwal.DiskStorage) error { return d.CreateSnapshot(4, testLogConf(1), nil) },
	} {
		dir := t.TempDir()
		d := testLogOpen(t, dir, func(o *mmapwal.Options) {
			if name == "cleared" {
				o.RetainEntries = 10
			}
		})
		for i := uint64(1); i <= 4; i++ { // one entry fills a file
			testLogSave(t, d, testLogHard(1, 1, i), testLogEntries(i, i, 1, 700_000))
		}
		if err := d.CreateSnapshot(2, testLogConf(1), nil); err != nil && name != "compacted" {
			t.Fatal(err)
		}
		r := testLogOpen(t, dir, testLogReadOnly)
		if err := change(d); err != nil {
			t.Fatal(err)
		}
		d.WaitForBackground()
		if _, err := r.Backup(t.Context(), io.Discard); !errors.Is(err, mmapwal.ErrChanged) {
			t.Errorf("%s: error %v, want %v", name, err, mmapwal.ErrChanged)
		}
	}
}
