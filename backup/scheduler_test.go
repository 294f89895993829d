package backup_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/backup"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// clock is a Clock that stands still until the test moves it.
type clock struct {
	mu      sync.Mutex
	now     time.Time
	waits   chan wait // each call of After
	pending *wait     // the one that idle has seen
}

type wait struct {
	d    time.Duration
	fire chan time.Time
}

func newClock() *clock {
	return &clock{now: time.Date(2026, 11, 21, 14, 0, 0, 0, time.UTC), waits: make(chan wait, 1)}
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) After(d time.Duration) <-chan time.Time {
	w := wait{d, make(chan time.Time, 1)}
	c.waits <- w
	return w.fire
}

// idle waits until the scheduler waits, and returns for how long: the backup before
// is over then.
func (c *clock) idle(t *testing.T) time.Duration {
	t.Helper()
	select {
	case w := <-c.waits:
		c.pending = &w
	case <-time.After(time.Minute):
		t.Fatal("the scheduler does not wait")
	}
	return c.pending.d
}

// pass lets the time pass that the scheduler waits for, and waits until it waits again.
func (c *clock) pass(t *testing.T) time.Duration {
	t.Helper()
	c.mu.Lock()
	c.now = c.now.Add(c.pending.d)
	c.mu.Unlock()
	c.pending.fire <- c.now
	return c.idle(t)
}

// jump moves the clock, and not the time.
func (c *clock) jump(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// list returns the names in a directory, shortened to the minute and the kind.
func list(t *testing.T, dir string) string {
	t.Helper()
	infos, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, info := range infos {
		name := strings.TrimSuffix(info.Name(), ".tar")
		names = append(names, name[9:13]+name[len(name)-5:])
	}
	return strings.Join(names, " ")
}

// chains reads the chains in a directory, oldest first.
func chains(t *testing.T, dir string) (all [][][]byte) {
	t.Helper()
	infos, err := os.ReadDir(dir)
	must(t, err)
	for _, info := range infos {
		b, err := os.ReadFile(filepath.Join(dir, info.Name()))
		must(t, err)
		if strings.HasSuffix(info.Name(), "-full.tar") {
			all = append(all, nil)
		}
		all[len(all)-1] = append(all[len(all)-1], b)
	}
	return all
}

func TestScheduler(t *testing.T) {
	d := open(t, t.TempDir())
	build(t, d)
	dir, c := filepath.Join(t.TempDir(), "backups"), newClock()
	var logged bytes.Buffer
	o := backup.SchedulerOptions{
		Dir: dir, Interval: 10 * time.Minute, Keep: 2, Increments: 2, Clock: c, Logger: slog.New(slog.NewTextHandler(&logged, nil)),
	}
	s, err := backup.NewScheduler(d, o)
	must(t, err)
	if at, err := s.LastBackup(); !at.IsZero() || err != nil {
		t.Errorf("last backup %v, %v, before there was one", at, err)
	}
	if d := c.idle(t); d != 0 {
		t.Errorf("waits %v for the first one", d)
	}
	for k := range uint64(8) {
		if d := c.pass(t); d != o.Interval {
			t.Errorf("waits for %v", d)
		}
		if at, err := s.LastBackup(); !at.Equal(c.Now()) || err != nil {
			t.Errorf("last backup %v, %v, now is %v", at, err, c.Now())
		}
		all := chains(t, dir)
		same(t, "newest chain", restored(t, nil, all[len(all)-1]...), content(t, d))
		save(t, d, 45+k, 45+k, 5, 1000)
	}
	s.Close()
	if got, want := list(t, dir), "1430-full 1440-incr 1450-incr 1500-full 1510-incr"; got != want {
		t.Errorf("kept %s, want %s", got, want)
	}
	if n := strings.Count(logged.String(), "\n"); n != 8 || strings.Count(logged.String(), "level=INFO msg=\"raftwal: backup made\"") != 8 {
		t.Errorf("%d lines logged:\n%s", n, logged.String())
	}
	for _, chain := range chains(t, dir) {
		restored(t, nil, chain...)
	}

	// The next run begins with a full backup, when it is due.
	must(t, os.WriteFile(filepath.Join(dir, "20261121T160000.000000000Z-full.tar.tmp"), []byte("half"), 0o600))
	c.now = c.now.Add(4 * time.Minute)
	s, err = backup.NewScheduler(d, o)
	must(t, err)
	if at, _ := s.LastBackup(); at.IsZero() {
		t.Error("it does not know the backups that are there")
	}
	if d := c.idle(t); d != 6*time.Minute {
		t.Errorf("waits %v for the next one", d)
	}
	c.pass(t)
	s.Close()
	if got, want := list(t, dir), "1500-full 1510-incr 1520-full"; got != want {
		t.Errorf("kept %s, want %s", got, want)
	}
}

// TestSchedulerFails: a failure is told, leaves nothing, and ends nothing.
func TestSchedulerFails(t *testing.T) {
	d := open(t, t.TempDir())
	build(t, d)
	var disk vfstest.Switch
	dir, c := t.TempDir(), newClock()
	var logged bytes.Buffer
	o := backup.SchedulerOptions{Dir: dir, Interval: time.Hour, Keep: 1, Clock: c, Logger: slog.New(slog.NewTextHandler(&logged, nil))}
	o.SetFS(vfstest.New(vfs.OS(), disk.Before))
	s, err := backup.NewScheduler(d, o)
	must(t, err)
	defer s.Close()
	c.idle(t)
	c.pass(t)
	first, _ := s.LastBackup()
	for _, op := range []vfstest.Op{vfstest.OpCreate, vfstest.OpWrite, vfstest.OpSync, vfstest.OpRename} {
		disk.Set(vfstest.FailFrom(1, syscall.ENOSPC, op))
		c.pass(t)
		if at, err := s.LastBackup(); !at.Equal(first) || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: last backup %v, %v", op, at, err)
		}
		if got := list(t, dir); got != "1400-full" {
			t.Errorf("%s: left %s", op, got)
		}
	}
	if n := strings.Count(logged.String(), "level=ERROR msg=\"raftwal: backup failed\""); n != 4 {
		t.Errorf("%d failures logged:\n%s", n, logged.String())
	}
	disk.Set(nil)
	c.pass(t)
	if at, err := s.LastBackup(); !at.Equal(c.Now()) || err != nil {
		t.Errorf("last backup %v, %v", at, err)
	}
	if got := list(t, dir); got != "1900-full" {
		t.Errorf("left %s", got)
	}
}

