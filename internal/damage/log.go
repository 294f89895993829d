package damage

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"

	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// Dir is where the logs of this package are.
const Dir = "/log"

// Options returns the options of the logs of this package.
func Options() *mmapwal.Options {
	return &mmapwal.Options{FileDataSize: 1 << 20, Logger: slog.New(slog.DiscardHandler)}
}

// Open opens the log on a disk. Nothing of it runs in the background, and its
// random numbers are always the same ones for a seed.
func Open(disk vfs.FS, seed byte, opts *mmapwal.Options) (*mmapwal.DiskStorage, error) {
	random := rand.NewChaCha8([32]byte{seed})
	return mmapwal.OpenOn(host.Host{FS: disk, Random: random, Go: func(f func()) { f() }, After: host.Never}, Dir, opts)
}

// Moment is a log at a time: what is on the disk, and what it holds.
type Moment struct {
	Name  string
	Image Image
	State *State
	Clean bool // it was closed
}

// Log is a log in the making. Each call is a moment.
type Log struct {
	Moments []Moment
	Key     []byte // of an encrypted log

	disk  *Disk
	d     *mmapwal.DiskStorage
	state *State
	seed  byte
	sync  mmapwal.SyncPolicy
	err   error // the first one; nothing is done after it
}

// NewLog begins a log. Logs of different seeds have different ids.
func NewLog(seed byte, sync mmapwal.SyncPolicy) *Log {
	return &Log{disk: NewDisk(Dir), state: new(State), seed: seed, sync: sync}
}

// Options returns options that the log can be opened with.
func (l *Log) Options() *mmapwal.Options {
	opts := Options()
	opts.Key = l.Key
	return opts
}

// Now returns the last moment.
func (l *Log) Now() Moment { return l.Moments[len(l.Moments)-1] }

func (l *Log) do(name string, clean bool, call func() error) {
	if l.err == nil {
		if l.err = call(); l.err != nil {
			l.err = fmt.Errorf("%s: %w", name, l.err)
		}
	}
	l.Moments = append(l.Moments, Moment{name, l.disk.Image(), l.state.Clone(), clean})
}

// Open opens it, after the death of the last owner if there was no Close.
func (l *Log) Open() {
	l.seed += 16
	// What was closed stays so until something is stored; an encrypted log begins a file.
	clean := len(l.Moments) > 0 && l.Now().Clean && l.Key == nil
	l.do("open", clean, func() (err error) {
		l.disk.Load(l.disk.Image())
		l.disk.Forget()
		opts := l.Options()
		opts.Sync, opts.RetainEntries = l.sync, retained
		l.d, err = Open(l.disk, l.seed, opts)
		return err
	})
}

// Close closes it.
func (l *Log) Close() { l.do("close", true, func() error { return l.d.Close() }) }

// Sync syncs it.
func (l *Log) Sync() { l.do("sync", false, func() error { return l.d.Sync() }) }

// Save saves entries and a hard state, none if its term is 0.
func (l *Log) Save(hard [3]uint64, es ...*raftpb.Entry) {
	l.do(fmt.Sprintf("save of %d entries", len(es)), false, func() error {
		h := &raftpb.HardState{Term: &hard[0], Vote: &hard[1], Commit: &hard[2]}
		if hard[0] == 0 {
			h = nil
		} else {
			l.state.Hard = hard
		}
		l.state.Save(es)
		return l.d.Save(h, es, nil)
	})
}

// retained is how many entries are kept below a snapshot.
const retained = 7

// Snapshot creates a snapshot.
func (l *Log) Snapshot(i uint64, data []byte) {
	l.do("snapshot", false, func() error {
		l.state.Snap = [2]uint64{i, l.state.Term(i)}
		l.state.Compact(max(i-retained, l.state.Base[0]))
		l.state.Voters, l.state.SnapData = []uint64{1, 2, 3}, data
		return l.d.CreateSnapshot(i, &raftpb.ConfState{Voters: l.state.Voters}, data)
	})
}

// Clear clears the data below an index.
func (l *Log) Clear(below uint64) {
	l.do("clear", false, func() error {
		l.state.Clear(below)
		return l.d.TruncateEntriesUntil(below)
	})
}

// Identify sets the ids.
func (l *Log) Identify(raft, group uint64) {
	l.do("ids", false, func() error {
		l.state.IDs = [2]uint64{raft, group}
		return errors.Join(l.d.SetUint(mmapwal.RaftId, raft), l.d.SetUint(mmapwal.GroupId, group))
	})
}

