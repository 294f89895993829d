package inspect

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"

	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// Severity tells damage from what a crash may leave, or is harmless otherwise.
type Severity string

// The severities.
const (
	Damage   Severity = "damage"
	Degraded Severity = "degraded" // nothing is missing, but of two copies one is gone
	Note     Severity = "note"
)

// Problem is one thing that was found.
type Problem struct {
	Severity Severity `json:"severity"`
	Kind     string   `json:"kind"`             // a word for programs
	File     string   `json:"file,omitempty"`   // base name
	Offset   int64    `json:"offset"`           // bytes from the start of the file
	Length   int64    `json:"length,omitempty"` // bytes; 0: not known
	First    uint64   `json:"first,omitempty"`  // the entries affected; 0: none, or not known
	Last     uint64   `json:"last,omitempty"`
	What     string   `json:"what"`
	Heal     string   `json:"heal,omitempty"`
}

// The kinds of problems.
const (
	KindName      = "name"      // of a file
	KindMissing   = "missing"   // file
	KindMeta      = "meta"      // page of wal.meta
	KindHeader    = "header"    // page of an entry file
	KindCut       = "cut-short" // file
	KindForeign   = "foreign"   // file of another log, copy, number or time
	KindChain     = "chain"     // of files
	KindGap       = "gap"       // between the entries of two files
	KindRecord    = "record"
	KindOrder     = "order" // of records
	KindSeal      = "seal"
	KindSlots     = "slots"
	KindTampered  = "tampered"
	KindSnapshot  = "snapshot"
	KindNotFile   = "no-file"    // something else is in the place of an entry file: a link, a FIFO
	KindUnread    = "unreadable" // the system cannot read it
	KindRefused   = "refused"    // by Open, for a reason not found here
	KindUnclean   = "unclean"    // the log was not closed
	KindTorn      = "torn"       // write
	KindStray     = "stray"      // bytes where zeros belong
	KindLeftover  = "leftover"   // of an interrupted creation or removal
	KindSetAside  = "set-aside"  // .corrupt
	KindUnknown   = "unknown"    // file
	KindUnchecked = "unchecked"  // without a key
	KindState     = "state"      // hard state or snapshot beside the entries
)

// How problems are healed.
const (
	healEntries  = "restore the file from a backup of the same time; without one, `mmapwal repair` keeps what lies in front of the damage, and says what is lost"
	healDead     = "nothing that counts is lost: `mmapwal repair` writes the file anew without it"
	healRebuilt  = "nothing is lost: it is rebuilt from the records; `mmapwal repair` writes it anew, and so does opening and closing the log"
	healTime     = "either this file or wal.meta is from another time: put back the one that belongs to the others; without it, `mmapwal repair` keeps what can be kept, and says what is lost"
	healNotFile  = "if it is a link, put the file itself here; if it is not the log's, move it away: no repair decides that"
	healPage     = "nothing is lost: the other copy counts; opening the log for writing heals it, and so does `mmapwal repair`"
	healHeader   = "nothing is lost: the other page counts; `mmapwal repair` writes both anew, and so does the next change of the file's state"
	healFile     = "restore the file from a backup of the same time; without one, `mmapwal repair` keeps what can be kept, and says what is lost"
	healNode     = "restore a backup, or add the node to its group anew"
	healOpen     = "nothing to do: the next Open removes it"
	healNothing  = "nothing to do: nothing reads it"
	healTorn     = "nothing to do: it was never promised; the next Open drops it"
	healCut      = "nothing is lost: page 0 is whole, and the log was closed; `mmapwal repair` extends the file"
	healSnapshot = "restore the file: any intact copy of it fits, from a backup of this node; without one, add the node to its group anew: Open refuses the log"

	healSnapshotData = "restore the file: any intact copy of it fits; without one, start the node and have a snapshot sent by the leader, or store a newer one: " +
		"the log opens, but the state machine cannot start from this snapshot"
)

func (p *Problem) place() string { return fmt.Sprintf("%s %s %d", p.Kind, p.File, p.Offset) }

// unread says why the system does not read a file.
func (p *Problem) unread(err error) {
	p.Kind, p.What = KindUnread, err.Error()
	if not := (*vfs.NotRegularError)(nil); errors.As(err, &not) {
		p.Kind, p.What, p.Heal = KindNotFile, "this is "+not.Kind+", and no regular file", healNotFile
	}
}

// add notes a problem.
func (l *Log) add(p Problem) { l.Problems = append(l.Problems, p) }

// addError notes what a package of the engine says about a file.
func (l *Log) addError(kind, file, heal string, err error) {
	p := Problem{Severity: Damage, Kind: kind, File: file, What: err.Error(), Heal: heal}
	if where := (*corrupt.Error)(nil); errors.As(err, &where) {
		p.Offset, p.First, p.Last, p.What = where.Offset, where.First, where.Last, where.Reason
	} else {
		p.unread(err)
	}
	l.add(p)
}

// Damaged reports whether there is damage, and not only notes.
func (l *Log) Damaged() bool { return l.Count(Damage) > 0 }

// Count returns how many problems of a severity there are.
func (l *Log) Count(s Severity) (n int) {
	for _, p := range l.Problems {
		if p.Severity == s {
			n++
		}
	}
	return n
}

// Repairable reports whether a repair is for some of what is wrong.
func (l *Log) Repairable() bool {
	beyond := func(p Problem) bool {
		return p.Severity == Damage && (p.Heal == healNode || p.Kind == KindName || p.Kind == KindNotFile)
	}
	return !slices.ContainsFunc(l.Problems, beyond) &&
		slices.ContainsFunc(l.Problems, func(p Problem) bool { return p.Severity != Note && p.Kind != KindSnapshot })
}

// cannotLook reports whether err says nothing of what is on the disk: whoever may, or has
// what the system lacks now, may read it.
func cannotLook(err error) bool {
	for _, e := range []error{fs.ErrPermission, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// sortProblems puts damage first, and then goes by place.
func (l *Log) sortProblems() {
	slices.SortStableFunc(l.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.File, b.File), cmp.Compare(a.Offset, b.Offset))
	})
}

// keepSeenTwice drops the damage, and the like, that an earlier look did not show: beside a live
// owner a page may be half stored, or a file removed, at the moment of a look.
func (l *Log) keepSeenTwice(earlier *Log) {
	seen := make(map[string]bool)
	for _, p := range earlier.Problems {
		seen[p.place()] = true
	}
	l.Problems = slices.DeleteFunc(l.Problems, func(p Problem) bool { return p.Severity != Note && !seen[p.place()] })
}
