package mmapwal_test

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"log"
	"log/slog"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// TestCluster runs three Raft nodes with a network that loses and reorders
// messages, partitions, and nodes that die and come back, on DiskStorage; with
// SEED as in TestModel.
func TestCluster(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4}
	if seed := envUint(t, "SEED", 0); seed != 0 {
		seeds = []uint64{seed}
	}
	for _, async := range []bool{false, true} {
		snapshots := 0
		for _, seed := range seeds {
			t.Run(fmt.Sprintf("async=%v/seed=%d", async, seed), func(t *testing.T) {
				snapshots += runCluster(t, seed, async, int(envUint(t, "STEPS", 800)))
			})
		}
		if snapshots == 0 && !t.Failed() {
			t.Errorf("async=%v: no node was ever sent a snapshot", async)
		}
	}
}

// cluster draws all chance from rng. Elections start by Campaign only, since the
// timeouts that raft draws itself cannot be seeded.
type cluster struct {
	t         *testing.T
	rng       *rand.Rand
	async     bool
	root      string
	runs      int
	nodes     []*node
	net       []*raftpb.Message
	calm      bool   // no more losses
	cut       uint64 // the node that is partitioned away; 0: none
	proposed  uint64
	installed int // snapshots that nodes took from others

	// committed is the state after each index as the first node to apply it had
	// it: what any client may have been told.
	committed []uint64
	payloads  map[uint64]bool // proposals that were applied, by their number
}

// node is a Raft node with a state machine: a hash over all that was applied.
type node struct {
	c       *cluster
	id      uint64
	dir     string
	disk    *mmapwal.DiskStorage
	raw     *raft.RawNode
	applied uint64
	state   uint64

	appends, applies []*raftpb.Message // for the local threads of async writes
}

func runCluster(t *testing.T, seed uint64, async bool, rounds int) int {
	t.Logf("SEED=%d STEPS=%d", seed, rounds)
	c := &cluster{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), async: async, root: t.TempDir(),
		committed: []uint64{0}, payloads: make(map[uint64]bool),
	}
	defer func() {
		if t.Failed() {
			t.Logf("SEED=%d STEPS=%d", seed, rounds)
		}
	}()
	for id := uint64(1); id <= 3; id++ {
		n := &node{c: c, id: id, dir: c.newDir()}
		n.open()
		c.must(n.disk.Save(nil, nil, &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
			ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}},
		}}))
		n.start()
		c.nodes = append(c.nodes, n)
	}
	for range rounds {
		c.disturb()
		c.round()
	}
	c.settle()
	return c.installed
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) chance(p float64) bool { return c.rng.Float64() < p }

func (c *cluster) newDir() string {
	c.runs++
	return filepath.Join(c.root, fmt.Sprint("run", c.runs))
}

// disturb partitions, heals, restarts and starts elections.
func (c *cluster) disturb() {
	if c.chance(0.02) {
		c.cut = c.rng.Uint64N(4)
	}
	if c.chance(0.01) {
		c.nodes[c.rng.IntN(3)].restart()
	}
	if c.leader() == nil && c.chance(0.3) || c.chance(0.01) {
		c.must(c.nodes[c.rng.IntN(3)].raw.Campaign())
	}
}

// leader returns the leader of the newest term, if there is one.
func (c *cluster) leader() (leader *node) {
	newest := uint64(0)
	for _, n := range c.nodes {
		s := n.raw.BasicStatus()
		if s.GetTerm() > newest {
			newest, leader = s.GetTerm(), nil
		}
		if s.GetTerm() == newest && s.RaftState == raft.StateLeader {
			leader = n
		}
	}
	return leader
}

func (c *cluster) round() {
	for _, n := range c.nodes {
		n.raw.Tick()
		if n.raw.BasicStatus().RaftState == raft.StateLeader && c.chance(0.7) {
			n.propose()
		}
		n.process()
	}
	for range len(c.net) {
		c.deliver()
	}
}

