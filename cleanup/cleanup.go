// Package cleanup decides which files are dead and removes them in the
// background, but for a few that are kept to be used again.
//
// A file is dead once wal.meta says so, durably: its number is below the first
// live file's, or it holds a snapshot that a newer one replaced. Only then may
// its name be handed to a Remover. A name that survives, because it could not be
// removed or the power failed, does no harm: it is removed at a later try.
package cleanup

import (
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"

	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// File is an entry file as far as its life is concerned.
type File struct {
	Number uint64
	Last   uint64 // last live index; below any first index if there is none
}

// FirstLive returns the number from which on files are needed, when the entries
// up to the index compacted are not: that of the first file that reaches beyond
// it. next is the answer if none does: the number the next file will have, or
// that of the file being appended to.
func FirstLive(files []File, compacted, next uint64) uint64 {
	for _, f := range files {
		if f.Last > compacted {
			return f.Number
		}
	}
	return next
}

// Dead is a file that is not needed any more.
type Dead struct {
	Name string // base name
	// Spare is the name under which it may be kept to be used again; "": it may not.
	Spare string
	// Release, if not nil, gives up a hold on the file, before that.
	Release func()
	// Closed reports whether nobody reads the file any more.
	Closed func() bool
	// Plain: the file is one of an encrypted log, and is not encrypted.
	Plain bool
}

// Remover removes files of one directory, one goroutine at a time and none while
// there is nothing to do. A few entry files it keeps as spares. Its methods may be
// called concurrently.
type Remover struct {
	files vfs.Files
	dir   string
	log   *slog.Logger
	// syncFailed is told when the directory could not be synced.
	syncFailed func(error)
	runner     *host.Runner

	mu        sync.Mutex
	queue     []Dead
	failed    map[string]error
	plain     map[string]bool // dead, not encrypted, and not known to be gone
	removed   uint64
	spares    []string // base names, to be used again
	maxSpares int
}

// NewRemover returns a Remover of files of dir, which keeps up to maxSpares spare files. It
// reports failures to log, and a failed sync of the directory to syncFailed as well.
func NewRemover(h host.Host, files vfs.Files, dir string, maxSpares int, log *slog.Logger, syncFailed func(error)) *Remover {
	r := &Remover{files: files, dir: dir, maxSpares: maxSpares, log: log, syncFailed: syncFailed,
		failed: make(map[string]error), plain: make(map[string]bool)}
	r.runner = host.NewRunner(h, r.run)
	return r
}

// Remove has files removed soon, together with all that failed before. It does not
// wait.
func (r *Remover) Remove(dead ...Dead) {
	if r.enqueue(dead) {
		r.runner.Wake()
	}
}

// enqueue reports whether there is something to do.
func (r *Remover) enqueue(dead []Dead) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = append(r.queue, dead...)
	for _, d := range dead {
		if d.Plain {
			r.plain[d.Name] = true
		}
	}
	for name := range r.failed {
		if !slices.ContainsFunc(r.queue, func(d Dead) bool { return d.Name == name }) {
			r.queue = append(r.queue, Dead{Name: name})
		}
	}
	return len(r.queue) > 0
}

// Finish waits for the files that are being removed, and reports whether any of them is gone,
// and with it its space.
func (r *Remover) Finish() (gone bool) {
	before := r.Stats().Removed
	r.Wait()
	return r.Stats().Removed > before
}

// DropSpare removes a spare file, and reports whether there was one.
func (r *Remover) DropSpare() bool {
	name := r.TakeSpare()
	if name == "" {
		return false
	}
	r.note(name, r.files.Remove(filepath.Join(r.dir, name)))
	return true
}

// Wait returns when nothing is being removed any more.
func (r *Remover) Wait() { r.runner.Wait() }

// AddSpares takes spare files that are there under these names; those beyond the
// limit are removed.
func (r *Remover) AddSpares(names ...string) {
	r.mu.Lock()
	room := min(len(names), r.maxSpares-len(r.spares))
	r.spares = append(r.spares, names[:room]...)
	r.mu.Unlock()
	for _, name := range names[room:] {
		r.Remove(Dead{Name: name})
	}
}

// TakeSpare returns the name of a spare file, which is the caller's from then on; ""
// if there is none.
func (r *Remover) TakeSpare() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.spares) == 0 {
		return ""
	}
	name := r.spares[0]
	r.spares = r.spares[1:]
	return name
}

// Stats says what has been removed, what could not be, and what was kept.
type Stats struct {
	Removed uint64           // files
	Failed  map[string]error // by base name
	Spares  int              // files kept to be used again
	Plain   int              // files of an encrypted log that are not encrypted, and not gone yet
}

// Stats returns a copy of the current figures.
func (r *Remover) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Stats{Removed: r.removed, Failed: make(map[string]error, len(r.failed)), Spares: len(r.spares), Plain: len(r.plain)}
	for name, err := range r.failed {
		s.Failed[name] = err
	}
	return s
}

// run removes what is queued. A file is a spare, to be cleared and used, only when its
// name is durable: until then a crash can bring it back under its old one.
func (r *Remover) run() {
	queue, room := r.take()
	if len(queue) == 0 {
		return
	}
	var kept []string
	for _, d := range queue {
		if d.Release != nil {
			d.Release()
		}
		if len(kept) < room && r.keep(d) {
			kept = append(kept, d.Spare)
			continue
		}
		r.note(d.Name, r.files.Remove(filepath.Join(r.dir, d.Name)))
	}
	if err := r.files.SyncDir(r.dir); err != nil {
		r.log.Error("raftwal: directory not synced after removals", "dir", r.dir, "err", err)
		r.syncFailed(err)
		return
	}
	r.forgetPlain(queue)
	r.AddSpares(kept...)
}

// forgetPlain notes that files are gone for good, but for those that could not be removed.
func (r *Remover) forgetPlain(queue []Dead) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range queue {
		if r.failed[d.Name] == nil {
			delete(r.plain, d.Name)
		}
	}
}

// keep gives a dead file its name as a spare, and reports whether it has it.
func (r *Remover) keep(d Dead) bool {
	if d.Spare == "" || !d.Closed() {
		return false
	}
	return r.files.Rename(filepath.Join(r.dir, d.Name), filepath.Join(r.dir, d.Spare)) == nil
}

// take returns what is queued, and how many spares may still be kept.
func (r *Remover) take() (queue []Dead, room int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	queue, r.queue = r.queue, nil
	return queue, r.maxSpares - len(r.spares)
}

func (r *Remover) note(name string, err error) {
	r.mu.Lock()
	_, before := r.failed[name]
	gone := err == nil || errors.Is(err, fs.ErrNotExist)
	if gone {
		delete(r.failed, name)
		r.removed++
	} else {
		r.failed[name] = err
	}
	r.mu.Unlock()
	if !gone && !before {
		r.log.Warn("raftwal: dead file not removed; will try again", "file", filepath.Join(r.dir, name), "err", err)
	}
}
