package histories

import (
	"fmt"
	"slices"
	"strings"
)

// note is a hard state and a checkpoint as they were stored, and the log that they are
// about.
type note struct{ about *State }

// commits reports whether a log has the entries that the note's commit index is about, as
// far as it reaches: of others it must not say that they are committed.
func (n note) commits(s *State) bool {
	for i := max(s.Base.Index, n.about.Base.Index) + 1; i <= min(n.about.Hard.Commit, s.Last(), n.about.Last()); i++ {
		if s.Term(i) != n.about.Term(i) {
			return false
		}
	}
	return true
}

// expectation is what a power cut may leave: one of the logs, with a hard state and a
// checkpoint of one of the notes.
type expectation struct {
	logs  []*State // the last one is the newest
	notes []note
}

// exactly: all is durable.
func exactly(s *State) expectation { return expectation{[]*State{s}, []note{{s}}} }

// begun returns what may be there while a call is under way.
func (e expectation) begun(c *Call, outcomes []*State) expectation {
	logs := slices.Concat(e.logs, outcomes[1:])
	if c.Kind == Truncate {
		for _, s := range e.logs {
			s = s.clone()
			s.Cleared = c.At
			logs = append(logs, s)
		}
	}
	notes := slices.Clone(e.notes)
	if c.Kind == Checkpoint { // beside a commit index that waits for its entries
		for _, n := range e.notes {
			s := n.about.clone()
			s.Checkpoint = c.At
			notes = append(notes, note{s})
		}
	}
	return expectation{logs, append(notes, note{outcomes[len(outcomes)-1]})}
}

// done returns what may be there when a call has returned. e is what was there before it,
// all what was while it was under way.
func (e expectation) done(c *Call, outcomes []*State, all expectation, run Settings) expectation {
	before, after := outcomes[0], outcomes[len(outcomes)-1]
	now := all
	switch {
	case c.Kind == Sync || c.Kind == Reopen:
		return exactly(after)
	case c.Kind == Create || c.Kind == Compact || c.Snap != (Position{}):
		now = expectation{[]*State{after}, []note{{before}, {after}}}
		if c.Snap != (Position{}) && !run.syncs() { // the entries behind it are not synced
			now.logs = outcomes[1:]
		}
	case c.Kind == Truncate:
		now = expectation{append(all.logs[len(e.logs)+1:], after), all.notes}
	case run.syncs():
		now.logs = []*State{after}
	}
	if run.Policy == BatchSync { // takes so many entries at most
		now.logs = slices.DeleteFunc(slices.Clone(now.logs), func(s *State) bool { return s.saved+batchEntries < after.saved })
	}
	if run.Policy != NoSync && (before.Hard.Term != after.Hard.Term || before.Hard.Vote != after.Hard.Vote) {
		return exactly(after)
	}
	return now
}

// syncs: what Save returned nil for is durable.
func (s Settings) syncs() bool { return s.Policy == HardSync && !s.Async }

// match returns the state that a log holds of which got was read, an error if it is none of
// those expected.
func (e expectation) match(got *State) (*State, error) {
	for _, s := range slices.Backward(e.logs) {
		if s.sameLog(got) && e.fits(s, got) {
			s = s.clone()
			s.Hard, s.Checkpoint = got.Hard, got.Checkpoint
			return s, nil
		}
	}
	return nil, fmt.Errorf("the log holds\n\t%v\nexpected is one of\n%v", got, e)
}

// fits reports whether the hard state and checkpoint of got were noted, the commit index
// put inside the log, and whether the log has what that commits.
func (e expectation) fits(s, got *State) bool {
	return slices.ContainsFunc(e.notes, func(n note) bool {
		hard := n.about.Hard
		if hard != (Hard{}) {
			hard.Commit = min(max(hard.Commit, s.Snap.Index), s.Last())
		}
		return hard == got.Hard && n.about.Checkpoint == got.Checkpoint && n.commits(s)
	})
}

func (e expectation) String() string {
	var out strings.Builder
	for _, s := range e.logs {
		fmt.Fprintf(&out, "\t%v\n", s)
	}
	for _, n := range e.notes {
		fmt.Fprintf(&out, "\twith hard %v, checkpoint %d of a log up to %d\n", n.about.Hard, n.about.Checkpoint, n.about.Last())
	}
	return out.String()
}