// deliver takes any message from the network and hands it over, or loses it.
func (c *cluster) deliver() {
	k := c.rng.IntN(len(c.net))
	if c.calm {
		k = 0
	}
	m := c.net[k]
	c.net = append(c.net[:k], c.net[k+1:]...)
	partitioned := m.GetFrom() == c.cut || m.GetTo() == c.cut
	lost := !c.calm && (partitioned || c.chance(0.05))
	if !lost {
		_ = c.nodes[m.GetTo()-1].raw.Step(proto.Clone(m).(*raftpb.Message)) // raft may refuse it
	}
	if m.GetType() == raftpb.MsgSnap {
		status := raft.SnapshotFinish
		if lost {
			status = raft.SnapshotFailure
		}
		c.nodes[m.GetFrom()-1].raw.ReportSnapshot(m.GetTo(), status)
	}
}

// settle lets the cluster come to rest and compares the nodes.
func (c *cluster) settle() {
	c.calm = true
	for range 1000 {
		if c.leader() == nil && c.chance(0.1) {
			c.must(c.nodes[c.rng.IntN(3)].raw.Campaign())
		}
		for _, n := range c.nodes {
			n.raw.Tick()
			n.process()
		}
		for range len(c.net) {
			c.deliver()
		}
		if c.atRest() {
			break
		}
	}
	last := uint64(len(c.committed) - 1)
	for _, n := range c.nodes {
		if n.applied != last {
			c.t.Errorf("node %d applied %d of %d entries", n.id, n.applied, last)
		}
		c.must(n.disk.Close())
	}
	if len(c.payloads) < 50 {
		c.t.Errorf("only %d proposals came through: the run shows little", len(c.payloads))
	}
}

func (c *cluster) atRest() bool {
	if c.leader() == nil {
		return false
	}
	for _, n := range c.nodes {
		s := n.raw.BasicStatus()
		last, err := n.disk.LastIndex()
		c.must(err)
		if n.applied != uint64(len(c.committed)-1) || n.applied != last || s.GetCommit() != last {
			return false
		}
	}
	return true
}

// Nodes.

func (n *node) open() {
	opts := &mmapwal.Options{FileDataSize: 1 << 20, RetainEntries: 5, Logger: slog.New(slog.DiscardHandler)}
	if n.c.chance(0.5) {
		opts.Sync = mmapwal.NoSync
	}
	d, err := mmapwal.Open(n.dir, opts)
	n.c.must(err)
	n.disk = d
}

// start begins with what the disk holds.
func (n *node) start() {
	snap, err := n.disk.Snapshot()
	n.c.must(err)
	n.applied, n.state, n.appends, n.applies = 0, 0, nil, nil
	n.restore(snap)
	n.raw, err = raft.NewRawNode(&raft.Config{
		ID: n.id, ElectionTick: 1 << 30, HeartbeatTick: 2, Storage: n.disk, Applied: n.applied,
		AsyncStorageWrites: n.c.async, MaxSizePerMsg: 4096, MaxInflightMsgs: 16,
		MaxCommittedSizePerReady: math.MaxUint64, MaxUncommittedEntriesSize: 1 << 20,
		Logger: &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)},
	})
	n.c.must(err)
}

// restart goes on with what the files hold, after Close or without.
func (n *node) restart() {
	old, from := n.disk, n.dir
	if n.c.chance(0.4) {
		n.c.must(old.Close())
		n.open()
	} else {
		n.dir = n.c.newDir()
		n.c.must(copyDir(from, n.dir))
		n.open()
		n.c.must(old.Close())
	}
	n.start()
}

func (n *node) propose() {
	n.c.proposed++
	data := make([]byte, 8+n.c.rng.IntN(3000))
	binary.BigEndian.PutUint64(data, n.c.proposed)
	_ = n.raw.Propose(data) // may be dropped
}

