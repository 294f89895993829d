package histories

import (
	"fmt"
	"io"
	"log"
	"math"
	"math/rand/v2"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Record runs a group of three or five raft nodes in memory, under partitions, loss and
// reordering of messages, and deaths of nodes, and returns what each of them saved: a
// history for each. Nodes begin elections when they are told to, since the timeouts that
// raft draws cannot be seeded.
func Record(seed uint64) ([]Program, error) {
	r := rand.New(rand.NewPCG(seed, 17))
	c := &cluster{r: r, gen: NewGenerator(seed, false), async: r.IntN(2) == 0, loss: r.IntN(20), cuts: 1 + r.IntN(8)}
	for id := uint64(1); id <= uint64(3+2*r.IntN(2)); id++ {
		c.voters = append(c.voters, id)
	}
	for _, id := range c.voters {
		n := &node{c: c, id: id, mem: raft.NewMemoryStorage()}
		n.program.Open = c.gen.settings(Settings{})
		n.program.Open.Retain, n.program.Open.Async = uint64(r.IntN(2)*r.IntN(8)), false
		snap := &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(1)), Term: new(uint64(1)), ConfState: c.confState()}}
		n.save(&raftpb.HardState{Term: new(uint64(1)), Commit: new(uint64(1))}, nil, snap)
		n.start()
		c.nodes = append(c.nodes, n)
	}
	for range 60 + r.IntN(250) {
		c.round()
	}
	programs := make([]Program, 0, len(c.nodes))
	for _, n := range c.nodes {
		if n.err != nil {
			return nil, fmt.Errorf("node %d: %w", n.id, n.err)
		}
		programs = append(programs, n.program)
	}
	return programs, nil
}

// cluster is a group of nodes and its network.
type cluster struct {
	r          *rand.Rand
	gen        *Generator // makes up entries and settings
	async      bool       // raft's AsyncStorageWrites
	loss, cuts int        // of 100 messages, how many are lost; of 100 rounds, in how many there is a new partition
	voters     []uint64
	nodes      []*node
	net        []*raftpb.Message
	apart      map[uint64]bool // nodes on the other side of a partition
}

func (c *cluster) confState() *raftpb.ConfState { return &raftpb.ConfState{Voters: c.voters} }

// node is a node whose storage is in memory. What it saves is noted.
type node struct {
	c       *cluster
	id      uint64
	mem     *raft.MemoryStorage
	raw     *raft.RawNode
	hard    Hard
	applied uint64
	program Program
	err     error

	appends, applies []*raftpb.Message // for the local threads of async writes
}

// round disturbs the group, and lets each node do something.
func (c *cluster) round() {
	if c.r.IntN(100) < c.cuts {
		c.apart = make(map[uint64]bool)
		for _, id := range c.voters {
			c.apart[id] = c.r.IntN(2) == 0
		}
	}
	if c.r.IntN(100) < 3 {
		c.nodes[c.r.IntN(len(c.nodes))].restart()
	}
	if n := c.nodes[c.r.IntN(len(c.nodes))]; c.r.IntN(100) < 4 || !c.leads() && c.r.IntN(3) == 0 {
		n.note(n.raw.Campaign())
	}
	for _, n := range c.nodes {
		n.raw.Tick()
		if n.raw.BasicStatus().RaftState == raft.StateLeader && c.r.IntN(2) == 0 {
			for range 1 + c.r.IntN(c.gen.shape.batch) {
				_ = n.raw.Propose(make([]byte, c.gen.entry().Size)) // may be dropped
			}
		}
		n.process()
	}
	for range len(c.net) {
		c.deliver()
	}
}

func (c *cluster) leads() bool {
	return slices.ContainsFunc(c.nodes, func(n *node) bool { return n.raw.BasicStatus().RaftState == raft.StateLeader })
}

