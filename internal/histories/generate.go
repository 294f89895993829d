package histories

import (
	"math/rand/v2"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// Generator makes up a history, call by call: what one node of a group is told by the
// leaders of the terms.
type Generator struct {
	r     *rand.Rand
	shape shape
	run   Settings

	term   uint64    // the highest of the group
	lead   []Entry   // the log of the present leader, from index 1 on
	fallen [][]Entry // those of earlier leaders
	moved  bool      // the commit index, by the last call
	agreed uint64    // entries of lead up to it are committed: all later leaders have them
}

// shape is what a history is like.
type shape struct {
	unit    int    // bytes of a file, about
	sizes   [4]int // of 100 entries, how many are small, of a few pages, of a part of a file, of about a file
	batch   int    // entries of a Save, at most
	agrees  int    // of 100 Saves, how many move the commit index on
	elects  int    // of 100 Saves with entries, how many are of a new leader
	tidies  int    // of 100 of those that move it on, how many are followed by a snapshot
	changes bool   // the settings change when a run begins
	looks   [7]int // of 100 calls, how many are followed by each Look
}

// NewGenerator returns the one of a seed. Each call is followed by all looks if all is set,
// else some are by some.
func NewGenerator(seed uint64, all bool) *Generator {
	r := rand.New(rand.NewPCG(seed, 16))
	g := &Generator{r: r}
	g.shape.unit = []int{minFileBytes, 2 * minFileBytes, 4 * minFileBytes, 4 * minFileBytes, 4 * minFileBytes, 4 * minFileBytes, 10 * minFileBytes, 1 << 20}[r.IntN(8)]
	g.shape.sizes = [][4]int{{60, 25, 12, 3}, {0, 10, 45, 45}, {10, 30, 60, 0}, {85, 13, 0, 2}, {30, 30, 20, 20}}[r.IntN(5)]
	g.shape.batch = []int{2, 4, 8, 20}[r.IntN(4)]
	g.shape.agrees = []int{4, 10, 20, 50}[r.IntN(4)]
	g.shape.elects = []int{10, 30, 60}[r.IntN(3)]
	g.shape.tidies = []int{0, 0, 30, 70}[r.IntN(4)]
	g.shape.changes = r.IntN(2) == 0
	g.shape.looks = [7]int{20, 15, 12, 12, 4, 3, 5}
	if all {
		g.shape.looks = [7]int{100, 100, 100, 100, 100, 100, 100}
	}
	g.run = g.settings(Settings{})
	return g
}

// Settings returns the options of the first run.
func (g *Generator) Settings() Settings { return g.run }

// settings returns options for a run that follows one with others.
func (g *Generator) settings(old Settings) Settings {
	policy := []Policy{HardSync, HardSync, HardSync, BatchSync, NoSync}[g.r.IntN(5)]
	return Settings{
		Policy:    policy,
		Async:     policy == HardSync && g.r.IntN(3) == 0 || g.r.IntN(8) == 0,
		Encrypted: old.Encrypted || g.r.IntN(6) == 0,
		Retain:    uint64(g.r.IntN(3) * g.r.IntN(12)),
		FileBytes: int64(g.shape.unit + g.r.IntN(3)*g.r.IntN(g.shape.unit)),
		Spares:    []int{0, -1, 1, 4}[g.r.IntN(4)],
		Cache:     []int64{0, -1, 2 << 20}[g.r.IntN(3)],
	}
}

// Length returns how many calls the history has.
func (g *Generator) Length() int { return 10 + g.r.IntN(1<<(4+g.r.IntN(4))) }

// Next returns the next call of a log that holds s.
func (g *Generator) Next(s *State) Call {
	var c Call
	if c = g.create(s); !g.moved || g.r.IntN(100) >= g.shape.tidies || c.At <= s.Snap.Index {
		c = g.choose(s)
	}
	g.moved = c.Hard.Commit > s.Commit()
	if r := g.r; !c.begins() && r.IntN(40) == 0 {
		c.Step = 1 + r.IntN(1<<(1+r.IntN(5)))
	}
	if !c.begins() && c.Kind <= Truncate && g.r.IntN(25) == 0 {
		c.Fail = NoDescriptors + Fail(g.r.IntN(2))
	}
	if c.begins() {
		if g.shape.changes {
			g.run = g.settings(g.run)
		}
		if c.Open = g.run; g.r.IntN(4) == 0 {
			c.OpenStep = 1 + g.r.IntN(1<<(1+g.r.IntN(6)))
		}
	}
	c.Turn, c.Seed = Turn(g.r.IntN(3)), g.r.Uint64()
	for k, n := range g.shape.looks {
		if c.Kind == Create || c.Kind == Compact {
			n *= 3 // something may be gone that counts
		}
		if g.r.IntN(100) < n {
			c.Look |= 1 << k
		}
	}
	return c
}

// choose picks what is possible.
func (g *Generator) choose(s *State) Call {
	for {
		var c Call
		switch n := g.r.IntN(100); {
		case n < 56:
			if g.r.IntN(100) < g.shape.elects {
				g.elect()
			}
			c = g.append(s)
		case n < 61:
			c = g.commit(s)
		case n < 64:
			g.term++
			g.unseat()
			c = Call{Hard: g.hard(s, s.Commit())}
		case n < 70:
			c = g.install(s)
		case n < 79:
			c = g.create(s)
		case n < 84:
			c = Call{Kind: Compact, At: s.Base.Index + 1 + g.upTo(s.Snap.Index-s.Base.Index)}
		case n < 87:
			c = Call{Kind: Truncate, At: s.Base.Index + 2 + g.upTo(s.Snap.Index-s.Base.Index)}
		case n < 89:
			c = Call{Kind: Checkpoint, At: s.Checkpoint + 1}
		case n < 91:
			c = Call{Kind: Sync}
		case n < 94:
			c = Call{Kind: Reopen}
		case n < 98:
			c = Call{Kind: Kill}
		default:
			c = Call{Kind: Cut}
		}
		if c, ok := c.fit(s); ok {
			return c
		}
	}
}

// create is a snapshot of an entry that is committed, if there is one.
func (g *Generator) create(s *State) Call {
	at := s.Snap.Index
	if commit := min(s.Commit(), s.Last()); commit > at {
		at += 1 + g.upTo(commit-at)
	}
	return Call{Kind: Create, At: at, SnapBytes: g.snapBytes()}
}

// upTo returns a number below n, 0 if n is; often the highest.
func (g *Generator) upTo(n uint64) uint64 {
	switch {
	case n == 0:
		return 0
	case g.r.IntN(3) == 0:
		return n - 1
	}
	return g.r.Uint64N(n)
}

func (g *Generator) snapBytes() int { return []int{0, 10, 1900, 4000, 40_000}[g.r.IntN(5)] }

// entry makes up an entry of the leader.
func (g *Generator) entry() Entry {
	e := Entry{Term: g.term}
	n, class := g.r.IntN(100), 0
	for n >= g.shape.sizes[class] {
		n -= g.shape.sizes[class]
		class++
	}
	unit := g.shape.unit
	switch class {
	case 0:
		e.Size = g.r.IntN(300)
	case 1:
		e.Size = unit/32 + g.r.IntN(unit/20)
	case 2:
		e.Size = unit/10 + g.r.IntN(unit/2)
	default:
		e.Size = []int{unit - 200 + g.r.IntN(250), unit * 2 / 3, unit + g.r.IntN(unit/3)}[g.r.IntN(3)]
	}
	if e.Size < 300 && g.r.IntN(10) == 0 {
		e.Type = []raftpb.EntryType{raftpb.EntryConfChange, raftpb.EntryConfChangeV2}[g.r.IntN(2)]
	}
	return e
}

// unseat leaves the term without a leader.
func (g *Generator) unseat() {
	g.fallen = append(g.fallen, slices.Clone(g.lead))
	if len(g.fallen) > 6 {
		g.fallen = slices.Delete(g.fallen, 0, 1)
	}
}

// elect makes a leader of a new term: of its log, the committed entries are certain. It
// begins with an entry of its own.
func (g *Generator) elect() {
	g.unseat()
	agreed := g.lead[:g.agreed]
	var from [][]Entry
	for _, log := range g.fallen {
		if uint64(len(log)) >= g.agreed && slices.Equal(log[:g.agreed], agreed) {
			from = append(from, log)
		}
	}
	log := from[g.r.IntN(len(from))]
	keep := len(log)
	if g.r.IntN(4) > 0 {
		keep = int(g.agreed) + g.r.IntN(len(log)-int(g.agreed)+1)
	}
	g.term += 1 + uint64(g.r.IntN(2))
	g.lead = append(slices.Clone(log[:keep]), g.entry())
}

// leads: the present term has a leader.
func (g *Generator) leads() bool { return len(g.lead) > 0 && g.lead[len(g.lead)-1].Term == g.term }

// same returns how far a log that holds s is that of the leader.
func (g *Generator) same(s *State) uint64 {
	i := s.Base.Index
	for i < s.Last() && i < uint64(len(g.lead)) && g.lead[i].Term == s.At(i+1).Term {
		i++
	}
	return i
}

// append is entries of the leader, from the first on that the log does not have.
func (g *Generator) append(s *State) Call {
	if !g.leads() {
		g.elect()
	}
	for range g.r.IntN(g.shape.batch) {
		g.lead = append(g.lead, g.entry())
	}
	c := Call{From: g.same(s) + 1}
	if c.From > uint64(len(g.lead)) {
		g.lead = append(g.lead, g.entry())
	}
	count := min(1+g.r.IntN(g.shape.batch+1), len(g.lead)-int(c.From)+1)
	if g.r.IntN(3) == 0 {
		count = len(g.lead) - int(c.From) + 1
	}
	c.Entries = slices.Clone(g.lead[c.From-1:][:count])
	end := c.From + uint64(count) - 1
	c.Hard = g.hard(s, g.agree(s, end))
	if c.Hard == s.Hard && g.r.IntN(2) == 0 {
		c.Hard = Hard{}
	}
	return c
}

// agree moves the commit index on, up to end at most, or leaves it.
func (g *Generator) agree(s *State, end uint64) uint64 {
	commit := s.Commit()
	if end > commit && g.r.IntN(100) < g.shape.agrees {
		commit += 1 + g.upTo(end-commit)
	}
	g.agreed = max(g.agreed, commit)
	return commit
}

func (g *Generator) hard(s *State, commit uint64) Hard {
	h := Hard{Term: g.term, Vote: s.Hard.Vote, Commit: commit}
	if s.Hard.Term != g.term || h.Vote == 0 {
		h.Vote = uint64(g.r.IntN(4))
	}
	return h
}

func (g *Generator) commit(s *State) Call {
	if !g.leads() {
		return Call{At: 1} // nothing to do
	}
	return Call{Hard: g.hard(s, g.agree(s, g.same(s)))}
}

// install is a snapshot of the leader, of entries that the log may have or not, and
// entries behind it.
func (g *Generator) install(s *State) Call {
	if !g.leads() || g.r.IntN(3) == 0 {
		g.elect()
	}
	at := s.Commit() + 1
	switch inside := min(s.Last(), uint64(len(g.lead))); {
	case at <= inside && g.r.IntN(2) == 0:
		at += g.r.Uint64N(inside - at + 1)
	default:
		at = max(at, uint64(len(g.lead))) + g.r.Uint64N(5)
	}
	for uint64(len(g.lead)) < at {
		g.lead = append(g.lead, g.entry())
	}
	c := Call{Snap: Position{at, g.lead[at-1].Term}, SnapBytes: g.snapBytes(), From: at + 1}
	g.agreed = max(g.agreed, at)
	for range g.r.IntN(2) * g.r.IntN(4) {
		if c.From+uint64(len(c.Entries)) > uint64(len(g.lead)) {
			g.lead = append(g.lead, g.entry())
		}
		c.Entries = append(c.Entries, g.lead[c.From+uint64(len(c.Entries))-1])
	}
	c.Hard = g.hard(s, at+g.r.Uint64N(uint64(len(c.Entries))+1))
	g.agreed = max(g.agreed, c.Hard.Commit)
	return c
}
