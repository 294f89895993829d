package main

import (
	"errors"
	"io"
	"log"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

const tickEvery = 10 * time.Millisecond

// node is a member of the group. Only its loop calls raft; what others have for it
// waits in the inbox.
type node struct {
	id    uint64
	dir   string
	wal   *mmapwal.DiskStorage
	raw   *raft.RawNode
	net   *network
	state *machine
	found uint64 // entries in the log when the node was started

	inbox   *queue // what raft is to be told: of other nodes, of clients, of the local threads
	applies *queue // for the apply thread

	stopping chan struct{}
	stopOnce sync.Once
	threads  sync.WaitGroup

	mu  sync.Mutex
	err error
}

// startNode starts a node with the log in dir, which is a new one maybe.
func startNode(id uint64, dir string, net *network) (*node, error) {
	wal, err := mmapwal.Open(dir, &mmapwal.Options{FileDataSize: 1 << 20, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	n := &node{
		id: id, dir: dir, wal: wal, net: net, state: newMachine(),
		inbox: newQueue(), applies: newQueue(), stopping: make(chan struct{}),
	}
	if err := n.startRaft(); err != nil {
		return nil, errors.Join(err, wal.Close())
	}
	net.join(n)
	n.threads.Go(n.loop)
	n.threads.Go(n.applyThread)
	return n, nil
}

// startRaft makes the node one of the group, and raft begin with what the log holds.
// Without snapshots, the state machine begins with the first entry; with them, it would begin
// with wal.Snapshot(), and Applied would be the index of that.
func (n *node) startRaft() error {
	_, conf, err := n.wal.InitialState()
	if err != nil {
		return err
	}
	if len(conf.GetVoters()) == 0 {
		conf = &raftpb.ConfState{Voters: []uint64{1, 2, 3}}
		if err := n.wal.Save(nil, nil, &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{ConfState: conf}}); err != nil {
			return err
		}
	}
	if n.found, err = n.wal.LastIndex(); err != nil {
		return err
	}
	n.raw, err = raft.NewRawNode(&raft.Config{
		ID: n.id, Storage: n.wal, AsyncStorageWrites: true,
		ElectionTick: 10, HeartbeatTick: 1, CheckQuorum: true, PreVote: true,
		MaxSizePerMsg: 64 << 10, MaxInflightMsgs: 256,
		Logger: &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)},
	})
	return err
}

// loop tells raft what happens, and does what raft wants done.
func (n *node) loop() {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		select {
		case <-n.stopping:
			return
		case <-tick.C:
			n.raw.Tick()
		case <-n.inbox.filled:
			for _, m := range n.inbox.take() {
				_ = n.raw.Step(m) // raft drops what is out of date, and proposals without a leader
			}
		}
		for n.raw.HasReady() {
			n.dispatch(n.raw.Ready().Messages)
		}
	}
}

// dispatch sends each message where it belongs. With AsyncStorageWrites, what is to be
// stored and applied are messages, too; there is no Advance.
func (n *node) dispatch(ms []*raftpb.Message) {
	for _, m := range ms {
		switch m.GetTo() {
		case raft.LocalAppendThread:
			n.store(m)
		case raft.LocalApplyThread:
			n.applies.put(m)
		default:
			n.net.send(n, m)
		}
	}
}

// store has the log store what a MsgStorageAppend carries, and goes on. The fields of
// the hard state are all set, or none is; then the hard state is empty, and the log
// keeps its own. A message may have nothing but responses: they have to wait for what
// was stored before, and SaveAsync keeps this order.
//
// The responses go out once all is durable: to other nodes, and to this one, so that
// its own raft learns of it. If it cannot become durable, nobody may be told, and the
// node stops.
func (n *node) store(m *raftpb.Message) {
	hard := &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
	n.wal.SaveAsync(hard, m.GetEntries(), m.GetSnapshot(), func(err error) {
		if err != nil {
			n.fail(err)
			return
		}
		n.net.send(n, m.GetResponses()...)
	})
}

// applyThread applies what each MsgStorageApply carries, in their order. Raft sends
// what is committed; the members of this group never change, so no entry is a
// configuration change.
func (n *node) applyThread() {
	for {
		select {
		case <-n.stopping:
			return
		case <-n.applies.filled:
			for _, m := range n.applies.take() {
				n.state.apply(m.GetEntries())
				n.net.send(n, m.GetResponses()...)
			}
		}
	}
}

// propose proposes an entry. It may be dropped.
func (n *node) propose(data []byte) {
	n.inbox.put(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: &n.id, Entries: []*raftpb.Entry{{Data: data}}})
}

// fail stops the node.
func (n *node) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		n.err = err
	}
	n.stopOnce.Do(func() { close(n.stopping) })
}

func (n *node) failure() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

// stopThreads returns when the node does not call raft or the log any more.
func (n *node) stopThreads() {
	n.net.leave(n)
	n.stopOnce.Do(func() { close(n.stopping) })
	n.threads.Wait()
}

// close stops the node cleanly.
func (n *node) close() error {
	n.stopThreads()
	return n.wal.Close()
}

// kill leaves in dir what a SIGKILL would have left of the log: a copy of its files as
// they are, without Close. From when the node has left the network, nobody is told
// anything; all that it told is in the files.
func (n *node) kill(dir string) error {
	n.stopThreads()
	err := os.CopyFS(dir, os.DirFS(n.dir))
	return errors.Join(err, n.wal.Close())
}
