package powercut

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// noted is what wal.meta stores without a sync.
type noted struct {
	hard       [3]uint64
	checkpoint uint64
	entries    *oracle.Model // those that the commit index is about
}

func notedOf(m *oracle.Model) noted { return noted{m.Hard, m.Checkpoint, m} }

// commits reports whether m has the entries that the commit index is about, as far as
// it reaches: of others it must not say that they are committed.
func (n noted) commits(m *oracle.Model) bool {
	from := max(m.Base[0], n.entries.Base[0])
	for i := from + 1; i <= min(n.hard[2], m.Last(), n.entries.Last()); i++ {
		if m.Term(i) != n.entries.Term(i) {
			return false
		}
	}
	return true
}

// expectation is what a power cut may leave: one of the models, with the hard
// state and the checkpoint of one of those noted.
type expectation struct {
	models []*oracle.Model
	noted  []noted
}

// exactly: all of m is durable.
func exactly(m *oracle.Model) expectation {
	return expectation{[]*oracle.Model{m}, []noted{notedOf(m)}}
}

// begun returns what may be there while op is under way.
func (e expectation) begun(op *oracle.Op, outcomes []*oracle.Model) expectation {
	models := slices.Concat(e.models, outcomes[1:])
	if op.Truncate > 0 {
		models = append(models, cleared(models, op.Truncate)...)
	}
	notes := slices.Clone(e.noted)
	add := func(n noted) {
		if !slices.Contains(notes, n) {
			notes = append(notes, n)
		}
	}
	if op.Checkpoint > 0 { // beside a commit index that waits for its entries
		for _, n := range e.noted {
			add(noted{n.hard, op.Checkpoint, n.entries})
		}
	}
	add(notedOf(outcomes[len(outcomes)-1]))
	return expectation{models, notes}
}

// cleared returns the models after a TruncateEntriesUntil.
func cleared(models []*oracle.Model, below uint64) (after []*oracle.Model) {
	for _, m := range models {
		m = m.Clone()
		m.Cleared = max(m.Cleared, below)
		after = append(after, m)
	}
	return after
}

// done returns what may be there when op has returned, on a log that held before
// and now holds after. e is what was there when it began, all what was while it
// was under way.
func (e expectation) done(op *oracle.Op, before, after *oracle.Model, all expectation, noSync bool) expectation {
	now := all
	switch {
	case op.Truncate > 0 && op.Truncate <= max(before.Cleared, before.Base[0]+1): // nothing to do
	case op.Truncate > 0:
		now = expectation{append(cleared(e.models, op.Truncate), after), []noted{notedOf(after)}}
	case op.Create > 0 || op.Snap[0] > 0 || op.Compact > 0:
		now = expectation{[]*oracle.Model{after}, []noted{notedOf(before), notedOf(after)}}
		if noSync && op.Snap[0] > 0 { // the entries behind it are not synced
			now.models = op.Outcomes(before)[1:]
		}
	case !noSync:
		now.models = []*oracle.Model{after}
	}
	if !noSync && (before.Hard[0] != after.Hard[0] || before.Hard[1] != after.Hard[1]) {
		now.noted = []noted{notedOf(after)}
	}
	return now
}

// sum tells expectations apart.
func (e expectation) sum() uint64 {
	h := fnv.New64a()
	for _, m := range e.models {
		fmt.Fprintln(h, m.Brief(), m.Retain)
	}
	for _, n := range e.noted {
		fmt.Fprintln(h, n.hard, n.checkpoint, n.entries.Brief())
	}
	return h.Sum64()
}

func (e expectation) String() string {
	var out strings.Builder
	for _, m := range e.models {
		fmt.Fprintln(&out, m.Brief())
	}
	for _, n := range e.noted {
		fmt.Fprintf(&out, "with hard state %v and checkpoint %d\n", n.hard, n.checkpoint)
	}
	return out.String()
}

// match compares a log with what may be there, and returns the model that it
// holds.
func (e expectation) match(d *mmapwal.DiskStorage, noSync bool) (*oracle.Model, error) {
	got, err := oracle.Read(d)
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	for _, m := range slices.Backward(e.models) {
		if !m.SameEntries(got) || !e.fits(m, got, noSync) {
			continue
		}
		want := m.Clone()
		want.Hard, want.Checkpoint = got.Hard, got.Checkpoint
		if err = want.CheckContent(d); err == nil {
			return want, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the log is\n%s\nbut for: %w", got.Brief(), err)
	}
	return nil, fmt.Errorf("the log is\n%s\nwant one of\n%v", got.Brief(), e)
}

// fits reports whether the hard state and checkpoint of got were noted, with the commit
// index put inside the log; and whether m has what that commits. Under NoSync the hard state is of
// the time of m or before.
func (e expectation) fits(m, got *oracle.Model, noSync bool) bool {
	known := slices.ContainsFunc(e.noted, func(n noted) bool { return n.checkpoint == got.Checkpoint })
	return known && slices.ContainsFunc(e.noted, func(n noted) bool {
		hard := n.hard
		if hard[0] > 0 {
			hard[2] = min(max(hard[2], m.Snap[0]), m.Last())
		}
		if noSync {
			return hard == got.Hard && n.commits(m) && !e.later(n.entries, m)
		}
		return hard == got.Hard && n.checkpoint == got.Checkpoint && n.commits(m)
	})
}

// later reports whether the log held a after it held b.
func (e expectation) later(a, b *oracle.Model) bool {
	return slices.Index(e.models, a) > slices.Index(e.models, b)
}
