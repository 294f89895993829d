package histories

import (
	"fmt"
	"testing"
)

// made counts what the generator is there to make.
type made struct {
	saves, conflicts, deeper, again, back int
	inside, matching, beyond              int
	snapshots, compactions, retained      int
}

// TestGenerator checks that what the generator makes is legal, by rules of its own, and that it
// makes all that it is there for.
func TestGenerator(t *testing.T) {
	var sum made
	for seed := uint64(1); seed <= 200; seed++ {
		g := NewGenerator(seed, false)
		l := &legality{made: &sum, commit: 0, entries: make(map[Position]string), votes: make(map[uint64]uint64)}
		s := new(State)
		for range g.Length() {
			c := g.Next(s)
			if err := l.check(&c, s); err != nil {
				t.Fatalf("SEED=%d: %v, on %v: %v", seed, c, s, err)
			}
			all := c.outcomes(s, g.run.Retain)
			s = all[len(all)-1]
		}
	}
	t.Logf("%+v", sum)
	for what, n := range map[string]int{
		"conflicts": sum.conflicts, "conflicts deeper than the one before": sum.deeper, "conflicts at an entry that had replaced one": sum.again,
		"entries that are back": sum.back, "snapshots inside the log": sum.inside, "those of its own entry": sum.matching,
		"beyond the log": sum.beyond, "snapshots": sum.snapshots, "compactions": sum.compactions, "with retained entries": sum.retained,
	} {
		if n < 50 {
			t.Errorf("only %d %s", n, what)
		}
	}
}

// legality is what raft keeps to.
type legality struct {
	made    *made
	commit  uint64
	term    uint64
	entries map[Position]string // entry and the term in front of it, by index and term
	votes   map[uint64]uint64   // by term
	from    uint64              // of the last conflict
	fresh   map[uint64]bool     // entries that replaced others, and are not committed
}

func (l *legality) check(c *Call, s *State) error {
	l.count(c, s)
	if c.Kind == Create && c.At > l.commit || c.Kind == Compact && c.At > s.Snap.Index || c.Kind == Truncate && c.At > s.Snap.Index+1 {
		return fmt.Errorf("beyond what is committed or covered")
	}
	if c.Kind != Save {
		return nil
	}
	last, term := s.Last(), s.Term(s.Last())
	if c.Snap != (Position{}) {
		if c.Snap.Index <= l.commit || c.Snap.Term > c.Hard.Term {
			return fmt.Errorf("a snapshot of the past, or of the future")
		}
		last, term, l.commit = c.Snap.Index, c.Snap.Term, c.Snap.Index
	}
	if len(c.Entries) > 0 {
		if c.From <= l.commit || c.From > last+1 {
			return fmt.Errorf("committed entries are replaced, or there is a gap")
		}
		if c.From <= s.Last() && c.Snap == (Position{}) {
			term = s.Term(c.From - 1)
		}
		last = c.From + uint64(len(c.Entries)) - 1
	}
	for k, e := range c.Entries {
		i, what := c.From+uint64(k), fmt.Sprint(e, term)
		if old := l.entries[Position{i, e.Term}]; e.Term < term || old != "" && old != what {
			return fmt.Errorf("entry %d: %s, and before %s", i, what, old)
		}
		l.entries[Position{i, e.Term}], term = what, e.Term
	}
	return l.checkHard(c.Hard, last, term)
}

func (l *legality) checkHard(h Hard, last, term uint64) error {
	if h == (Hard{}) {
		if term > l.term {
			return fmt.Errorf("entries of a term that was not saved")
		}
		return nil
	}
	if h.Term < l.term || h.Term < term || h.Commit < l.commit || h.Commit > last || l.votes[h.Term] != 0 && l.votes[h.Term] != h.Vote {
		return fmt.Errorf("hard state, after term %d, commit %d, vote %d", l.term, l.commit, l.votes[h.Term])
	}
	l.term, l.commit, l.votes[h.Term] = h.Term, h.Commit, h.Vote
	return nil
}

// count notes what the call is an example of.
func (l *legality) count(c *Call, s *State) {
	m := l.made
	switch {
	case c.Kind == Create:
		m.snapshots++
	case c.Kind == Compact:
		m.compactions++
	case c.Snap.Index > s.Last():
		m.beyond++
	case c.Snap != (Position{}):
		m.inside++
		if s.Term(c.Snap.Index) == c.Snap.Term {
			m.matching++
		}
	case c.Kind == Save:
		m.saves++
		l.countConflict(c, s)
	}
	if s.Snap.Index > s.Base.Index {
		m.retained++
	}
}

func (l *legality) countConflict(c *Call, s *State) {
	if len(c.Entries) == 0 || c.From > s.Last() {
		return
	}
	l.made.conflicts++
	if c.From < l.from && c.From > l.commit {
		l.made.deeper++
	}
	if l.fresh[c.From] {
		l.made.again++
	}
	if l.from = c.From; l.fresh == nil {
		l.fresh = make(map[uint64]bool)
	}
	l.fresh[c.From] = true
	for k, e := range c.Entries {
		if l.entries[Position{c.From + uint64(k), e.Term}] != "" {
			l.made.back++
		}
	}
}