// process does what raft wants done.
func (n *node) process() {
	for n.raw.HasReady() {
		rd := n.raw.Ready()
		if n.c.async {
			n.dispatch(rd.Messages)
			continue
		}
		n.save(rd.HardState, rd.Entries, rd.Snapshot)
		n.c.net = append(n.c.net, rd.Messages...)
		n.apply(rd.CommittedEntries)
		n.raw.Advance(rd)
	}
	n.runThreads()
	n.maybeSnapshot()
}

// dispatch sends each message where it belongs.
func (n *node) dispatch(ms []*raftpb.Message) {
	for _, m := range ms {
		switch m.GetTo() {
		case raft.LocalAppendThread:
			n.appends = append(n.appends, m)
		case raft.LocalApplyThread:
			n.applies = append(n.applies, m)
		case n.id:
			n.c.must(n.raw.Step(m))
		default:
			n.c.net = append(n.c.net, m)
		}
	}
}

// runThreads does some of the work of the local threads: each in order, but the
// two at their own pace.
func (n *node) runThreads() {
	for len(n.appends)+len(n.applies) > 0 && (n.c.calm || n.c.chance(0.8)) {
		if len(n.applies) == 0 || len(n.appends) > 0 && n.c.chance(0.5) {
			m := n.appends[0]
			n.appends = n.appends[1:]
			n.save(&raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}, m.GetEntries(), m.GetSnapshot())
			n.dispatch(m.GetResponses())
			continue
		}
		m := n.applies[0]
		n.applies = n.applies[1:]
		n.apply(m.GetEntries())
		n.dispatch(m.GetResponses())
	}
}

func (n *node) save(h *raftpb.HardState, es []*raftpb.Entry, snap *raftpb.Snapshot) {
	n.c.must(n.disk.Save(h, es, snap))
	if !raft.IsEmptySnap(snap) {
		n.c.installed++
		n.restore(snap)
	}
}

// restore makes the snapshot the state machine; it must be one that the group
// went through.
func (n *node) restore(snap *raftpb.Snapshot) {
	i := snap.GetMetadata().GetIndex()
	if i <= n.applied {
		return
	}
	n.applied, n.state = i, binary.BigEndian.Uint64(snap.GetData())
	n.checkState()
}

func (n *node) apply(es []*raftpb.Entry) {
	for _, e := range es {
		if e.GetIndex() <= n.applied {
			continue // a snapshot was faster
		}
		if e.GetIndex() != n.applied+1 {
			n.c.t.Fatalf("node %d is to apply entry %d after %d", n.id, e.GetIndex(), n.applied)
		}
		n.applied++
		h := fnv.New64a()
		_ = binary.Write(h, binary.BigEndian, []uint64{n.state, e.GetIndex(), e.GetTerm()})
		_, _ = h.Write(e.GetData())
		n.state = h.Sum64()
		if len(e.GetData()) > 0 {
			n.c.payloads[binary.BigEndian.Uint64(e.GetData())] = true
		}
		n.checkState()
	}
}

// checkState: what one node has applied, all others apply.
func (n *node) checkState() {
	c := n.c
	if n.applied == uint64(len(c.committed)) {
		c.committed = append(c.committed, n.state)
	}
	if n.applied > uint64(len(c.committed)) || c.committed[n.applied] != n.state {
		c.t.Fatalf("node %d is in another state at entry %d than the node that applied it first", n.id, n.applied)
	}
}

// maybeSnapshot compacts, so that who lags has to be sent a snapshot.
func (n *node) maybeSnapshot() {
	if n.applied < n.disk.Uint(mmapwal.SnapshotIndex)+10 || !n.c.chance(0.1) {
		return
	}
	data := make([]byte, 8+n.c.rng.IntN(4000)) // inside of wal.meta or in a file
	binary.BigEndian.PutUint64(data, n.state)
	n.c.must(n.disk.CreateSnapshot(n.applied, nil, data))
}
