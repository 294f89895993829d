package demo

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

const (
	electionTicks  = 10
	heartbeatTicks = 1
	maxMessageSize = 1 << 20
	maxBatch       = 256 // inputs that are taken before what they lead to is stored
)

// node is one of the three, in a process of its own. Its run loop owns it all.
type node struct {
	wal      *mmapwal.DiskStorage
	raft     *raft.RawNode
	peers    *transport
	machine  machine
	requests chan request // closed when the parent is gone
	out      *gob.Encoder

	applied uint64 // index of the last entry applied
	next    report // what the parent has not been told yet
	told    status
}

// errStopped ends the run loop of a node that was told to stop.
var errStopped = errors.New("stopped")

// RunNode is the process of a node. It is told what to do on in, and reports on
// out. It returns nil once it was told to stop and the log is closed.
func RunNode(in io.Reader, out io.Writer) error {
	requests := gob.NewDecoder(in)
	var first request
	if err := requests.Decode(&first); err != nil {
		return fmt.Errorf("read the first request: %w", err)
	}
	if first.Start == nil {
		return errors.New("the first request is not to start")
	}
	n, err := startNode(first.Start, out)
	if err != nil {
		return err
	}
	go n.readRequests(requests)
	if err = n.run(); errors.Is(err, errStopped) {
		err = nil
	}
	return errors.Join(err, n.peers.close(), n.wal.Close())
}

// startNode opens the log, and starts raft and the transport.
func startNode(s *start, out io.Writer) (*node, error) {
	wal, err := mmapwal.Open(s.Dir, &mmapwal.Options{FileDataSize: fileDataSize, Logger: logger(os.Stderr)})
	if err != nil {
		return nil, err
	}
	rn, err := startRaft(s.ID, wal)
	if err != nil {
		return nil, errors.Join(err, wal.Close())
	}
	peers, err := listen(s.ID, s.Session)
	if err != nil {
		return nil, errors.Join(err, wal.Close())
	}
	n := &node{
		wal:      wal,
		raft:     rn,
		peers:    peers,
		machine:  machine{session: s.Session},
		requests: make(chan request, queueLength),
		out:      gob.NewEncoder(out),
	}
	n.next.Hello = &hello{Addr: peers.listener.Addr().String(), Recovery: wal.Stats().Recovery}
	return n, nil
}

// startRaft makes raft of what the log says. All entries are applied anew, as the
// state machine is in memory only and the log is never compacted.
func startRaft(id uint64, wal *mmapwal.DiskStorage) (*raft.RawNode, error) {
	if err := bootstrap(wal); err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	snap, err := wal.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("read the snapshot: %w", err)
	}
	rn, err := raft.NewRawNode(&raft.Config{
		ID:                        id,
		Storage:                   wal,
		Applied:                   snap.GetMetadata().GetIndex(),
		ElectionTick:              electionTicks,
		HeartbeatTick:             heartbeatTicks,
		MaxSizePerMsg:             maxMessageSize,
		MaxInflightMsgs:           queueLength / 4,
		CheckQuorum:               true,
		PreVote:                   true,
		DisableProposalForwarding: true, // the parent asks the leader
		Logger:                    &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)},
	})
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	return rn, nil
}

// bootstrap stores who is in the group, if the log is brand new.
func bootstrap(wal *mmapwal.DiskStorage) error {
	_, cs, err := wal.InitialState()
	if err != nil || len(cs.GetVoters()) > 0 {
		return err
	}
	cs = &raftpb.ConfState{}
	for id := uint64(1); id <= nodes; id++ {
		cs.Voters = append(cs.Voters, id)
	}
	return wal.Save(nil, nil, &raftpb.Snapshot{
		Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(0)), Term: new(uint64(0)), ConfState: cs},
	})
}

// readRequests hands the parent's requests to the run loop.
func (n *node) readRequests(in *gob.Decoder) {
	defer close(n.requests)
	for {
		var r request
		if in.Decode(&r) != nil {
			return
		}
		n.requests <- r
	}
}

// run takes inputs, and does what raft makes of them, until an error.
func (n *node) run() error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		for n.raft.HasReady() {
			if err := n.handleReady(); err != nil {
				return err
			}
		}
		if err := n.tell(); err != nil {
			return err
		}
		if err := n.takeInputs(ticker.C); err != nil {
			return err
		}
	}
}

// takeInputs waits for one input, and takes those that are there already with it.
func (n *node) takeInputs(ticks <-chan time.Time) error {
	if err := n.takeInput(ticks); err != nil {
		return err
	}
	for range maxBatch {
		if len(n.requests) == 0 && len(n.peers.inbox) == 0 {
			return nil
		}
		if err := n.takeInput(ticks); err != nil { // does not wait: nobody else takes them
			return err
		}
	}
	return nil
}

// takeInput waits for one input and takes it.
func (n *node) takeInput(ticks <-chan time.Time) error {
	select {
	case <-ticks:
		n.raft.Tick()
	case m := <-n.peers.inbox:
		return n.step(m)
	case id := <-n.peers.lost:
		n.raft.ReportUnreachable(id)
	case r, ok := <-n.requests:
		if !ok {
			return errors.New("the parent is gone")
		}
		return n.obey(r)
	}
	return nil
}

// step gives a peer's message to raft, which may find that it comes too late.
func (n *node) step(m *raftpb.Message) error {
	if err := n.raft.Step(m); err != nil && !errors.Is(err, raft.ErrProposalDropped) && !errors.Is(err, raft.ErrStepPeerNotFound) {
		return fmt.Errorf("step %v from node %d: %w", m.GetType(), m.GetFrom(), err)
	}
	return nil
}

// obey does what the parent wants.
func (n *node) obey(r request) error {
	if r.Stop {
		return errStopped
	}
	n.peers.connect(r.Peers)
	for _, data := range r.Writes {
		err := n.raft.Propose(data)
		if errors.Is(err, raft.ErrProposalDropped) {
			return nil // not the leader any more; the parent asks another node
		}
		if err != nil {
			return fmt.Errorf("propose: %w", err)
		}
	}
	return nil
}

// handleReady stores before it sends, and sends before it applies.
func (n *node) handleReady() error {
	rd := n.raft.Ready()
	began := time.Now()
	if err := n.wal.Save(rd.HardState, rd.Entries, rd.Snapshot); err != nil {
		return fmt.Errorf("save: %w", err)
	}
	if rd.MustSync {
		n.next.Saves = append(n.next.Saves, time.Since(began))
	}
	if err := n.peers.send(rd.Messages); err != nil {
		return err
	}
	for _, e := range rd.CommittedEntries {
		_, applied, err := n.machine.apply(e)
		if err != nil {
			return fmt.Errorf("apply: %w", err)
		}
		if applied {
			n.next.Applied = append(n.next.Applied, e.GetIndex())
		}
		n.applied = e.GetIndex()
	}
	n.raft.Advance(rd)
	return nil
}

// tell reports what is new to the parent.
func (n *node) tell() error {
	last, err := n.wal.LastIndex()
	if err != nil {
		return err
	}
	s := n.raft.BasicStatus()
	n.next.Status = status{
		Term:    s.HardState.GetTerm(),
		Leading: s.RaftState == raft.StateLeader,
		Last:    last,
		Applied: n.applied,
	}
	if n.next.Hello == nil && n.next.Status == n.told && len(n.next.Saves) == 0 && len(n.next.Applied) == 0 {
		return nil
	}
	if err := n.out.Encode(n.next); err != nil {
		return fmt.Errorf("report to the parent: %w", err)
	}
	n.told = n.next.Status
	n.next = report{}
	return nil
}