// stuck is a Source whose backups end only with their context.
type stuck struct{ begun chan struct{} }

func (s stuck) Backup(ctx context.Context, w io.Writer) (m mmapwal.Manifest, err error) {
	if _, err := io.WriteString(w, "half a backup"); err != nil {
		return m, err
	}
	close(s.begun)
	<-ctx.Done()
	return m, ctx.Err()
}

func (s stuck) BackupSince(ctx context.Context, w io.Writer, _ mmapwal.Manifest) (mmapwal.Manifest, error) {
	return s.Backup(ctx, w)
}

func TestSchedulerClose(t *testing.T) {
	dir, source := t.TempDir(), stuck{make(chan struct{})}
	s, err := backup.NewScheduler(source, backup.SchedulerOptions{Dir: dir, Interval: time.Hour, Keep: 1, Logger: quiet})
	must(t, err)
	<-source.begun
	s.Close()
	s.Close()
	if at, err := s.LastBackup(); !at.IsZero() || err != nil {
		t.Errorf("last backup %v, %v", at, err)
	}
	nothingIn(t, dir)
}

func TestSchedulerOptions(t *testing.T) {
	good := backup.SchedulerOptions{Dir: t.TempDir(), Interval: time.Hour, Keep: 1, Logger: quiet}
	for name, edit := range map[string]func(*backup.SchedulerOptions){
		"no directory":        func(o *backup.SchedulerOptions) { o.Dir = "" },
		"no interval":         func(o *backup.SchedulerOptions) { o.Interval = 0 },
		"nothing kept":        func(o *backup.SchedulerOptions) { o.Keep = 0 },
		"negative increments": func(o *backup.SchedulerOptions) { o.Increments = -1 },
	} {
		o := good
		edit(&o)
		if s, err := backup.NewScheduler(nil, o); !errors.Is(err, mmapwal.ErrInvalid) || s != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