// deliver takes any message from the network and hands it over, loses it, or leaves it
// there.
func (c *cluster) deliver() {
	k := min(c.r.IntN(len(c.net)), c.r.IntN(len(c.net)))
	m := c.net[k]
	if c.r.IntN(10) == 0 {
		return
	}
	if c.r.IntN(50) > 0 { // else it comes once more
		c.net = slices.Delete(c.net, k, k+1)
	}
	lost := c.apart[m.GetFrom()] != c.apart[m.GetTo()] || c.r.IntN(100) < c.loss
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

func (n *node) note(err error) {
	if n.err == nil {
		n.err = err
	}
}

// start begins with what the storage holds.
func (n *node) start() {
	snap, err := n.mem.Snapshot()
	n.note(err)
	n.applied, n.appends, n.applies = snap.GetMetadata().GetIndex(), nil, nil
	n.raw, err = raft.NewRawNode(&raft.Config{
		ID: n.id, ElectionTick: 1 << 30, HeartbeatTick: 2, Storage: n.mem, Applied: n.applied,
		AsyncStorageWrites: n.c.async, MaxSizePerMsg: uint64(4 * n.c.gen.shape.unit), MaxInflightMsgs: 8,
		MaxCommittedSizePerReady: math.MaxUint64, MaxUncommittedEntriesSize: 1 << 30,
		Logger: &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)},
	})
	n.note(err)
}

func (n *node) restart() {
	c := Call{Kind: []Kind{Reopen, Kill, Kill}[n.c.r.IntN(3)], Open: n.program.Open}
	if n.c.gen.shape.changes {
		c.Open = n.c.gen.settings(Settings{Encrypted: n.program.Open.Encrypted})
		c.Open.Retain, c.Open.Async = n.program.Open.Retain, false
	}
	n.record(c)
	n.start()
}

// record notes a call, and what follows it.
func (n *node) record(c Call) {
	c.Seed, c.Turn = n.c.r.Uint64(), Turn(n.c.r.IntN(3))
	for k, share := range n.c.gen.shape.looks {
		if n.c.r.IntN(100) < share {
			c.Look |= 1 << k
		}
	}
	n.program.Calls = append(n.program.Calls, c)
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
	n.compact()
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
			n.note(n.raw.Step(m))
		default:
			n.c.net = append(n.c.net, m)
		}
	}
}

// runThreads does some of the work of the local threads: each in order, at its own pace.
func (n *node) runThreads() {
	for len(n.appends)+len(n.applies) > 0 && n.c.r.IntN(5) > 0 {
		if len(n.applies) == 0 || len(n.appends) > 0 && n.c.r.IntN(2) == 0 {
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

// save is what the log is to take.
func (n *node) save(h *raftpb.HardState, es []*raftpb.Entry, snap *raftpb.Snapshot) {
	c := Call{}
	if !raft.IsEmptySnap(snap) {
		n.note(n.mem.ApplySnapshot(snap))
		n.applied = max(n.applied, snap.GetMetadata().GetIndex())
		c.Snap, c.SnapBytes = Position{snap.GetMetadata().GetIndex(), snap.GetMetadata().GetTerm()}, len(snap.GetData())
		n.hard.Commit = max(n.hard.Commit, c.Snap.Index)
	}
	if len(es) > 0 {
		n.note(n.mem.Append(es))
		c.From = es[0].GetIndex()
		for _, e := range es {
			c.Entries = append(c.Entries, Entry{e.GetTerm(), e.GetType(), len(e.GetData())})
		}
	}
	if !raft.IsEmptyHardState(h) {
		n.note(n.mem.SetHardState(h))
		n.hard = Hard{h.GetTerm(), h.GetVote(), h.GetCommit()}
		c.Hard = n.hard
	}
	if c.Snap != (Position{}) || len(c.Entries) > 0 || c.Hard != (Hard{}) {
		n.record(c)
	}
}

func (n *node) apply(es []*raftpb.Entry) {
	if len(es) > 0 {
		n.applied = max(n.applied, es[len(es)-1].GetIndex())
	}
}

// compact makes a snapshot now and then, so that who lags has to be sent one.
func (n *node) compact() {
	snap, err := n.mem.Snapshot()
	n.note(err)
	at := min(n.applied, n.hard.Commit)
	if last, _ := n.mem.LastIndex(); at > last || at < snap.GetMetadata().GetIndex()+1+uint64(n.c.r.IntN(12)) || n.c.r.IntN(4) > 0 {
		return
	}
	c := Call{Kind: Create, At: at, SnapBytes: n.c.gen.snapBytes()}
	_, err = n.mem.CreateSnapshot(at, n.c.confState(), make([]byte, c.SnapBytes))
	n.note(err)
	first, err := n.mem.FirstIndex()
	n.note(err)
	if retain := n.program.Open.Retain; at > retain && at-retain >= first {
		n.note(n.mem.Compact(at - retain))
	}
	n.record(c)
}
