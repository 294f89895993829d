// Package cleanup decides which files are dead and removes them in the
// background.
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

// Remover removes files of one directory, one goroutine at a time and none while
// there is nothing to do. Its methods may be called concurrently.
type Remover struct {
	host host.Host
	dir  string
	log  *slog.Logger
	// syncFailed is told when the directory could not be synced.
	syncFailed func(error)

	mu      sync.Mutex
	idle    *sync.Cond // broadcast when running ends
	running bool
	queue   []string
	failed  map[string]error
	removed uint64
}

// NewRemover returns a Remover for dir. It reports failures to log, and a failed
// sync of the directory to syncFailed as well.
func NewRemover(h host.Host, dir string, log *slog.Logger, syncFailed func(error)) *Remover {
	r := &Remover{host: h, dir: dir, log: log, syncFailed: syncFailed, failed: make(map[string]error)}
	r.idle = sync.NewCond(&r.mu)
	return r
}

// Remove has the files with these base names removed soon, together with all
// that failed before. It does not wait.
func (r *Remover) Remove(names ...string) {
	if r.enqueue(names) {
		r.host.Go(r.run)
	}
}

// enqueue reports whether a run has to be started.
func (r *Remover) enqueue(names []string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = append(r.queue, names...)
	for name := range r.failed {
		if !slices.Contains(r.queue, name) {
			r.queue = append(r.queue, name)
		}
	}
	if len(r.queue) == 0 || r.running {
		return false
	}
	r.running = true
	return true
}

// Wait returns when nothing is being removed any more.
func (r *Remover) Wait() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.running {
		r.idle.Wait()
	}
}

// Stats says what has been removed, and what could not be.
type Stats struct {
	Removed uint64           // files
	Failed  map[string]error // by base name
}

// Stats returns a copy of the current figures.
func (r *Remover) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Stats{Removed: r.removed, Failed: make(map[string]error, len(r.failed))}
	for name, err := range r.failed {
		s.Failed[name] = err
	}
	return s
}

func (r *Remover) run() {
	for {
		names := r.take()
		if names == nil {
			return
		}
		for _, name := range names {
			r.note(name, r.host.FS.Remove(filepath.Join(r.dir, name)))
		}
		if err := r.host.FS.SyncDir(r.dir); err != nil {
			r.log.Error("raftwal: directory not synced after removals", "dir", r.dir, "err", err)
			r.syncFailed(err)
		}
	}
}

// take returns the queued names, or nil when there are none: then it has ended
// the run.
func (r *Remover) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := r.queue
	r.queue = nil
	if names == nil {
		r.running = false
		r.idle.Broadcast()
	}
	return names
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
