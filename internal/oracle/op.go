package oracle

import (
	"math/rand/v2"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// Op is one call of a log: a Save, or the one of the last group that is set.
type Op struct {
	Hard  [3]uint64 // term, vote, commit
	From  uint64    // first entry
	Terms []uint64  // of the entries
	Snap  [2]uint64 // index and term of a snapshot, which replaces the log

	Create     uint64 // CreateSnapshot at this index
	Checkpoint uint64 // SetUint
	Compact    uint64 // Compact
	Truncate   uint64 // TruncateEntriesUntil
}

// Next picks a call as raft would make it.
func Next(r *rand.Rand, m *Model) Op {
	op := Op{Hard: m.Hard}
	commit, last := max(m.Hard[2], m.Snap[0]), m.Last() // the hard state may not have been stored yet
	term := max(m.Hard[0], m.Term(last))                // entries may have come back without their hard state
	op.Hard[0] = term
	switch {
	case r.IntN(12) == 0 && commit > m.Snap[0]:
		op.Create = m.Snap[0] + 1 + r.Uint64N(commit-m.Snap[0])
		return op
	case r.IntN(12) == 0:
		op.Checkpoint = m.Checkpoint + 1
		return op
	case r.IntN(25) == 0:
		op.Snap = [2]uint64{last + 1 + r.Uint64N(5), term + 1}
		op.Hard = [3]uint64{term + 1, 1, op.Snap[0]}
		op.From = op.Snap[0] + 1
	default:
		op.From = last + 1
		if r.IntN(4) == 0 || term == 0 {
			op.From = commit + 1 + r.Uint64N(last-commit+1)
			op.Hard[0], op.Hard[1] = term+1, r.Uint64N(3)
		}
	}
	for range r.IntN(12) {
		op.Terms = append(op.Terms, op.Hard[0])
	}
	if len(op.Terms) > 0 || op.Snap[0] > 0 || op.From == last+1 {
		end := max(op.From+uint64(len(op.Terms))-1, op.Snap[0])
		if r.IntN(3) > 0 { // what is not committed grows, over the borders of files
			end = commit
		}
		op.Hard[2] = max(op.Hard[2], commit+r.Uint64N(end-commit+1))
	}
	return op
}

// Outcomes returns the models that a log may show if op was begun on m, in the
// order in which they come to be: the first is m, the last that of op done.
func (op *Op) Outcomes(m *Model) []*Model {
	all := []*Model{m}
	add := func(edit func(m *Model)) {
		next := all[len(all)-1].Clone()
		edit(next)
		all = append(all, next)
	}
	switch {
	case op.Create > 0:
		add(func(m *Model) {
			m.Snap = [2]uint64{op.Create, m.Term(op.Create)}
			m.compact(op.Create - min(m.Retain, op.Create))
		})
		return all
	case op.Compact > 0:
		add(func(m *Model) { m.compact(op.Compact) })
		return all
	case op.Truncate > 0:
		add(func(m *Model) { m.Cleared = max(m.Cleared, op.Truncate) })
		return all
	case op.Checkpoint > 0:
		add(func(m *Model) { m.Checkpoint = op.Checkpoint })
		return all
	case op.Snap[0] > 0:
		add(func(m *Model) {
			m.Snap, m.Base, m.Terms = op.Snap, op.Snap, nil
			if m.Hard[0] > 0 {
				m.Hard[2] = max(m.Hard[2], op.Snap[0]) // as Open puts it
			}
		})
	}
	for k, term := range op.Terms {
		add(func(m *Model) {
			m.Cleared = min(m.Cleared, op.From)
			m.Terms = append(m.Terms[:op.From+uint64(k)-m.Base[0]-1], term)
		})
	}
	add(func(m *Model) { m.Hard = op.Hard })
	return all
}

// Done returns the model of op done.
func (op *Op) Done(m *Model) *Model {
	outcomes := op.Outcomes(m)
	return outcomes[len(outcomes)-1]
}

// Do calls the log, which holds m.
func (op *Op) Do(d *mmapwal.DiskStorage, m *Model) error {
	switch {
	case op.Create > 0:
		return d.CreateSnapshot(op.Create, confState(), SnapshotData(op.Create, m.Term(op.Create)))
	case op.Checkpoint > 0:
		return d.SetUint(mmapwal.CheckpointIndex, op.Checkpoint)
	case op.Compact > 0:
		return d.Compact(op.Compact)
	case op.Truncate > 0:
		return d.TruncateEntriesUntil(op.Truncate)
	}
	return d.Save(op.Save(m))
}

// IsSave: it is one.
func (op *Op) IsSave() bool {
	return op.Create == 0 && op.Checkpoint == 0 && op.Compact == 0 && op.Truncate == 0
}

// Save returns the arguments of a Save to a log that holds m.
func (op *Op) Save(m *Model) (h *raftpb.HardState, es []*raftpb.Entry, snap *raftpb.Snapshot) {
	if op.Snap[0] > 0 {
		snap = Snapshot(op.Snap[0], op.Snap[1])
	}
	for k, term := range op.Terms {
		i := op.From + uint64(k)
		es = append(es, &raftpb.Entry{Index: &i, Term: &term, Data: m.Data(i, term)})
	}
	return hardState(op.Hard), es, snap
}
