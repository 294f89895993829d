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
	"google.golang.org/protobuf/proto"
)

// fullFS has entry files of a size that end in a hole, which cannot be read through a mapping:
// so it is on a tmpfs that is full. Here the file ends, and the mapping does not.
type fullFS struct {
	vfs.FS
	size int64
}

func (f fullFS) Open(name string, readOnly bool) (vfs.File, error) {
	file, err := f.FS.Open(name, readOnly)
	if err != nil || filepath.Ext(name) != ".wal" {
		return file, err
	}
	return fullFile{file, f.size}, nil
}

func (f fullFS) OpenDir(string) (vfs.Dir, error) { return vfs.FixedDir(f), nil }

type fullFile struct {
	vfs.File
	size int64
}

func (f fullFile) Size() (int64, error) { return f.size, nil }

// TestHoleBehindTheRecords: the hole in which the room of a file ends, on a full disk, is no
// damage, wherever the records end.
func TestHoleBehindTheRecords(t *testing.T) {
	const full = page.Size - entryfile.RecordHeaderBytes // the record ends with its page
	for data := full - 48; data <= full+8; data += 8 {
		testHole(t, data)
	}
}

// testHole looks at a log of one record with so many bytes of data, and a hole behind its last page.
func testHole(t *testing.T, data int) {
	t.Helper()
	dir := t.TempDir()
	d, err := mmapwal.Open(dir, &mmapwal.Options{FileDataSize: 1 << 20, Sync: mmapwal.NoSync})
	if err != nil {
		t.Fatal(err)
	}
	e := &raftpb.Entry{Index: proto.Uint64(1), Term: proto.Uint64(1), Data: make([]byte, data)}
	if err := d.Save(nil, []*raftpb.Entry{e}, nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, entryfile.Name(1))
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	end := entryfile.DataStart + entryfile.RecordBytes(data)
	if err := os.Truncate(name, (end+page.Size-1)/page.Size*page.Size); err != nil {
		t.Fatal(err)
	}
	l, err := Look(context.Background(), fullFS{vfs.OS(), info.Size()}, dir, Options{Check: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Problems) > 0 || l.Last != 1 {
		t.Fatalf("%d bytes: entries up to %d, %v", data, l.Last, l.Problems)
	}
}
