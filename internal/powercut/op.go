package powercut

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
)

// Kind is what an operation does.
type Kind byte

// The kinds of operations.
const (
	Append     Kind = 'a' // a Save of entries behind the last
	Overwrite  Kind = 'o' // a Save of entries from the first on that is not committed
	Hard       Kind = 'h' // a Save of a hard state
	Snapshot   Kind = 's' // CreateSnapshot
	Install    Kind = 'i' // a Save with a snapshot, and entries behind it
	Compact    Kind = 'c'
	Rotate     Kind = 'r' // a Save of entries that do not fit into the last file
	Truncate   Kind = 't' // TruncateEntriesUntil
	Close      Kind = 'x' // Close, then Open
	Kill       Kind = 'k' // the process dies, the kernel's memory stays; then Open
	Checkpoint Kind = 'u' // SetUint
	Sync       Kind = 'y'
)

// Kinds are those that Short combines.
const Kinds = "aohsicrtxk"

// Op is an operation.
type Op struct {
	Kind Kind
	// Seed chooses among what Kind allows in the state of the log. With 0 the
	// choice is a fixed one.
	Seed uint64
	// Fail is the sync of the operation, counted from 1, that fails; then the
	// process dies, and the log is opened again. 0: none.
	Fail int
	// Cut is the step of the operation, counted from 1, at which the power goes.
	// If it has fewer the power goes behind it. 0: it stays. With AtSync only
	// syncs, renames and removals are counted.
	Cut    int
	AtSync bool
}

func (o Op) String() string {
	s := string(rune(o.Kind))
	if o.Seed > 0 {
		s += strconv.FormatUint(o.Seed, 10)
	}
	switch {
	case o.Fail > 0:
		s += "!" + strconv.Itoa(o.Fail)
	case o.Cut > 0 && o.AtSync:
		s += "%" + strconv.Itoa(o.Cut)
	case o.Cut > 0:
		s += "@" + strconv.Itoa(o.Cut)
	}
	return s
}

// Format writes a history as Parse reads it.
func Format(ops []Op) string {
	words := make([]string, len(ops))
	for k, op := range ops {
		words[k] = op.String()
	}
	return strings.Join(words, ",")
}

var opPattern = regexp.MustCompile(`^([aohsicrtxkuy])([0-9]*)(?:([!@%])([0-9]+))?$`)

// Parse reads a history: operations with commas between them. Each is the letter
// of its kind, its seed if that is not 0, and, as the case may be, "!" and the
// number of the sync that fails, "@" and the step at which the power goes, or
// "%" and the sync, rename or removal at which it does: "a,o17,x@30,h!2".
func Parse(s string) ([]Op, error) {
	var ops []Op
	for word := range strings.SplitSeq(s, ",") {
		m := opPattern.FindStringSubmatch(strings.TrimSpace(word))
		if m == nil {
			return nil, fmt.Errorf("powercut: %q is no operation", word)
		}
		op := Op{Kind: Kind(m[1][0])}
		op.Seed, _ = strconv.ParseUint(m[2], 10, 64)
		n, _ := strconv.Atoi(m[4])
		switch m[3] {
		case "!":
			op.Fail = n
		case "@":
			op.Cut = n
		case "%":
			op.Cut, op.AtSync = n, true
		}
		ops = append(ops, op)
	}
	return ops, nil
}

// chooser makes the choices of an operation.
type chooser struct {
	r   *rand.Rand // nil: none, the fixed choice counts
	pos int        // how many operations came before
}

// between chooses from [lo, hi], or takes the fixed one.
func (c chooser) between(lo, hi, fixed uint64) uint64 {
	if c.r == nil {
		return fixed
	}
	return lo + c.r.Uint64N(hi-lo+1)
}

