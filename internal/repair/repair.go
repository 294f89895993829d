// Package repair makes a damaged log one that opens: it writes anew what can be
// told from other copies, and where promised entries are damaged it keeps those in
// front of them.
//
// A repair is tried first, in memory, on the files as they are (Rehearse). Only one
// that ends in a log without damage is done (Plan.Execute), after all files that it
// changes, as the rehearsal has shown, were copied and the copies checked. It can be
// stopped at any point, and begun again.
package repair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// Options of Rehearse.
type Options struct {
	Host    host.Host             // zero: the operating system's
	Wrapper encryption.KeyWrapper // of the master key of an encrypted log
	// NotDgraph says that Dgraph has not written to the log. Some damage of a log that
	// was closed looks as if it had.
	NotDgraph bool
	// DryRun says that the repair is not going to be done: to read the log is enough.
	DryRun   bool
	Progress func(done, total int64) // of reading the log, which is done several times; may be nil
}

// ErrDgraph: what is wrong may be what Dgraph wrote to the log.
var ErrDgraph = errors.New("it reads as if Dgraph had written to the log since it was closed, and may be damage all the same")

// work is one repair, rehearsed or done.
type work struct {
	o     Options
	fsys  vfs.FS
	dir   string
	lock  vfs.File // the owner's, while the engine does not hold it
	done  []Action
	had   *reading // of the log as it was, seen with a wal.meta that can be read
	ran   bool     // the engine has opened the log
	truth truth    // what can be told of the log as it was
}

// Action is one thing that a repair does.
type Action struct {
	File string `json:"file"` // base name
	What string `json:"what"`
}

func (w *work) did(file, format string, args ...any) {
	w.done = append(w.done, Action{file, fmt.Sprintf(format, args...)})
}

// take takes the owner's lock. vfs.ErrLocked.
func (w *work) take() (err error) {
	if w.lock, err = w.fsys.Open(filepath.Join(w.dir, metafile.Name), w.o.DryRun); err != nil {
		w.lock = nil
		return err
	}
	if err := w.lock.Lock(); err != nil {
		return errors.Join(err, w.give())
	}
	return nil
}

// give gives the lock up, for the engine to take.
func (w *work) give() error {
	if w.lock == nil {
		return nil
	}
	lock := w.lock
	w.lock = nil
	return lock.Close()
}

func (w *work) look(ctx context.Context) (*inspect.Log, error) {
	return inspect.Look(ctx, w.fsys, w.dir, inspect.Options{Wrapper: w.o.Wrapper, Check: true, Progress: w.o.Progress})
}

// run repairs, step by step, and looks again after each. It returns what is there
// in the end.
func (w *work) run(ctx context.Context, l *inspect.Log) (*inspect.Log, error) {
	const steps = 8 // no repair takes as many
	for range steps {
		did, err := w.healMeta(l)
		if err == nil && !did {
			if w.had == nil {
				w.had, err = readAll(ctx, l)
			}
			if err == nil {
				did, err = w.step(ctx, l)
			}
		}
		if err != nil || !did {
			return l, err
		}
		if l, err = w.look(ctx); err != nil {
			return l, err
		}
	}
	return l, nil
}

// step does the first thing that there is to do, but for wal.meta. It reports whether
// there was any.
func (w *work) step(ctx context.Context, l *inspect.Log) (bool, error) {
	if l.Meta != nil {
		t, err := w.seek(ctx, l)
		if err != nil {
			return false, err
		}
		covered, err := covers(ctx, l, t)
		if err != nil {
			return false, err
		}
		if covered {
			return true, w.dropCovered(l)
		}
		w.truth.add(t)
		if did, err := w.healFiles(ctx, l, t); did || err != nil {
			return did, err
		}
	}
	if w.ran {
		return false, nil
	}
	w.ran = true
	return true, w.open(l)
}

// covers reports whether entries that the snapshot covers are lost, or may be others than
// they were: they must not be sent to other nodes. The one at the snapshot has the snapshot's
// term, or it is another; those in front of it may be others all the same.
func covers(ctx context.Context, l *inspect.Log, t truth) (bool, error) {
	at := l.Meta.Snapshot.Position
	switch {
	case at.Index <= l.Meta.Compacted.Index || !l.Damaged():
		return false, nil
	case t.lost <= at.Index || t.retained:
		return true, nil
	case l.Last < at.Index:
		return false, nil
	}
	same := false
	err := l.Each(ctx, at.Index, at.Index, func(e inspect.Entry) error { same = e.Term == at.Term; return nil })
	return !same, err
}

