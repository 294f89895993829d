package entryfile

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"go.etcd.io/raft/v3/raftpb"
)

// bigFile returns a sealed file with the entries 1 to 59 of 20 KiB each, and
// these. Every twentieth is a conf change.
func bigFile(t testing.TB) (*File, []*raftpb.Entry) {
	t.Helper()
	es := plain(1, 60, 20<<10)
	for _, e := range es {
		if e.GetIndex()%20 == 0 {
			e.Type = raftpb.EntryConfChange.Enum()
		}
		*e.Term = 1 + e.GetIndex()/7
	}
	f := prepare(t, es...)
	must(t, f.Seal())
	return reopen(t, f), es
}

// cleared returns what reads of es return once the normal ones below an index
// have lost their data.
func cleared(es []*raftpb.Entry, below uint64) (out []*raftpb.Entry) {
	for _, e := range es {
		if e.GetIndex() < below && e.GetType() == raftpb.EntryNormal {
			e = &raftpb.Entry{Index: e.Index, Term: e.Term, Type: raftpb.EntryNormal.Enum()}
		}
		out = append(out, e)
	}
	return out
}

func wantCleared(t testing.TB, f *File, es []*raftpb.Entry, below uint64) {
	t.Helper()
	got, err := getBlank(f, es[0].GetIndex(), es[len(es)-1].GetIndex()+1, below)
	must(t, err)
	wantSame(t, got, cleared(es, below))
}

func blocks(t testing.TB, name string) int64 {
	t.Helper()
	info, err := os.Stat(name)
	must(t, err)
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Skip("the number of blocks cannot be asked for on this system")
	}
	return int64(stat.Blocks) * 512
}

func punch(t testing.TB, f *File, extents []Extent) {
	t.Helper()
	err := f.Punch(extents)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("the file system of the temporary directory cannot punch holes")
	}
	must(t, err)
}

func TestClearFreesBlocks(t *testing.T) {
	f, es := bigFile(t)
	before := blocks(t, f.Path())
	extents, err := clearBelow(f, 51)
	must(t, err)
	punch(t, f, extents)
	freed := before - blocks(t, f.Path())
	if least := int64(40 * 20 << 10); freed < least {
		t.Errorf("%d bytes were freed, want %d at least", freed, least)
	}
	wantCleared(t, f, es, 51)
	wantCleared(t, reopen(t, f), es, 51)
}

// TestClearSteps: what was cleared once is not returned again.
func TestClearSteps(t *testing.T) {
	f, es := bigFile(t)
	to, most := int64(DataStart), uint64(0)
	for _, below := range []uint64{0, 1, 2, 10, 10, 5, 21, 45, 60, 1000} {
		extents, err := clearBelow(f, below)
		must(t, err)
		for _, e := range extents {
			if e.From < to || e.To <= e.From || e.To > f.End() {
				t.Fatalf("below %d: extent %+v behind %d", below, e, to)
			}
			to = e.To
		}
		punch(t, f, extents)
		most = max(most, below)
		wantCleared(t, f, es, most)
	}
	if to != f.End() {
		t.Errorf("cleared up to %d of %d", to, f.End())
	}
	s, err := reopen(t, f).Check()
	must(t, err)
	if s.Index.First() != 1 || s.Index.Last() != 59 {
		t.Errorf("checked %d to %d", s.Index.First(), s.Index.Last())
	}
}

// TestClearedFileHeals: the digest rebuilds the slots of records that are gone.
func TestClearedFileHeals(t *testing.T) {
	for _, below := range []uint64{2, 20, 21, 41, 59, 60} {
		t.Run(fmt.Sprint(below), func(t *testing.T) {
			f, es := bigFile(t)
			extents, err := clearBelow(f, below)
			must(t, err)
			punch(t, f, extents)
			zero(t, f, 0, 59*SlotBytes)
			f = reopen(t, f)
			wantCleared(t, f, es, below)
			if !f.Healed() {
				t.Error("not healed")
			}
			must(t, f.Reseal(59))
			f = reopen(t, f)
			wantCleared(t, f, es, below)
			if f.Healed() {
				t.Error("not healed on disk")
			}
			must(t, f.Reseal(30)) // a cut inside or behind what was cleared
			f = reopen(t, f)
			zero(t, f, 0, 30*SlotBytes)
			wantCleared(t, f, es[:30], max(below, 1))
			must(t, f.Reseal(0))
			f = reopen(t, f)
			wantEntries(t, f, nil)
			if s, err := f.Check(); err != nil || s.Index.Len() != 0 {
				t.Errorf("%d entries, error %v", s.Index.Len(), err)
			}
		})
	}
}

// TestClearedConfChangesChecked: what must stay is checked as before.
func TestClearedConfChangesChecked(t *testing.T) {
	f, _ := bigFile(t)
	_, err := clearBelow(f, 50)
	must(t, err)
	flip(t, f, recordAt(t, f, 40)+100)
	_, err = getBlank(f, 1, 60, 50)
	if e := wantCorrupt(t, err); e.First != 40 {
		t.Error(e)
	}
	zero(t, f, recordAt(t, f, 50), 32) // the first that is surely there
	zero(t, f, 0, 59*SlotBytes)
	_, err = f.Locate(nil, 3)
	wantCorrupt(t, err)
}

// TestClearRefused: only a sealed file whose digest is complete can be cleared.
func TestClearRefused(t *testing.T) {
	open := prepare(t, entries(1, 10, 1)...)
	empty := prepare(t)
	must(t, empty.Seal())
	terms := prepare(t)
	for i := range uint64(maxDigest + 1) {
		save(t, terms, entries(i+1, i+2, i+1))
	}
	must(t, terms.Seal())
	others := prepare(t)
	save(t, others, entries(1, 5*maxDigest+6, 1))
	must(t, others.Seal())
	for name, f := range map[string]*File{"not sealed": open, "empty": empty, "many terms": terms, "many conf changes": others} {
		if extents, err := clearBelow(f, 5); extents != nil || err != nil {
			t.Errorf("%s: %v, error %v", name, extents, err)
		}
	}
	f := reopen(t, terms)
	if f.sealed().HasDigest {
		t.Error("there is a digest")
	}
	zero(t, f, 0, SlotBytes)
	if _, err := get(f, 1, maxDigest+2, 0); err != nil || !f.Healed() {
		t.Errorf("healed without a digest: %t, %v", f.Healed(), err)
	}
	full := prepare(t)
	save(t, full, entries(1, 5*maxDigest+1, 1)) // just fits
	must(t, full.Seal())
	if extents, err := clearBelow(reopen(t, full), 100); len(extents) == 0 || err != nil {
		t.Errorf("%v, error %v", extents, err)
	}
}

func TestPunchFails(t *testing.T) {
	fsys := vfstest.New(vfs.OS(), vfstest.FailFrom(1, syscall.EOPNOTSUPP, vfstest.OpPunch))
	es := plain(1, 60, 5000)
	f := prepareOn(t, fsys, t.TempDir(), es...)
	must(t, f.Seal())
	extents, err := clearBelow(f, 30)
	must(t, err)
	wantErr(t, f.Punch(extents), errors.ErrUnsupported)
	wantCleared(t, f, es, 30)
}
