package mmapwal_test

import (
	"fmt"
	"io"
	"log"
	"math"
	"os"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

func temporaryDir() (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "raftwal-example-")
	if err != nil {
		log.Fatal(err)
	}
	return dir, func() { os.RemoveAll(dir) }
}

// A log is opened, saved to, closed, and there again.
func Example() {
	dir, remove := temporaryDir()
	defer remove()

	wal, err := mmapwal.Init(dir) // HardSync: what Save returned nil for survives a power cut
	if err != nil {
		log.Fatal(err)
	}
	entries := []*raftpb.Entry{
		{Index: new(uint64(1)), Term: new(uint64(1)), Data: []byte("set x = 1")},
		{Index: new(uint64(2)), Term: new(uint64(1)), Data: []byte("set y = 2")},
	}
	hard := &raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(3)), Commit: new(uint64(2))}
	if err := wal.Save(hard, entries, nil); err != nil {
		log.Fatal(err)
	}
	if err := wal.Close(); err != nil {
		log.Fatal(err)
	}

	if wal, err = mmapwal.Init(dir); err != nil {
		log.Fatal(err)
	}
	defer wal.Close()
	read, err := wal.Entries(1, 3, math.MaxUint64)
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range read {
		fmt.Printf("%d/%d %s\n", e.GetTerm(), e.GetIndex(), e.GetData())
	}
	// Output:
	// 1/1 set x = 1
	// 1/2 set y = 2
}

// The loop of a Raft node: what a Ready holds is saved before its messages are
// sent and its committed entries applied.
func Example_rawNode() {
	dir, remove := temporaryDir()
	defer remove()
	wal, err := mmapwal.Init(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer wal.Close()

	// A new group starts with its members in a snapshot of index 0.
	_, members, err := wal.InitialState()
	if err != nil {
		log.Fatal(err)
	}
	if len(members.GetVoters()) == 0 {
		members = &raftpb.ConfState{Voters: []uint64{1}}
		start := &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{ConfState: members}}
		if err := wal.Save(nil, nil, start); err != nil {
			log.Fatal(err)
		}
	}
	snap, err := wal.Snapshot() // the state machine is restored from it
	if err != nil {
		log.Fatal(err)
	}
	node, err := raft.NewRawNode(&raft.Config{
		ID: 1, Storage: wal, Applied: snap.GetMetadata().GetIndex(),
		ElectionTick: 10, HeartbeatTick: 1, MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 256,
		Logger: &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := node.Campaign(); err != nil {
		log.Fatal(err)
	}
	proposed := false
	for node.HasReady() {
		ready := node.Ready()
		if err := wal.Save(ready.HardState, ready.Entries, ready.Snapshot); err != nil {
			log.Fatal(err) // not durable: nothing may be sent or applied
		}
		for _, e := range ready.CommittedEntries {
			if len(e.GetData()) > 0 {
				fmt.Printf("apply %s\n", e.GetData())
			}
		}
		node.Advance(ready)
		if !proposed && node.Status().RaftState == raft.StateLeader {
			proposed = true
			if err := node.Propose([]byte("set x = 1")); err != nil {
				log.Fatal(err)
			}
		}
	}
	// Output: apply set x = 1
}

// A state machine that is durable by itself, as a database is, may have applied more than
// the log knows as committed after a crash.
func ExampleDiskStorage_InitialState() {
	dir, remove := temporaryDir()
	defer remove()
	wal, err := mmapwal.Init(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer wal.Close()
	start := &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{ConfState: &raftpb.ConfState{Voters: []uint64{1}}}}
	entries := []*raftpb.Entry{
		{Index: new(uint64(1)), Term: new(uint64(1))}, {Index: new(uint64(2)), Term: new(uint64(1)), Data: []byte("x = 1")},
	}
	commit := &raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(1)), Commit: new(uint64(1))}
	if err := wal.Save(commit, entries, start); err != nil {
		log.Fatal(err)
	}

	applied := uint64(2) // what the database says of itself; the power failed before commit index 2 was on the disk
	snap, err := wal.Snapshot()
	if err != nil {
		log.Fatal(err)
	}
	node, err := raft.NewRawNode(&raft.Config{
		ID: 1, Storage: wal, Applied: snap.GetMetadata().GetIndex(), // not applied: raft panics beyond the commit index
		ElectionTick: 10, HeartbeatTick: 1, MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 256,
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := node.Campaign(); err != nil {
		log.Fatal(err)
	}
	for node.HasReady() {
		ready := node.Ready()
		if err := wal.Save(ready.HardState, ready.Entries, ready.Snapshot); err != nil {
			log.Fatal(err)
		}
		for _, e := range ready.CommittedEntries {
			// A conf change goes to node.ApplyConfChange, applied before or not.
			if e.GetIndex() <= applied {
				fmt.Println("applied before:", e.GetIndex())
				continue
			}
			applied = e.GetIndex()
			fmt.Println("applied now:", applied)
		}
		node.Advance(ready)
	}
	// Output:
	// applied before: 1
	// applied before: 2
	// applied now: 3
}

// A snapshot lets go of the entries that it covers, and of their files.
func ExampleDiskStorage_CreateSnapshot() {
	dir, remove := temporaryDir()
	defer remove()
	wal, err := mmapwal.Open(dir, &mmapwal.Options{RetainEntries: 10})
	if err != nil {
		log.Fatal(err)
	}
	defer wal.Close()
	for i := uint64(1); i <= 100; i++ {
		e := &raftpb.Entry{Index: new(i), Term: new(uint64(1)), Data: []byte("…")}
		if err := wal.Save(nil, []*raftpb.Entry{e}, nil); err != nil {
			log.Fatal(err)
		}
	}
	members := &raftpb.ConfState{Voters: []uint64{1, 2, 3}}
	if err := wal.CreateSnapshot(80, members, []byte("the state at entry 80")); err != nil {
		log.Fatal(err)
	}
	first, _ := wal.FirstIndex()
	last, _ := wal.LastIndex()
	fmt.Println(first, last)
	// Output: 71 100
}

// Saves that need not be waited for one by one: each done function is called when its
// Save is on the disk, in their order; many of them share one sync.
func ExampleDiskStorage_SaveAsync() {
	dir, remove := temporaryDir()
	defer remove()
	wal, err := mmapwal.Init(dir)
	if err != nil {
		log.Fatal(err)
	}
	durable := make(chan uint64)
	for index := uint64(1); index <= 3; index++ {
		term := uint64(1)
		entry := &raftpb.Entry{Index: &index, Term: &term, Data: []byte("set x = 1")}
		wal.SaveAsync(nil, []*raftpb.Entry{entry}, nil, func(err error) {
			if err != nil {
				log.Fatal(err) // not durable: nothing may be sent
			}
			durable <- index
		})
	}
	for range 3 {
		fmt.Println("durable:", <-durable)
	}
	if err := wal.Close(); err != nil {
		log.Fatal(err)
	}
	// Output:
	// durable: 1
	// durable: 2
	// durable: 3
}