// call returns the call that op is on a log that holds m. It is false if it is
// none there, since there is nothing to overwrite, say.
func (o Op) call(m *oracle.Model, pos int) (oracle.Op, bool) {
	c := chooser{pos: pos}
	if o.Seed > 0 {
		c.r = rand.New(rand.NewPCG(o.Seed, 1))
	}
	// A hard state may not have been stored yet, or entries have come back
	// without theirs.
	commit := max(m.Hard[2], m.Snap[0])
	op := oracle.Op{Hard: [3]uint64{small(max(m.Hard[0], m.Term(m.Last()))), m.Hard[1], commit}}
	switch o.Kind {
	case Append:
		c.appended(&op, m)
	case Overwrite:
		return op, c.overwritten(&op, m)
	case Hard:
		op.Hard[0], op.Hard[1] = small(op.Hard[0]+1), c.between(0, 2, (m.Hard[1]+1)%3)
		op.From = m.Last() + 1
	case Snapshot:
		return op, c.created(&op, m)
	case Install:
		c.installed(&op, m)
	case Compact:
		op.Compact = c.between(min(m.Base[0]+1, m.Snap[0]), m.Snap[0], m.Snap[0])
		return op, op.Compact > m.Base[0]
	case Rotate:
		if c.between(0, 2, 0) == 0 { // else it leaves entries over the border of two files to be replaced
			op.Hard[2] = m.Last() + 1
		}
		op.From = m.Last() + 1
		large := large(op.Hard[0])
		op.Terms = []uint64{op.Hard[0], large}
		op.Hard[0] = large + 1
	case Truncate:
		op.Truncate = c.between(1, m.Snap[0]+1, m.Snap[0]+1)
		return op, op.Truncate > max(m.Cleared, m.Base[0]+1)
	case Checkpoint:
		op.Checkpoint = m.Checkpoint + 1
	}
	return op, true
}

func (c chooser) appended(op *oracle.Op, m *oracle.Model) {
	op.From = m.Last() + 1
	count := c.between(0, 11, 2)
	c.entries(op, count)
	op.Hard[2] = c.between(op.Hard[2], m.Last()+count, m.Last()+1)
}

// overwritten replaces a suffix, which may begin in an older file.
func (c chooser) overwritten(op *oracle.Op, m *oracle.Model) bool {
	if op.Hard[2] >= m.Last() {
		return false
	}
	op.From = c.between(op.Hard[2]+1, m.Last(), op.Hard[2]+1)
	count := c.between(1, 6, 1)
	if c.r != nil && m.Hard[0] == op.Hard[0] && m.Hard[0] > m.Term(m.Last()) && c.r.IntN(4) > 0 {
		// The term was stored before, so that only the commit index changes.
		op.Hard[2] = c.between(op.Hard[2], op.From+count-1, 0)
	} else {
		op.Hard[0], op.Hard[1] = small(op.Hard[0]+1), c.between(0, 2, m.Hard[1])
	}
	c.entries(op, count)
	return true
}

func (c chooser) entries(op *oracle.Op, count uint64) {
	for range count {
		op.Terms = append(op.Terms, op.Hard[0])
	}
}

// created is a snapshot of an index that is committed: by turns one with its data
// inline, and one with a file.
func (c chooser) created(op *oracle.Op, m *oracle.Model) bool {
	if op.Hard[2] <= m.Snap[0] {
		return false
	}
	fixed := op.Hard[2]
	if fixed%2 != uint64(c.pos%2) && fixed-1 > m.Snap[0] {
		fixed--
	}
	op.Create = c.between(m.Snap[0]+1, op.Hard[2], fixed)
	return true
}

// installed is a snapshot, by turns inline and with a file, and entries behind it. It is
// beyond the log, or, if that has more than is committed, inside, with the term that the log
// has there or another.
func (c chooser) installed(op *oracle.Op, m *oracle.Model) {
	at := m.Last() + 1
	if at%2 != uint64(c.pos%2) {
		at++
	}
	at = c.between(m.Last()+1, m.Last()+5, at)
	term := small(op.Hard[0] + 1)
	op.Snap = [2]uint64{at, term}
	if from := max(m.Snap[0], op.Hard[2]) + 1; c.r != nil && from <= m.Last() && c.r.IntN(2) == 0 {
		at = c.between(from, m.Last(), from)
		op.Snap = [2]uint64{at, [2]uint64{term, m.Term(at)}[c.r.IntN(2)]}
	}
	op.Hard, op.From = [3]uint64{term, 1, at}, at+1
	c.entries(op, c.between(0, 5, 1))
}

// The terms tell which entries are large: those of Rotate are.
func isLarge(term uint64) bool { return term%8 == 7 }

// small returns the first term from the given one on whose entries are not large.
func small(term uint64) uint64 {
	if term = max(term, 1); isLarge(term) {
		term++
	}
	return term
}

// large returns the first term from the given one on whose entries are.
func large(term uint64) uint64 { return term | 7 }

var kindNames = map[Kind]string{
	Append: "append", Overwrite: "overwrite", Hard: "hard state", Snapshot: "snapshot", Install: "install",
	Compact: "compact", Rotate: "rotate", Truncate: "truncate", Close: "close", Kill: "kill",
	Checkpoint: "checkpoint", Sync: "sync",
}

func (k Kind) String() string { return kindNames[k] }
