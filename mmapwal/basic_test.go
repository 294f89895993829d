package mmapwal_test

import (
	"fmt"
	"testing"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

func TestBasic(t *testing.T) {
	dir := t.TempDir()
	d, err := mmapwal.Init(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 100; i++ {
		if err := d.Save(&raftpb.HardState{Term: new(uint64(1)), Commit: new(i)}, []*raftpb.Entry{{Index: new(i), Term: new(uint64(1)), Data: []byte(fmt.Sprint("hello", i))}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	check := func(d *mmapwal.DiskStorage) {
		t.Helper()
		es, err := d.Entries(1, 101, 1<<40)
		if err != nil || len(es) != 100 {
			t.Fatal(len(es), err)
		}
		t.Logf("%+v", d.Stats())
	}
	check(d)
	ro, err := mmapwal.Open(dir, &mmapwal.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	check(ro)
	if err := ro.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d, err = mmapwal.Init(dir)
	if err != nil {
		t.Fatal(err)
	}
	check(d)
	if err := d.CreateSnapshot(50, nil, make([]byte, 5000)); err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", d.Stats())
}
