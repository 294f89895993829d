package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// Source is what is backed up: a *mmapwal.DiskStorage.
type Source interface {
	Backup(ctx context.Context, w io.Writer) (mmapwal.Manifest, error)
	BackupSince(ctx context.Context, w io.Writer, parent mmapwal.Manifest) (mmapwal.Manifest, error)
}

// Clock tells the time, for tests. Its methods are those of package time.
type Clock interface {
	Now() time.Time
	After(d time.Duration) <-chan time.Time
}

// SchedulerOptions of a Scheduler.
type SchedulerOptions struct {
	// Dir is where the backups go, and nothing else should. It is made (mode 0700)
	// if it is missing. One Scheduler at a time may use it.
	Dir string
	// Interval is the time from the beginning of one backup to that of the next.
	Interval time.Duration
	// Keep is how many full backups are kept, at least 1, with the increments that
	// build on them. Older ones are removed after a newer one is complete.
	Keep int
	// Increments is how many increments follow a full backup before the next one;
	// 0: all backups are full.
	Increments int
	// Logger is told of each backup and each failure. nil means slog.Default().
	Logger *slog.Logger
	// Clock is for tests; nil is the system's.
	Clock Clock

	fsys vfs.FS
}

// Scheduler makes backups at regular intervals, into files of a directory, named by
// the time and in its order: 20060102T150405.000000000Z-full.tar, and -incr.tar for an
// increment, which builds on all files from the last full one on. A file has its name
// only once it is complete and durable. All methods may be called concurrently.
type Scheduler struct {
	source Source
	o      SchedulerOptions
	cancel context.CancelFunc
	done   chan struct{}

	// Those of the goroutine that makes the backups.
	ctx        context.Context
	parent     *mmapwal.Manifest // of the last backup of this run
	increments int               // since the last full one
	newest     time.Time         // that the newest name says

	mu   sync.Mutex // guards what follows
	last time.Time
	err  error
}

// NewScheduler starts a Scheduler. The first backup, a full one, is made one Interval
// after the newest one in Dir, at once if there is none: so a process that is started
// again and again does not replace all that is kept. Close ends it; close it before
// the log.
//
// Errors: mmapwal.ErrInvalid for options out of range; what the operating system
// answers.
func NewScheduler(source Source, o SchedulerOptions) (*Scheduler, error) {
	if o.Dir == "" || o.Interval <= 0 || o.Keep < 1 || o.Increments < 0 {
		return nil, fmt.Errorf("backup: scheduler: %w: Dir %q, Interval %v (at least 1 ns), Keep %d (at least 1), Increments %d (at least 0)",
			mmapwal.ErrInvalid, o.Dir, o.Interval, o.Keep, o.Increments)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Clock == nil {
		o.Clock = systemClock{}
	}
	if o.fsys == nil {
		o.fsys = vfs.OS()
	}
	s := &Scheduler{source: source, o: o, done: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	wait, err := s.begin()
	if err != nil {
		s.cancel()
		return nil, fmt.Errorf("backup: scheduler: %w", err)
	}
	go s.run(wait)
	return s, nil
}

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// LastBackup returns the time of the newest complete backup, zero if there is none,
// and the error of the last attempt of this run, nil if it succeeded.
func (s *Scheduler) LastBackup() (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, s.err
}

// Close stops a backup that is under way, of which nothing is left, and waits until it
// has.
func (s *Scheduler) Close() {
	s.cancel()
	<-s.done
}

// begin removes what an earlier run left incomplete, and returns how long it is until
// the first backup.
func (s *Scheduler) begin() (wait time.Duration, err error) {
	if err := s.o.fsys.MkdirAll(s.o.Dir); err != nil {
		return 0, err
	}
	infos, err := s.o.fsys.List(s.o.Dir)
	if err != nil {
		return 0, err
	}
	for _, info := range infos {
		if name, ok := strings.CutSuffix(info.Name, temporarySuffix); ok && isBackup(name) {
			if err := s.o.fsys.Remove(filepath.Join(s.o.Dir, info.Name)); err != nil {
				return 0, err
			}
		} else if isBackup(info.Name) {
			s.newest, _ = timeOf(info.Name)
		}
	}
	if s.last = s.newest; s.last.IsZero() {
		return 0, nil
	}
	return min(max(s.newest.Add(s.o.Interval).Sub(s.o.Clock.Now()), 0), s.o.Interval), nil
}

func (s *Scheduler) run(wait time.Duration) {
	defer close(s.done)
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.o.Clock.After(wait):
		}
		begun := s.o.Clock.Now()
		s.backUp(begun)
		wait = max(0, s.o.Interval-s.o.Clock.Now().Sub(begun))
	}
}