// healMeta writes those pages of wal.meta anew that keep the engine from opening a log
// that was closed, although their twins tell what they held: page 0, and what was cut
// off behind it. Of a log that was not closed pages 2 and 3 may have had more.
func (w *work) healMeta(l *inspect.Log) (did bool, err error) {
	if !slices.ContainsFunc(l.Problems, func(p inspect.Problem) bool {
		return p.Severity == inspect.Damage && p.Kind == inspect.KindMeta
	}) {
		return false, nil
	}
	f, err := w.fsys.Open(filepath.Join(w.dir, metafile.Name), false)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil || size < page.Size {
		return false, err
	}
	var pages [2][page.Size]byte
	for k := range pages {
		if int64(k+1)*page.Size <= size {
			if _, err := f.ReadAt(pages[k][:], int64(k)*page.Size); err != nil {
				return false, err
			}
		}
	}
	views := [2]metafile.PageView{metafile.InspectPage(pages[0][:]), metafile.InspectPage(pages[1][:])}
	switch {
	case views[0].Err == nil && views[0].Meta.Clean && size < metafile.Size:
		w.did(metafile.Name, "extended to its %d bytes: page 0 is whole, and the others are written anew from it", metafile.Size)
		return true, errors.Join(f.Truncate(metafile.Size), f.Sync())
	case views[0].Err != nil && views[1].Err == nil && views[1].Meta.Clean && size == metafile.Size:
		if !w.o.NotDgraph && metafile.WrittenByDgraph(pages[0][:], pages[1][:]) {
			return false, fmt.Errorf("page 0 of %s: %w", metafile.Name, ErrDgraph)
		}
		w.did(metafile.Name, "page 0 written anew from page 1")
		_, err := f.WriteAt(pages[1][:], 0)
		return true, errors.Join(err, f.Sync())
	}
	return false, nil
}

// dropCovered compacts the log up to its snapshot, so that damaged entries which the
// snapshot covers do not count any more.
func (w *work) dropCovered(l *inspect.Log) (err error) {
	if err := w.give(); err != nil {
		return err
	}
	f, err := w.openMeta(false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), w.take()) }()
	m := f.Meta()
	m.Compacted = m.Snapshot
	for _, file := range l.Files {
		if file.Role == inspect.RoleLive && file.First <= m.Snapshot.Index+1 && m.Snapshot.Index < file.Last {
			m.FirstFile = file.Number // what is in front of it is covered, too
		}
	}
	w.did(metafile.Name, "compacted up to the snapshot at %d: what is damaged lies below, and is covered by it", m.Snapshot.Index)
	if err := f.Restore(); err != nil {
		return err
	}
	return f.Commit(m)
}

// openMeta opens wal.meta, with the key of an encrypted log.
func (w *work) openMeta(readOnly bool) (*metafile.File, error) {
	f, err := metafile.Open(w.fsys, w.dir, readOnly)
	if err != nil {
		return nil, err
	}
	if f.Meta().Encrypted {
		if err := f.Unlock(w.o.Wrapper, w.o.Host.Random); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, nil
}

// open lets the engine recover the log, and close it. Only if it refuses damage it
// is told to keep what is in front of it.
func (w *work) open(l *inspect.Log) error {
	if err := w.give(); err != nil {
		return err
	}
	opts := mmapwal.Options{MustExist: true, Logger: slog.New(slog.DiscardHandler), FileDataSize: dataBytes(l)}
	if l.Meta != nil && l.Meta.Encrypted {
		opts.KeyWrapper = w.o.Wrapper
	}
	before, err := w.names()
	if err != nil {
		return err
	}
	h := w.o.Host
	h.FS = w.fsys
	d, err := mmapwal.OpenOn(h, w.dir, &opts)
	if errors.Is(err, mmapwal.ErrCorrupt) && l.Meta != nil {
		// Nothing that was looked at told of it.
		w.truth.more = true
		w.truth.doubt.add(span{max(l.Meta.Snapshot.Index, l.Meta.Compacted.Index) + 1, l.Last})
		opts.Recovery = mmapwal.KeepValidPrefix
		d, err = mmapwal.OpenOn(h, w.dir, &opts)
	}
	if err != nil {
		return err
	}
	r := d.Stats().Recovery
	if err := errors.Join(d.Close(), w.keepOwners(before)); err != nil {
		return err
	}
	for _, path := range r.SetAside {
		number, _, _ := strings.Cut(filepath.Base(path), entryfile.Suffix)
		w.did(number+entryfile.Suffix, "set aside as %s", filepath.Base(path))
	}
	if r.TornBytes > 0 {
		w.didDropTorn(l)
	}
	if r.HealedPages > 0 {
		w.did(metafile.Name, "damaged pages written anew")
	}
	return nil
}

func (w *work) didDropTorn(l *inspect.Log) {
	for _, p := range l.Problems {
		if p.Kind == inspect.KindTorn {
			w.did(p.File, "the torn tail of %d bytes dropped: it was never promised", p.Length)
		}
	}
}

// dataBytes returns the size of the last file's data region, which the next file
// gets, too; 0 if that is not known.
func dataBytes(l *inspect.Log) int64 {
	if len(l.Files) == 0 {
		return 0
	}
	n := l.Files[len(l.Files)-1].Size - entryfile.DataStart
	if n < entryfile.MinDataBytes || n > entryfile.MaxDataBytes {
		return 0
	}
	return n
}
