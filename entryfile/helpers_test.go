package entryfile

import (
	"errors"
	"fmt"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

const (
	testLog  = 0xcafef00ddeadbeef
	testSalt = 0x5eed0001
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func wantCorrupt(t testing.TB, err error) *corrupt.Error {
	t.Helper()
	var e *corrupt.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want a *corrupt.Error", err)
	}
	return e
}

// seeded returns a random source whose seed the test prints.
func seeded(t testing.TB) *rand.Rand {
	seed := time.Now().UnixNano()
	if n, err := strconv.ParseInt(os.Getenv("SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("SEED=%d", seed)
	return rand.New(rand.NewSource(seed))
}

func entry(index, term uint64, data string) *raftpb.Entry {
	return &raftpb.Entry{Index: proto.Uint64(index), Term: proto.Uint64(term), Data: []byte(data)}
}

// entries returns the entries [lo, hi), whose data tells index and term. Every
// fifth is a conf change.
func entries(lo, hi, term uint64) (es []*raftpb.Entry) {
	for i := lo; i < hi; i++ {
		e := entry(i, term, fmt.Sprintf("entry %d of term %d", i, term))
		if i%5 == 0 {
			e.Type = raftpb.EntryConfChangeV2.Enum()
		}
		es = append(es, e)
	}
	return es
}

// plain returns the entries [lo, hi) of one term with so many bytes of data.
func plain(lo, hi uint64, bytes int) (es []*raftpb.Entry) {
	for i := lo; i < hi; i++ {
		e := entry(i, 1, "")
		e.Data = make([]byte, bytes)
		for k := range e.Data {
			e.Data[k] = byte(i) + byte(k)
		}
		es = append(es, e)
	}
	return es
}

func spec(dataBytes int64) Spec {
	return Spec{Number: 7, Prev: 6, LogID: testLog, Salt: testSalt, PrevSealed: true, DataBytes: dataBytes}
}

// prepareOn returns a published file of 4 MiB of data that holds es, synced.
func prepareOn(t testing.TB, fsys vfs.FS, dir string, es ...*raftpb.Entry) *File {
	t.Helper()
	f, err := Prepare(fsys, dir, spec(4<<20), 0)
	must(t, err)
	t.Cleanup(func() {
		if f.refs.Load() > 0 {
			_ = f.Release()
		}
	})
	must(t, f.Publish())
	save(t, f, es)
	return f
}

func prepare(t testing.TB, es ...*raftpb.Entry) *File {
	return prepareOn(t, vfs.OS(), t.TempDir(), es...)
}

// save appends es, synced.
func save(t testing.TB, f *File, es []*raftpb.Entry) {
	t.Helper()
	n, bytes := f.Room(es)
	if n != len(es) {
		t.Fatalf("room for %d entries of %d", n, len(es))
	}
	must(t, f.Reserve(bytes))
	must(t, f.Append(es, 0))
	must(t, f.Sync())
}

// reopen closes f and opens it again.
func reopen(t testing.TB, f *File) *File {
	t.Helper()
	_ = f.Release()
	g, err := Open(vfs.OS(), f.dir, f.Number(), testLog, nil, false)
	must(t, err)
	t.Cleanup(func() {
		if g.refs.Load() > 0 {
			_ = g.Release()
		}
	})
	return g
}

func openErr(t testing.TB, f *File, number, logID uint64) error {
	t.Helper()
	g, err := Open(vfs.OS(), f.dir, number, logID, nil, true)
	if err == nil {
		_ = g.Release()
		t.Fatal("opened")
	}
	return err
}

// indexOf returns what Locate wants: nil for a sealed file.
func indexOf(f *File) *Index {
	if f.Sealed() {
		return nil
	}
	x := f.Index()
	return &x
}

// get reads the live entries [lo, hi) of f.
func get(f *File, lo, hi uint64, clearedBelow uint64) ([]*raftpb.Entry, error) {
	b := &Batch{MaxBytes: 1 << 40, ClearedBelow: clearedBelow, ClearedFile: math.MaxUint64}
	_, err := f.Read(indexOf(f), lo, hi, b)
	return b.Entries(), err
}

// getBlank is get, one by one, with entries of which only index and term are known where their
// data is cleared.
func getBlank(f *File, lo, hi uint64, clearedBelow uint64) (all []*raftpb.Entry, err error) {
	for ; lo < hi; lo++ {
		es, err := get(f, lo, lo+1, clearedBelow)
		if err == ErrCleared {
			loc, err := f.Locate(indexOf(f), lo)
			if err != nil {
				return nil, err
			}
			es = []*raftpb.Entry{{Index: new(lo), Term: &loc.Term, Type: raftpb.EntryNormal.Enum()}}
		} else if err != nil {
			return nil, err
		}
		all = append(all, es...)
	}
	return all, nil
}

// wantEntries checks that es are the live entries of f.
func wantEntries(t testing.TB, f *File, es []*raftpb.Entry) {
	t.Helper()
	if len(es) == 0 {
		if f.First() != 0 || f.Last() != 0 {
			t.Errorf("entries %d to %d, want none", f.First(), f.Last())
		}
		return
	}
	first, last := es[0].GetIndex(), es[len(es)-1].GetIndex()
	if f.First() != first || f.Last() != last {
		t.Fatalf("entries %d to %d, want %d to %d", f.First(), f.Last(), first, last)
	}
	got, err := get(f, first, last+1, 0)
	must(t, err)
	wantSame(t, got, es)
}

func wantSame(t testing.TB, got, want []*raftpb.Entry) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i := range got {
		g, w := got[i], want[i]
		if !proto.Equal(g, w) || (g.Data == nil) != (w.Data == nil) || (g.Type == nil) != (w.Type == nil) {
			t.Fatalf("entry\n%.200v, want\n%.200v", g, w)
		}
	}
}

// edit changes n bytes of the file at path from offset at on.
func edit(t testing.TB, path string, at int64, n int, change func(p []byte)) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	p := make([]byte, n)
	_, err = file.ReadAt(p, at)
	must(t, err)
	change(p)
	_, err = file.WriteAt(p, at)
	must(t, err)
}

func flip(t testing.TB, f *File, at int64) {
	t.Helper()
	edit(t, f.Path(), at, 1, func(p []byte) { p[0] ^= 0x04 })
}

func zero(t testing.TB, f *File, at int64, n int) {
	t.Helper()
	edit(t, f.Path(), at, n, func(p []byte) { clear(p) })
}

// recordAt returns where the record of the live entry i is.
func recordAt(t testing.TB, f *File, i uint64) int64 {
	t.Helper()
	loc, err := f.Locate(indexOf(f), i)
	must(t, err)
	return loc.Record
}

func wantNoFile(t testing.TB, dir string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	must(t, err)
	if len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// clearBelow clears the entries below an index.
func clearBelow(f *File, below uint64) ([]Extent, error) {
	until, err := f.ClearEnd(below)
	if err != nil {
		return nil, err
	}
	return f.Clear(until)
}
