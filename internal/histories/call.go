package histories

import (
	"fmt"
	"strings"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// Kind is what a call does.
type Kind byte

// The kinds of calls. Those from Reopen on end the run of the log, and begin another.
const (
	Save Kind = iota
	Create
	Compact
	Truncate
	Checkpoint
	Sync
	Reopen // Close, then Open
	Kill   // the process dies, the kernel's memory stays; then Open
	Cut    // the power goes; then Open
)

// Settings are the options of a run.
type Settings struct {
	Policy    Policy
	Async     bool // each Save is a SaveAsync
	Encrypted bool
	Retain    uint64
	FileBytes int64
	Spares    int
	Cache     int64
}

// Policy is a sync policy.
type Policy byte

// The policies.
const (
	HardSync Policy = iota
	BatchSync
	NoSync
)

func (p Policy) String() string { return [...]string{"HardSync", "BatchSync", "NoSync"}[p] }

func (s Settings) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "%v", s.Policy)
	if s.Async {
		out.WriteString(" SaveAsync")
	}
	if s.Encrypted {
		out.WriteString(" encrypted")
	}
	fmt.Fprintf(&out, " retain %d, files of %d KiB, spares %d, cache %d", s.Retain, s.FileBytes>>10, s.Spares, s.Cache)
	return out.String()
}

// Look is a set of looks at the log that follow a call.
type Look uint16

// The looks.
const (
	LookKill    Look = 1 << iota // open what the death of the process would leave
	LookCut                      // and what a power cut would
	LookReader                   // a reader beside the owner
	LookInspect                  // verify beside the owner, and of what a kill leaves
	LookBackup                   // a backup, restored
	LookRepair                   // a repair of what a kill leaves has nothing to do
	LookRefused                  // calls that are not legal are refused, and change nothing
)

var lookNames = []string{"kill", "cut", "reader", "inspect", "backup", "repair", "what is refused"}

