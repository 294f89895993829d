package inspect

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// TestHostilePayload: a payload that pretends to be records costs no more than its bytes to look
// through when its own is torn or damaged, and none of it is taken for an entry.
func TestHostilePayload(t *testing.T) {
	for _, size := range []int{256 << 10, 2 << 20} {
		for _, closed := range []bool{false, true} {
			dir := filepath.Join(t.TempDir(), "log")
			logWithPayload(t, dir, hostile(size), closed)
			l, err := Look(context.Background(), vfs.OS(), dir, Options{once: true})
			if err != nil {
				t.Fatal(err)
			}
			if l.Damaged() != closed || l.Files[0].Records != 1 {
				t.Errorf("%d bytes, closed %v: %d records, %+v", size, closed, l.Files[0].Records, l.Problems)
			}
			if least, most := int64(size), 80*int64(size); l.summed < least || l.summed > most {
				t.Errorf("%d bytes, closed %v: %d bytes were summed, want %d to %d", size, closed, l.summed, least, most)
			}
		}
	}
}

// hostile returns n bytes in which a record seems to begin every eight bytes, of 448 KiB.
func hostile(n int) []byte {
	p := make([]byte, n)
	for k := 0; k < n; k += entryfile.RecordAlign {
		page.Order.PutUint64(p[k:], (entryfile.DataStart/entryfile.RecordAlign+8)<<32|7<<16)
	}
	return p
}

// logWithPayload makes a log of two entries, of which the record of the second, with that
// payload, is not whole.
func logWithPayload(t *testing.T, dir string, payload []byte, closed bool) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := mmapwal.Open(dir, &mmapwal.Options{FileDataSize: 4 << 20, Sync: mmapwal.NoSync})
	must(err)
	t.Cleanup(func() { _ = d.Close() })
	for i := range uint64(2) {
		e := &raftpb.Entry{Index: new(i + 1), Term: new(uint64(1))}
		if i == 1 {
			e.Data = payload
		}
		must(d.Save(nil, []*raftpb.Entry{e}, nil))
	}
	if closed {
		must(d.Close())
	}
	f, err := os.OpenFile(filepath.Join(dir, entryfile.Name(1)), os.O_RDWR, 0)
	must(err)
	_, err = f.WriteAt(make([]byte, 24), entryfile.DataStart+entryfile.RecordHeaderBytes)
	must(err)
	must(f.Close())
}
