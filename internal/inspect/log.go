// Package inspect looks at the directory of a log, file by file and byte by byte,
// without opening it as an owner: it takes no lock and stores nothing. It says all
// that is wrong with a log, not only what comes first, and works beside a live
// owner and on a directory that Open refuses.
package inspect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/archive"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// Options of Look.
type Options struct {
	Wrapper  encryption.KeyWrapper   // of the master key; nil: what is encrypted is not opened
	Check    bool                    // read every byte; otherwise only what tells where the entries are
	Progress func(done, total int64) // is told how many bytes are dealt with; may be nil

	once bool // for tests without a live owner
}

// Log is what a directory holds.
type Log struct {
	Dir      string    `json:"dir"`
	Meta     *Meta     `json:"meta,omitempty"` // nil: wal.meta cannot be read
	First    uint64    `json:"first"`          // entries that can be read; Last < First if there are none
	Last     uint64    `json:"last"`
	Files    []*File   `json:"files"`
	Others   []Other   `json:"others"`
	Problems []Problem `json:"problems"`

	opts     Options
	ctx      context.Context
	fsys     vfs.FS
	meta     metafile.Meta // zero if Meta is nil
	metaRaw  []byte
	keys     *encryption.DirectoryKey
	chain    []link // the files that belong to the log
	done     int64
	total    int64
	summed   int64 // bytes read for checksums, in searches for records
	changing bool  // wal.meta was stored to while the directory was looked at
}

// Look looks at the log in dir. Damage is not an error, but a Problem.
//
// Errors: fs.ErrNotExist if there is no log; fs.ErrPermission for a file that may not be read,
// and what the system lacks otherwise: that says nothing of the log; mmapwal.ErrForeign, ErrVersion,
// ErrWrongKey, ErrNotEncrypted (a key for a log without); ctx.Err().
func Look(ctx context.Context, fsys vfs.FS, dir string, o Options) (*Log, error) {
	l, err := lookOnce(ctx, fsys, dir, o)
	for again := 0; again < 4 && err == nil && !o.once && l.mayChange() && (l.Damaged() || again == 0 && l.Count(Degraded) > 0); again++ {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		earlier := l
		if l, err = lookOnce(ctx, fsys, dir, o); err == nil {
			l.keepSeenTwice(earlier)
		}
	}
	if err != nil {
		return nil, err
	}
	l.sortProblems()
	return l, nil
}

// mayChange: there may be a live owner.
func (l *Log) mayChange() bool { return l.changing || l.Meta != nil && !l.meta.Clean }

func lookOnce(ctx context.Context, fsys vfs.FS, dir string, o Options) (*Log, error) {
	l := &Log{Dir: dir, ctx: ctx, fsys: fsys, opts: o, Files: []*File{}, Others: []Other{}, Problems: []Problem{}}
	// wal.meta first: files that come later are younger than what it says.
	metaErr := l.readMeta()
	infos, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	l.sortNames(infos)
	if err := l.judgeMissing(metaErr); err != nil {
		return nil, err
	}
	if err := l.unlock(); err != nil {
		return nil, err
	}
	defer l.wipe()
	if err := l.lookAtFiles(); err != nil {
		return nil, err
	}
	slices.Reverse(l.chain)
	l.checkChain()
	l.findRange()
	l.judgeHardState()
	l.checkState()
	if err := l.lookAtSnapshot(); err != nil {
		return nil, err
	}
	if o.Check {
		if err := l.tryOpen(); err != nil {
			return nil, err
		}
	}
	before := l.metaRaw
	l.changing = l.readMetaAgain() && !slices.Equal(before, l.metaRaw)
	return l, nil
}

// judgeMissing tells a log without wal.meta from a directory without a log.
func (l *Log) judgeMissing(err error) error {
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case slices.ContainsFunc(l.Others, func(o Other) bool { return o.Name == archive.WorkDirectory }):
		return fmt.Errorf("%s: there is no log: a restore into it is under way, or was interrupted: run it again: %w", l.Dir, err)
	case len(l.Files) == 0:
		return fmt.Errorf("%s: there is no log: %w", l.Dir, err)
	}
	l.add(Problem{Severity: Damage, Kind: KindMissing, File: metafile.Name,
		What: "the file is missing beside entry files, and with it term, vote and snapshot", Heal: healNode})
	return nil
}

// lookAtFiles goes from the last file to the first, since a file supersedes what
// those before it hold, and vouches for them.
func (l *Log) lookAtFiles() error {
	for _, f := range l.Files {
		l.total += f.Size
	}
	behind := later{}
	for k, f := range slices.Backward(l.Files) {
		s, err := l.scanFile(f, behind)
		if err != nil {
			return err
		}
		behind = behind.with(s)
		if s.endsLog() {
			l.leaveOut(l.Files[k+1:])
		}
		l.note(s)
		l.done += f.Size
		l.progress(0)
	}
	return nil
}

