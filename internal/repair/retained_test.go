package repair

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// TestRetainedBeforeLostFile: a file is lost that had replaced entries which the snapshot
// covers, and which were retained. What it had replaced is not kept to be sent to followers,
// though the entry at the snapshot is there.
func TestRetainedBeforeLostFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	begin := func(wal *mmapwal.DiskStorage) *mmapwal.DiskStorage { // a new file
		if wal != nil {
			crashed := contentOf(t, dir)
			must(t, wal.Close())
			must(t, os.RemoveAll(dir))
			put(t, dir, crashed)
		}
		wal, err := mmapwal.Open(dir, &mmapwal.Options{FileDataSize: entryfile.MinDataBytes, RetainEntries: 20, Logger: slog.New(slog.DiscardHandler)})
		must(t, err)
		return wal
	}
	save := func(wal *mmapwal.DiskStorage, from, to, term, commit uint64) {
		var es []*raftpb.Entry
		for i := from; i <= to; i++ {
			es = append(es, &raftpb.Entry{Index: new(i), Term: new(term), Data: []byte("entry")})
		}
		must(t, wal.Save(&raftpb.HardState{Term: &term, Commit: &commit}, es, nil))
	}
	wal := begin(nil)
	save(wal, 1, 11, 5, 4)
	wal = begin(wal)
	save(wal, 9, 11, 7, 8)
	wal = begin(wal)
	save(wal, 12, 20, 7, 16)
	must(t, wal.CreateSnapshot(14, &raftpb.ConfState{Voters: []uint64{1}}, nil))
	content := contentOf(t, dir)
	must(t, wal.Close())
	must(t, os.RemoveAll(dir))
	delete(content, entryfile.Name(2))
	put(t, dir, content)

	p, err := Rehearse(context.Background(), dir, Options{})
	must(t, err)
	defer p.Close()
	must(t, p.Execute(context.Background(), filepath.Join(t.TempDir(), "backup")))
	must(t, p.Close())
	wal, err = mmapwal.Open(dir, &mmapwal.Options{ReadOnly: true})
	must(t, err)
	defer wal.Close()
	first, err := wal.FirstIndex()
	must(t, err)
	if first != 15 {
		t.Errorf("the log begins at %d, and entries 9 to 11 had been replaced: %+v", first, p.Report)
	}
}
