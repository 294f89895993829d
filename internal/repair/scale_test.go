package repair

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/damage"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"go.etcd.io/raft/v3/raftpb"
)

// operations counts what a rehearsal does to a log of so many files, one of them damaged.
func operations(t *testing.T, files uint64) int64 {
	t.Helper()
	disk := damage.NewDisk(damage.Dir)
	wal, err := damage.Open(disk, 1, damage.Options())
	must(t, err)
	for i := range files {
		e := &raftpb.Entry{Index: new(i + 1), Term: new(uint64(1)), Data: make([]byte, 700<<10)}
		must(t, wal.Save(&raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(1))}, []*raftpb.Entry{e}, nil))
	}
	must(t, wal.Close())
	disk.Flip(entryfile.Name(files/2), entryfile.HeaderPages[1]+30, 1)
	disk.Flip(entryfile.Name(files-1), entryfile.DataStart+50, 1)
	var count atomic.Int64
	fsys := vfstest.New(disk, func(_ vfstest.Op, name string) error {
		if strings.HasSuffix(name, entryfile.Suffix) {
			count.Add(1)
		}
		return nil
	})
	p, err := Rehearse(context.Background(), damage.Dir, Options{DryRun: true, Host: host.Host{
		FS: fsys, Random: rand.NewChaCha8([32]byte{}), Go: func(f func()) { f() }, After: host.Never}})
	must(t, err)
	if r := &p.Report; r.Refused != "" || r.Lost == nil {
		t.Fatalf("%+v", r)
	}
	must(t, p.Close())
	return count.Load()
}

// TestManyFiles: a rehearsal takes a few operations for each file, however many there are.
func TestManyFiles(t *testing.T) {
	few, many := operations(t, 8), operations(t, 24)
	t.Logf("%d operations for 8 files, %d for 24", few, many)
	if perFile := (many - few) / 16; perFile > 100 || many > 4*few {
		t.Errorf("%d operations for 8 files, %d for 24", few, many)
	}
}