func (l Look) String() string {
	var names []string
	for k, name := range lookNames {
		if l&(1<<k) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// Turn is when the background's work of a call is done.
type Turn byte

// The turns.
const (
	AtOnce Turn = iota
	AtReturn
	Later // with the next call
)

// Call is a call of the log.
type Call struct {
	Kind      Kind
	Hard      Hard // of a Save; zero: nil
	From      uint64
	Entries   []Entry
	Snap      Position // of a Save; zero: none
	SnapBytes int      // of the data of a snapshot
	At        uint64   // index of Create, Compact, Truncate, Checkpoint

	Fail Fail     // of a Save, Create, Compact or Truncate; it is called once more
	Step int      // of the disk, counted from 1, at which the power goes; 0: it stays
	Open Settings // of the run that the call begins, if any
	// OpenStep is the step of that Open at which the power goes, and it is opened again.
	OpenStep int

	Turn Turn
	Look Look
	Seed uint64 // of what a power cut takes
}

// Fail is what a call does not get from the system.
type Fail byte

// The failures.
const (
	NoFailure     Fail = iota
	NoDescriptors      // no file can be made
	NoSpace            // nor room for one, or in one
)

// begins reports whether a call begins a run.
func (c *Call) begins() bool { return c.Kind >= Reopen || c.Step > 0 }

func (c Call) String() string {
	var out strings.Builder
	switch c.Kind {
	case Save:
		out.WriteString("Save")
		if c.Hard != (Hard{}) {
			fmt.Fprintf(&out, " hard %v", c.Hard)
		}
		if c.Snap != (Position{}) {
			fmt.Fprintf(&out, " snapshot %v of %d B", c.Snap, c.SnapBytes)
		}
		if len(c.Entries) > 0 {
			fmt.Fprintf(&out, " entries %d to %d of terms %s sizes %s", c.From, c.From+uint64(len(c.Entries))-1, runs(c.Entries), sizes(c.Entries))
		}
	case Create:
		fmt.Fprintf(&out, "CreateSnapshot %d with %d B", c.At, c.SnapBytes)
	case Compact, Truncate, Checkpoint:
		fmt.Fprintf(&out, "%s %d", map[Kind]string{Compact: "Compact", Truncate: "TruncateEntriesUntil", Checkpoint: "SetUint(CheckpointIndex)"}[c.Kind], c.At)
	default:
		out.WriteString(map[Kind]string{Sync: "Sync", Reopen: "Close", Kill: "kill", Cut: "power cut"}[c.Kind])
	}
	if c.Fail != 0 {
		out.WriteString([]string{"", "; there are no descriptors, then there are", "; the disk is full, then it is not"}[c.Fail])
	}
	if c.Step > 0 {
		fmt.Fprintf(&out, "; power cut at step %d", c.Step)
	}
	if c.begins() {
		fmt.Fprintf(&out, "; Open %v", c.Open)
	}
	if c.OpenStep > 0 {
		fmt.Fprintf(&out, ", power cut at its step %d, again", c.OpenStep)
	}
	fmt.Fprintf(&out, "; background %s", [...]string{"at once", "at return", "later"}[c.Turn])
	if c.Look != 0 {
		fmt.Fprintf(&out, "; look at %v", c.Look)
	}
	return out.String()
}

func sizes(es []Entry) string {
	var out []string
	for _, e := range es {
		word := fmt.Sprint(e.Size)
		if e.Type != 0 {
			word += "c"
		}
		out = append(out, word)
	}
	return strings.Join(out, " ")
}

// fit makes a call legal on a log that holds s, if it nearly is: in a shrunk history the
// calls before it are missing. It is false if it cannot, or if nothing remains to do.
func (c Call) fit(s *State) (Call, bool) {
	switch c.Kind {
	case Save:
		return c.fitSave(s)
	case Create:
		return c, c.At > s.Snap.Index && c.At <= min(s.Commit(), s.Last())
	case Compact:
		return c, c.At > s.Base.Index && c.At <= s.Snap.Index
	case Truncate:
		return c, c.At > s.firstWithData() && c.At <= s.Snap.Index+1
	case Checkpoint:
		return c, c.At > s.Checkpoint
	}
	return c, true
}

func (c Call) fitSave(s *State) (Call, bool) {
	commit, last, lastTerm := s.Commit(), s.Last(), s.Term(s.Last())
	if c.Snap != (Position{}) {
		if c.Snap.Index <= commit {
			return c, false
		}
		commit, last, lastTerm = c.Snap.Index, c.Snap.Index, c.Snap.Term
	}
	if n := uint64(len(c.Entries)); n > 0 {
		before := lastTerm
		if c.From <= commit || c.From > last+1 || c.Snap != (Position{}) && c.From != last+1 {
			return c, false
		}
		if c.From <= last {
			before = s.Term(c.From - 1)
		}
		if c.Entries[0].Term < before {
			return c, false
		}
		last, lastTerm = c.From+n-1, c.Entries[n-1].Term
	}
	if c.Hard == (Hard{}) {
		return c, s.Hard.Term >= lastTerm && c.Snap == (Position{}) && len(c.Entries) > 0
	}
	c.Hard.Term = max(c.Hard.Term, s.Hard.Term, lastTerm)
	if c.Hard.Term == s.Hard.Term && s.Hard.Vote != 0 {
		c.Hard.Vote = s.Hard.Vote
	}
	c.Hard.Commit = min(max(c.Hard.Commit, commit), last)
	return c, true
}

// outcomes returns what a log may hold if a call was begun on one that held s, in the order in
// which it comes to be: the first is s, the last that of the call done.
func (c *Call) outcomes(s *State, retain uint64) []*State {
	all := []*State{s}
	add := func(edit func(s *State)) {
		next := all[len(all)-1].clone()
		edit(next)
		all = append(all, next)
	}
	switch c.Kind {
	case Create:
		add(func(s *State) {
			s.Snap, s.SnapBytes = Position{c.At, s.Term(c.At)}, c.SnapBytes
			s.compact(c.At - min(retain, c.At))
		})
	case Compact:
		add(func(s *State) { s.compact(c.At) })
	case Truncate:
		add(func(s *State) { s.Cleared = c.At })
	case Checkpoint:
		add(func(s *State) { s.Checkpoint = c.At })
	case Save:
		if c.Snap != (Position{}) {
			add(func(s *State) {
				s.Snap, s.SnapBytes, s.Base, s.Entries = c.Snap, c.SnapBytes, c.Snap, nil
				if s.Hard != (Hard{}) {
					s.Hard.Commit = max(s.Hard.Commit, c.Snap.Index) // as Open puts it
				}
			})
		}
		for k, e := range c.Entries {
			add(func(s *State) {
				s.Entries = append(s.Entries[:c.From+uint64(k)-s.Base.Index-1], e)
				s.saved++
			})
		}
		if c.Hard != (Hard{}) {
			add(func(s *State) { s.Hard = c.Hard })
		}
	}
	return all
}

// options returns the options of a run.
func (s Settings) options(o *mmapwal.Options) *mmapwal.Options {
	o.Sync = [...]mmapwal.SyncPolicy{mmapwal.HardSync, mmapwal.BatchSync(batchEntries, batchInterval), mmapwal.NoSync}[s.Policy]
	o.RetainEntries, o.FileDataSize, o.SpareFiles, o.CacheSize = s.Retain, s.FileBytes, s.Spares, s.Cache
	if s.Encrypted {
		o.Key = masterKey()
	}
	return o
}
