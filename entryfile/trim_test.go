package entryfile

import (
	"errors"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// TestTrim: a file that a crash ended keeps its entries, and no blocks but theirs, before and
// after it is sealed; it can be read and opened as ever, and is a spare as any other.
func TestTrim(t *testing.T) {
	es := plain(1, 41, 1000)
	torn := []byte("torn torn torn torn torn torn torn")
	for _, reused := range []bool{false, true} {
		f := prepare(t, es...)
		if reused {
			must(t, f.Seal())
			spare := keepAsSpare(t, f)
			g, err := Reuse(vfs.OS(), f.dir, spare, spec(4<<20), 0)
			must(t, err)
			must(t, g.Publish())
			save(t, g, es)
			f = g
		}
		_, err := f.file.WriteAt(torn, f.End()+5*page.Size)
		must(t, err)
		f = reopen(t, f)
		s, err := f.Scan()
		must(t, err)
		must(t, f.Restore(s, DataStart))
		must(t, f.TerminateHere(&s))
		must(t, f.Sync())
		if err := f.Trim(); errors.Is(err, errors.ErrUnsupported) {
			t.Skip("the file system of the temporary directory gives no blocks back")
		} else if err != nil {
			t.Fatal(err)
		}
		if from, _, err := f.file.Data(f.End() + page.Size); err != nil || from != f.End()+page.Size {
			t.Errorf("reused %t: there is data at %d, behind the end, %d; error %v", reused, from, f.End(), err)
		}
		wantEntries(t, f, es)
		must(t, f.Seal())
		wantEntries(t, f, es)
		raw, err := vfs.OS().Open(f.path, true)
		must(t, err)
		slots := roundUp(int64(len(es))*SlotBytes, page.Size)
		if from, _, err := raw.Data(slots); err != nil || from < headerPage0 {
			t.Errorf("reused %t: there is data at %d, behind the slots; error %v", reused, from, err)
		}
		must(t, raw.Close())
		f = reopen(t, f)
		wantEntries(t, f, es)
		g, err := Reuse(vfs.OS(), f.dir, keepAsSpare(t, f), spec(4<<20), 0)
		must(t, err)
		must(t, g.Publish())
		save(t, g, es)
		wantEntries(t, g, es)
		must(t, g.Release())
	}
}

// keepAsSpare closes f and gives it the name of a spare.
func keepAsSpare(t *testing.T, f *File) string {
	t.Helper()
	must(t, f.Release())
	spare := SpareName(f.Number())
	must(t, f.fsys.Rename(f.path, f.dir+"/"+spare))
	return spare
}