// backUp makes a backup and removes old ones.
func (s *Scheduler) backUp(begun time.Time) {
	suffix := fullSuffix
	if s.parent != nil && s.increments < s.o.Increments {
		suffix = incrementSuffix
	}
	at := begun.UTC()
	if !at.After(s.newest) {
		at = s.newest.Add(1) // the clock went back; the names must not
	}
	name := at.Format(timeFormat) + suffix
	m, err := s.write(name, suffix == incrementSuffix)
	if s.ctx.Err() != nil {
		return
	}
	if err == nil {
		s.parent, s.newest = &m, at
		s.increments++
		if suffix == fullSuffix {
			s.increments = 0
		}
		err = s.prune()
	}
	s.mu.Lock()
	s.last, s.err = s.newest, err
	s.mu.Unlock()
	file := filepath.Join(s.o.Dir, name)
	if err != nil {
		s.o.Logger.Error("raftwal: backup failed", "file", file, "err", err)
		return
	}
	s.o.Logger.Info("raftwal: backup made", "file", file, "bytes", m.Stored(), "first", m.First, "last", m.Last,
		"duration", s.o.Clock.Now().Sub(begun))
}

// write makes one backup under a temporary name, and gives it its own, durably.
func (s *Scheduler) write(name string, increment bool) (m mmapwal.Manifest, err error) {
	file := filepath.Join(s.o.Dir, name)
	f, err := vfs.CreateAnew(s.o.fsys, file+temporarySuffix)
	if err != nil {
		return m, err
	}
	defer func() {
		if err != nil {
			_ = s.o.fsys.Remove(file + temporarySuffix) // else the next run removes it
		}
	}()
	w := io.NewOffsetWriter(f, 0)
	if increment {
		m, err = s.source.BackupSince(s.ctx, w, *s.parent)
	} else {
		m, err = s.source.Backup(s.ctx, w)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return m, err
	}
	if err := s.o.fsys.Rename(file+temporarySuffix, file); err != nil {
		return m, err
	}
	return m, s.o.fsys.SyncDir(s.o.Dir)
}

// prune removes what is older than the full backups that are kept: what builds on
// others first.
func (s *Scheduler) prune() error {
	infos, err := s.o.fsys.List(s.o.Dir)
	if err != nil {
		return err
	}
	fulls := 0
	for _, info := range slices.Backward(infos) {
		if !isBackup(info.Name) {
			continue
		}
		if fulls >= s.o.Keep {
			if err := s.o.fsys.Remove(filepath.Join(s.o.Dir, info.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("the backup is complete, but an old one cannot be removed: %w", err)
			}
		}
		if strings.HasSuffix(info.Name, fullSuffix) {
			fulls++
		}
	}
	return nil
}

// The names of backups: the time, in UTC, and a suffix.
const (
	timeFormat      = "20060102T150405.000000000Z"
	fullSuffix      = "-full.tar"
	incrementSuffix = "-incr.tar"
	temporarySuffix = ".tmp"
)

func isBackup(name string) bool {
	_, ok := timeOf(name)
	return ok
}

// timeOf returns the time that the name of a backup says.
func timeOf(name string) (time.Time, bool) {
	for _, suffix := range []string{fullSuffix, incrementSuffix} {
		if text, ok := strings.CutSuffix(name, suffix); ok {
			at, err := time.Parse(timeFormat, text)
			return at, err == nil
		}
	}
	return time.Time{}, false
}
