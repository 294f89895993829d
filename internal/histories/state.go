package histories

import (
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/raft/v3/raftpb"
)

// Entry is an entry. Its data is a function of its index and these.
type Entry struct {
	Term uint64
	Type raftpb.EntryType
	Size int // bytes of data
}

// Position names an entry.
type Position struct{ Index, Term uint64 }

// Hard is a hard state; zero: none.
type Hard struct{ Term, Vote, Commit uint64 }

// State is what a log holds.
type State struct {
	Hard       Hard
	Snap       Position
	SnapBytes  int
	Base       Position // the entry in front of the first
	Entries    []Entry
	Checkpoint uint64
	Cleared    uint64 // entries below it have no data; at most Snap.Index+1

	saved int // how many entries were, up to now
}

// Last returns the index of the last entry.
func (s *State) Last() uint64 { return s.Base.Index + uint64(len(s.Entries)) }

// At returns entry i, which is behind Base.
func (s *State) At(i uint64) Entry { return s.Entries[i-s.Base.Index-1] }

// Term returns the term of entry i, which is Base or behind it.
func (s *State) Term(i uint64) uint64 {
	if i == s.Base.Index {
		return s.Base.Term
	}
	return s.At(i).Term
}

// Commit returns the commit index as raft has it: a snapshot is committed.
func (s *State) Commit() uint64 { return max(s.Hard.Commit, s.Snap.Index) }

func (s *State) clone() *State {
	c := *s
	c.Entries = slices.Clone(s.Entries)
	return &c
}

// compact drops the entries up to i.
func (s *State) compact(i uint64) {
	if i > s.Base.Index && i <= s.Last() {
		term := s.Term(i)
		s.Entries = s.Entries[i-s.Base.Index:]
		s.Base = Position{i, term}
	}
}

// sameLog reports whether two states hold the same but for the hard state and the
// checkpoint.
func (s *State) sameLog(other *State) bool {
	return s.Snap == other.Snap && s.Base == other.Base && s.firstWithData() == other.firstWithData() &&
		slices.EqualFunc(s.Entries, other.Entries, func(a, b Entry) bool { return a.Term == b.Term })
}

// firstWithData returns the first index from which on all entries can be read: conf changes
// are not cleared.
func (s *State) firstWithData() uint64 {
	i := max(s.Base.Index+1, min(s.Cleared, s.Last()+1))
	for i > s.Base.Index+1 && s.At(i-1).Type != raftpb.EntryNormal {
		i--
	}
	return i
}

func (s *State) String() string {
	return fmt.Sprintf("hard %v, snapshot %v, behind %v terms %s, cleared below %d, checkpoint %d",
		s.Hard, s.Snap, s.Base, runs(s.Entries), s.Cleared, s.Checkpoint)
}

func (h Hard) String() string     { return fmt.Sprintf("%d/%d/%d", h.Term, h.Vote, h.Commit) }
func (p Position) String() string { return fmt.Sprintf("%d:%d", p.Index, p.Term) }

// runs writes terms shortly: 1x3 2 is 1, 1, 1, 2.
func runs(es []Entry) string {
	var out []string
	for k := 0; k < len(es); {
		n := k
		for n < len(es) && es[n].Term == es[k].Term {
			n++
		}
		word := fmt.Sprint(es[k].Term)
		if n > k+1 {
			word += fmt.Sprintf("x%d", n-k)
		}
		out = append(out, word)
		k = n
	}
	return "[" + strings.Join(out, " ") + "]"
}
