package backup_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/seed-2fef92ad/raftwal/backup"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// A log is backed up while it is in use, in full and then what is new, and made again
// from both.
func Example() {
	dir, err := os.MkdirTemp("", "raftwal-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	wal, err := mmapwal.Init(filepath.Join(dir, "wal"))
	if err != nil {
		log.Fatal(err)
	}
	defer wal.Close()
	save := func(i uint64, data string) {
		e := &raftpb.Entry{Index: &i, Term: new(uint64(1)), Data: []byte(data)}
		if err := wal.Save(nil, []*raftpb.Entry{e}, nil); err != nil {
			log.Fatal(err)
		}
	}

	ctx := context.Background()
	var full, increment bytes.Buffer // files, or a connection to an object store
	save(1, "set x = 1")
	manifest, err := wal.Backup(ctx, &full)
	if err != nil {
		log.Fatal(err)
	}
	save(2, "set x = 2")
	if manifest, err = wal.BackupSince(ctx, &increment, manifest); err != nil {
		log.Fatal(err)
	}
	fmt.Println("the increment reaches entry", manifest.Last)

	// The log joins the group as a new member: see docs/backup.md.
	newID := uint64(7)
	again := filepath.Join(dir, "again")
	if _, err := backup.Restore(ctx, again, &backup.RestoreOptions{RaftID: &newID}, &full, &increment); err != nil {
		log.Fatal(err)
	}
	restored, err := mmapwal.Init(again)
	if err != nil {
		log.Fatal(err)
	}
	defer restored.Close()
	es, err := restored.Entries(1, 3, 1<<20)
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range es {
		fmt.Printf("%d %s\n", e.GetIndex(), e.GetData())
	}
	// Output:
	// the increment reaches entry 2
	// 1 set x = 1
	// 2 set x = 2
}

// A Scheduler makes a backup every hour: one a day in full, and those of a week are
// kept.
func ExampleScheduler() {
	dir, err := os.MkdirTemp("", "raftwal-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	wal, err := mmapwal.Init(filepath.Join(dir, "wal"))
	if err != nil {
		log.Fatal(err)
	}
	defer wal.Close()
	s, err := backup.NewScheduler(wal, backup.SchedulerOptions{
		Dir: filepath.Join(dir, "backups"), Interval: time.Hour, Increments: 23, Keep: 7,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	// Elsewhere, for metrics: how old the newest backup is, and whether the last attempt failed.
	at, err := s.LastBackup()
	_ = time.Since(at)
	fmt.Println(err)
	// Output: <nil>
}
