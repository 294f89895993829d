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
// increment, which builds on all files from the last full one on. Where the clock is behind
// the newest name, the next name is one nanosecond later, and says what the clock said:
// 20060102T150405.000000001Z-made-20050102T150405.000000000Z-full.tar. A file has its name
// only once all of it is durable. If nobody knows whether the name is, the backup has failed,
// and the next one is a full one: with the file and without it, the files from the newest
// full one on are a chain. All methods may be called concurrently.
type Scheduler struct {
	source Source
	o      SchedulerOptions
	cancel context.CancelFunc
	done   chan struct{}

	// Those of the goroutine that makes the backups.
	ctx        context.Context
	parent     *mmapwal.Manifest // of the last backup of this run, which the next increment builds on
	increments int               // since the last full one
	newest     time.Time         // that the newest name begins with

	mu   sync.Mutex  // guards what follows
	made []time.Time // when the backups that are there were made
	err  error
}

// NewScheduler starts a Scheduler. The first backup, a full one, is made one Interval
// after the newest one in Dir, at once if there is none: so a process that is started
// again and again does not replace all that is kept. Backups from a time that is ahead of
// the clock do not count for that. Close ends it; close it before the log.
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

// LastBackup returns when the newest complete backup was made, zero if there is none,
// and the error of the last attempt of this run, nil if it succeeded. A backup from a time
// that is ahead of the clock, since that was once wrong, is passed over for one that is
// older: the time is never later than the truth.
func (s *Scheduler) LastBackup() (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return latest(s.made, s.o.Clock.Now()), s.err
}

// latest returns the latest of the times that are not after now; zero if there is none.
func latest(times []time.Time, now time.Time) (last time.Time) {
	now = now.Round(0) // what the clock says, not what has passed
	for _, t := range times {
		if !t.After(now) && t.After(last) {
			last = t
		}
	}
	return last
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
		} else if n, ok := parseName(info.Name); ok {
			s.newest, s.made = n.at, append(s.made, n.made)
		}
	}
	if err := s.o.fsys.SyncDir(s.o.Dir); err != nil { // the names that an earlier run could not make durable
		return 0, err
	}
	now := s.o.Clock.Now()
	if s.newest.After(now) {
		s.o.Logger.Warn("raftwal: the newest backup is from the future: this clock is wrong, or was when it was made",
			"dir", s.o.Dir, "newest", s.newest, "now", now)
	}
	last := latest(s.made, now)
	if last.IsZero() {
		return 0, nil
	}
	return max(last.Add(s.o.Interval).Sub(now), 0), nil
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
		wait = min(max(0, s.o.Interval-s.o.Clock.Now().Sub(begun)), s.o.Interval)
	}
}

// backUp makes a backup and removes old ones.
func (s *Scheduler) backUp(begun time.Time) {
	increment := s.parent != nil && s.increments < s.o.Increments
	n := s.nextName(begun, increment)
	file := filepath.Join(s.o.Dir, n.String())
	m, err := s.write(file+temporarySuffix, increment)
	if err == nil {
		err = s.publish(file, n, m)
	} else if s.ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	if err != nil {
		s.o.Logger.Error("raftwal: backup failed", "file", file, "err", err)
		return
	}
	s.o.Logger.Info("raftwal: backup made", "file", file, "bytes", m.Stored(), "first", m.First, "last", m.Last,
		"duration", s.o.Clock.Now().Sub(begun))
}

// nextName returns the name of the next backup, which comes after all others.
func (s *Scheduler) nextName(begun time.Time, increment bool) backupName {
	begun = begun.UTC().Round(0)
	n := backupName{at: begun, made: begun, full: !increment}
	if !n.at.After(s.newest) {
		n.at = s.newest.Add(1) // the clock went back; the names must not
	}
	return n
}

// write makes one backup in a file with a temporary name, whose content is durable then.
func (s *Scheduler) write(temporary string, increment bool) (m mmapwal.Manifest, err error) {
	f, err := vfs.CreateAnew(s.o.fsys, temporary)
	if err != nil {
		return m, err
	}
	w := io.NewOffsetWriter(f, 0)
	if increment {
		m, err = s.source.BackupSince(s.ctx, w, *s.parent)
	} else {
		m, err = s.source.Backup(s.ctx, w)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = s.o.fsys.Remove(temporary) // else the next run removes it
	}
	return m, err
}

// publish gives a backup its name, durably, and removes old ones. From the rename on, and
// until the directory is synced, nobody knows whether a power cut leaves the file: no
// increment builds on it, nor past it on what was there before.
func (s *Scheduler) publish(file string, n backupName, m mmapwal.Manifest) error {
	s.parent, s.newest = nil, n.at
	if err := s.o.fsys.Rename(file+temporarySuffix, file); err != nil {
		_ = s.o.fsys.Remove(file + temporarySuffix) // else the next run removes it
		return err
	}
	if err := s.o.fsys.SyncDir(s.o.Dir); err != nil {
		return fmt.Errorf("the backup is complete, but a power cut may take its name; the next one is a full one: %w", err)
	}
	s.parent = &m
	s.increments++
	if n.full {
		s.increments = 0
	}
	s.mu.Lock()
	s.made = append(s.made, n.made)
	s.mu.Unlock()
	return s.prune()
}

// prune removes what is older than the full backups that are kept: what builds on
// others first.
func (s *Scheduler) prune() error {
	infos, err := s.o.fsys.List(s.o.Dir)
	if err != nil {
		return err
	}
	fulls := 0
	var made []time.Time
	for _, info := range slices.Backward(infos) {
		n, ok := parseName(info.Name)
		if !ok {
			continue
		}
		if fulls >= s.o.Keep {
			if err := s.o.fsys.Remove(filepath.Join(s.o.Dir, info.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("the backup is complete, but an old one cannot be removed: %w", err)
			}
			continue
		}
		made = append(made, n.made)
		if n.full {
			fulls++
		}
	}
	s.mu.Lock()
	s.made = made
	s.mu.Unlock()
	return nil
}

// The names of backups: the time, in UTC, what the clock said if that was another time, and
// a suffix.
const (
	timeFormat      = "20060102T150405.000000000Z"
	madeMark        = "-made-"
	fullSuffix      = "-full.tar"
	incrementSuffix = "-incr.tar"
	temporarySuffix = ".tmp"
)

// backupName is the name of a backup.
type backupName struct {
	at   time.Time // its place in the order
	made time.Time // what the clock said
	full bool
}

// String returns the name.
func (n backupName) String() string {
	name := n.at.Format(timeFormat)
	if !n.made.Equal(n.at) {
		name += madeMark + n.made.Format(timeFormat)
	}
	if n.full {
		return name + fullSuffix
	}
	return name + incrementSuffix
}

func isBackup(name string) bool {
	_, ok := parseName(name)
	return ok
}

// parseName parses what String returns.
func parseName(name string) (n backupName, ok bool) {
	text, isFull := strings.CutSuffix(name, fullSuffix)
	if !isFull {
		if text, ok = strings.CutSuffix(name, incrementSuffix); !ok {
			return n, false
		}
	}
	first, second, differ := strings.Cut(text, madeMark)
	if !differ {
		second = first
	}
	at, err := time.Parse(timeFormat, first)
	made, err2 := time.Parse(timeFormat, second)
	return backupName{at: at, made: made, full: isFull}, err == nil && err2 == nil
}