// Checkpoint sets the checkpoint.
func (l *Log) Checkpoint(v uint64) {
	l.do("checkpoint", false, func() error {
		l.state.Noted = v
		return l.d.SetUint(mmapwal.CheckpointIndex, v)
	})
}

// Err returns the first error of the calls.
func (l *Log) Err() error { return l.err }

// NeverSaved says what of a reading was at no time in the log, "" if all was. Data
// that was cleared later may be missing from any time.
func (l *Log) NeverSaved(r *Reading) string {
	for _, e := range r.Entries {
		if e != nil && !l.saved(e) {
			return fmt.Sprintf("entry %v was never saved", e)
		}
	}
	for _, part := range []struct {
		name string
		same func(s *State) bool
	}{
		{"hard state", func(s *State) bool { return r.Hard[0] == s.Hard[0] && r.Hard[1] == s.Hard[1] }},
		{"snapshot", func(s *State) bool {
			return r.Snap == s.Snap && (r.SnapErr != nil || bytes.Equal(r.SnapData, s.SnapData))
		}},
		{"ids", func(s *State) bool { return r.IDs == s.IDs }},
	} {
		if !slices.ContainsFunc(l.Moments, func(m Moment) bool { return part.same(m.State) }) {
			return "the " + part.name + " was never such"
		}
	}
	return ""
}

func (l *Log) saved(e *raftpb.Entry) bool {
	return slices.ContainsFunc(l.Moments, func(m Moment) bool {
		i := e.GetIndex()
		return i > m.State.Base[0] && i <= m.State.Last() && (SameEntry(e, m.State.Entry(i)) || isCleared(e, m.State.Entry(i)))
	})
}

// cleared is where the entries end whose data Build clears.
const cleared = 9

// isCleared: e is the same as was, but its data was cleared since.
func isCleared(e, was *raftpb.Entry) bool {
	return e.GetTerm() == was.GetTerm() && e.GetType() == raftpb.EntryNormal && len(e.GetData()) == 0 && e.GetIndex() < cleared
}

// Entries returns the entries [from, to] of a term: each third one without data,
// each seventh one a conf change.
func Entries(from, to, term uint64) (es []*raftpb.Entry) {
	for i := from; i <= to; i++ {
		e := &raftpb.Entry{Index: new(i), Term: new(term)}
		if i%3 != 0 {
			e.Data = oracle.Data(i, term, int(3+i*7%40))
		}
		if i%7 == 3 {
			e.Type = new(raftpb.EntryConfChangeV2)
		}
		es = append(es, e)
	}
	return es
}

// Build returns a new log in which a lot has happened.
func Build(seed byte, sync mmapwal.SyncPolicy, snapshotBytes int) *Log {
	l := NewLog(seed, sync)
	l.Build(snapshotBytes)
	return l
}

// Build makes a new log one of four files that has seen everything: conf changes, suffixes
// overwritten inside a file and across files, deaths, a Close, data that was
// cleared, and a snapshot with data of that size. It stays open.
func (l *Log) Build(snapshotBytes int) {
	l.Open() // file 1
	l.Save([3]uint64{1, 1, 0}, Entries(1, 7, 1)...)
	l.Open() // file 2
	l.Save([3]uint64{2, 1, 2}, Entries(6, 9, 2)...)
	l.Save([3]uint64{3, 2, 5}, Entries(8, 12, 3)...)
	l.Close()
	l.Open() // it goes on in file 2
	l.Identify(5, 6)
	l.Save([3]uint64{3, 2, 12}, Entries(13, 15, 3)...)
	l.Open() // file 3
	l.Save([3]uint64{3, 2, 13}, Entries(16, 22, 3)...)
	l.Save([3]uint64{4, 2, 15}, Entries(20, 24, 4)...)
	l.Snapshot(cleared-1, nil)
	l.Clear(cleared)
	l.Checkpoint(11)
	l.Open() // file 4
	l.Save([3]uint64{5, 1, 20}, Entries(24, 28, 5)...)
	l.Save([3]uint64{6, 1, 25}, Entries(27, 31, 6)...)
	l.Snapshot(cleared, oracle.Data(cleared, 3, snapshotBytes))
	l.Checkpoint(17)
	l.Save([3]uint64{6, 1, 29}, Entries(32, 33, 6)...)
}