// leaveOut takes files out of the log that lie behind its end.
func (l *Log) leaveOut(files []*File) {
	for _, f := range files {
		if f.Role != RoleLive {
			continue
		}
		f.First, f.Last = 0, 0
		if f.Role = RoleNext; f.Records == 0 && f.Bytes[Torn] == 0 {
			continue
		}
		f.Role = RoleTorn
		if f.Records == 0 {
			continue // the torn write in it was noted
		}
		f.repaint()
		l.add(Problem{Severity: Note, Kind: KindTorn, File: f.Name, Offset: entryfile.DataStart, Length: f.End - entryfile.DataStart,
			What: fmt.Sprintf("the file lies behind the end of the log: records that were not promised, %d of them", f.Records), Heal: healTorn})
	}
}

func (l *Log) progress(inFile int64) {
	if l.opts.Progress != nil {
		l.opts.Progress(l.done+inFile, l.total)
	}
}

// findRange says which entries the log has.
func (l *Log) findRange() {
	l.First, l.Last = l.meta.Compacted.Index+1, l.meta.Compacted.Index
	if l.Meta == nil {
		l.First = 0
	}
	for _, f := range l.Files {
		if f.Last == 0 {
			continue
		}
		if l.First == 0 {
			l.First = f.First
		}
		l.Last = max(l.Last, f.Last)
	}
	if l.Meta != nil && l.Last < l.meta.Snapshot.Index {
		l.First, l.Last = l.meta.Snapshot.Index+1, l.meta.Snapshot.Index // as Open has it
	}
}

// checkState compares what wal.meta says with the entries.
func (l *Log) checkState() {
	if l.Meta == nil {
		return
	}
	m := &l.meta
	if !m.Clean {
		l.add(Problem{Severity: Note, Kind: KindUnclean, File: metafile.Name,
			What: "the log was not closed: it is in use, or its last owner died",
			Heal: "nothing to do: the next Open for writing recovers it"})
	}
	if last := l.lastEntry(); last < m.Snapshot.Index {
		l.add(Problem{Severity: Note, Kind: KindState, File: metafile.Name, First: last + 1, Last: m.Snapshot.Index,
			What: fmt.Sprintf("the entries end at %d, before the snapshot at %d; the log starts behind it", last, m.Snapshot.Index),
			Heal: "nothing to do: the snapshot covers them"})
	}
	if c := m.HardState.Commit; m.HardState.Stored && c > l.Last {
		p := Problem{Severity: Note, Kind: KindState, File: metafile.Name,
			What: fmt.Sprintf("the commit index %d lies beyond the last entry, %d; Open puts it there", c, l.Last),
			Heal: "nothing to do if the last owner died; entries that the disk lost come back from the leader"}
		if l.Damaged() {
			p.What = fmt.Sprintf("the commit index %d lies beyond the last entry that can be read, %d", c, l.Last)
			p.Heal = "those entries were committed, and are lost unless the damage is healed: the node must not start without them (docs/operations.md)"
		}
		l.add(p)
	}
}

// lastEntry returns the highest index in the files; that of the compaction if
// there is none above it.
func (l *Log) lastEntry() uint64 {
	last := l.meta.Compacted.Index
	for _, f := range l.Files {
		last = max(last, f.Last)
	}
	return last
}

// tryOpen opens the log for reading, as a user would: what the engine refuses must
// not pass here.
func (l *Log) tryOpen() error {
	if l.Damaged() || l.meta.Encrypted && l.opts.Wrapper == nil {
		return nil
	}
	h := host.OS()
	h.FS = l.fsys
	opts := &mmapwal.Options{ReadOnly: true, Logger: slog.New(slog.DiscardHandler)}
	if l.meta.Encrypted {
		opts.KeyWrapper = l.opts.Wrapper
	}
	d, err := mmapwal.OpenOn(h, l.Dir, opts)
	if err == nil {
		err = d.Close()
	}
	if err == nil || cannotLook(err) {
		return err
	}
	p := Problem{Severity: Damage, Kind: KindRefused, What: err.Error(), Heal: healNode}
	if where := (*mmapwal.CorruptError)(nil); errors.As(err, &where) {
		p.File, p.Offset, p.First, p.Last, p.What = filepath.Base(where.File), where.Offset, where.First, where.Last, "Open refuses it: "+where.Reason
	}
	l.add(p)
	return nil
}

// HidesEnd reports whether damage hides what stood behind the last entry.
func (l *Log) HidesEnd() bool {
	if slices.ContainsFunc(l.Problems, func(p Problem) bool { return p.Kind == KindMissing && p.File == fileName(l.meta.Durable.File) }) {
		return true
	}
	for _, f := range slices.Backward(l.Files) {
		switch {
		case f.Role == RoleDead:
		case !f.Held.Known || f.Held.HidesEnd:
			return true
		case f.Role == RoleLive && f.First != 0:
			return false
		}
	}
	return false
}

func (l *Log) wipe() {
	if l.keys != nil {
		l.keys.Wipe()
		l.keys = nil
	}
}

// fileName returns the base name of an entry file.
func fileName(number uint64) string { return entryfile.Name(number) }
