package backup_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/backup"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// stages is a Source that is a log as it was at several times. What it makes it makes once,
// so that equal chains have equal bytes.
type stages struct {
	logs     []*mmapwal.DiskStorage
	contents []string
	now      int
	made     map[stageKey]stageBackup
	restored map[[32]byte]int // the stage that a chain leads to
}

type stageKey struct {
	stage  int
	parent string // its hash
}

type stageBackup struct {
	content  []byte
	manifest mmapwal.Manifest
}

func newStages(t *testing.T, n int) *stages {
	s := &stages{made: make(map[stageKey]stageBackup), restored: make(map[[32]byte]int)}
	dir := t.TempDir()
	for k := range uint64(n) {
		d := open(t, dir)
		save(t, d, 1+5*k, 5+5*k, 1, 50)
		must(t, d.Close())
		stage := t.TempDir()
		must(t, os.CopyFS(stage, os.DirFS(dir)))
		d = open(t, stage, readOnly)
		s.logs, s.contents = append(s.logs, d), append(s.contents, content(t, d))
	}
	return s
}

func (s *stages) Backup(ctx context.Context, w io.Writer) (mmapwal.Manifest, error) {
	return s.make(w, stageKey{s.now, ""}, func(w io.Writer) (mmapwal.Manifest, error) { return s.logs[s.now].Backup(ctx, w) })
}

func (s *stages) BackupSince(ctx context.Context, w io.Writer, parent mmapwal.Manifest) (mmapwal.Manifest, error) {
	return s.make(w, stageKey{s.now, parent.Hash()},
		func(w io.Writer) (mmapwal.Manifest, error) { return s.logs[s.now].BackupSince(ctx, w, parent) })
}

func (s *stages) make(w io.Writer, key stageKey, make func(io.Writer) (mmapwal.Manifest, error)) (mmapwal.Manifest, error) {
	b, ok := s.made[key]
	if !ok {
		var content bytes.Buffer
		m, err := make(&content)
		if err != nil {
			return m, err
		}
		b = stageBackup{content.Bytes(), m}
		s.made[key] = b
	}
	_, err := w.Write(b.content)
	return b.manifest, err
}

// restore restores from a directory by the rule of the documentation, all files from the
// newest full one on, and returns the stage that the log is in; -1 if there is no full one.
func (s *stages) restore(t *testing.T, fsys vfs.FS, dir string) int {
	t.Helper()
	infos, err := fsys.List(dir)
	must(t, err)
	var chain [][]byte
	var names []string
	for _, info := range infos {
		if !strings.HasSuffix(info.Name, ".tar") {
			continue
		}
		if strings.HasSuffix(info.Name, "-full.tar") {
			chain, names = [][]byte{}, nil
		}
		if chain != nil {
			chain, names = append(chain, readAll(t, fsys, filepath.Join(dir, info.Name))), append(names, info.Name)
		}
	}
	if chain == nil {
		return -1
	}
	sum := sha256.Sum256(bytes.Join(chain, nil))
	if stage, ok := s.restored[sum]; ok {
		return stage
	}
	to := filepath.Join(t.TempDir(), "log")
	if _, err := backup.Restore(t.Context(), to, unsyncedRestore(nil), readers(chain)...); err != nil {
		t.Fatalf("%q: %v", names, err)
	}
	d := open(t, to, readOnly)
	defer d.Close()
	is := content(t, d)
	for stage := range s.contents {
		if s.contents[stage] == is {
			s.restored[sum] = stage
			return stage
		}
	}
	t.Fatalf("%q: restored what never was", names)
	return -1
}

func readAll(t *testing.T, fsys vfs.FS, name string) []byte {
	t.Helper()
	f, err := fsys.Open(name, true)
	must(t, err)
	defer f.Close()
	size, err := f.Size()
	must(t, err)
	b := make([]byte, size)
	_, err = io.ReadFull(io.NewSectionReader(f, 0, size), b)
	must(t, err)
	return b
}

// doneAndFailed does the renames and syncs of directories that fail.
type doneAndFailed struct {
	vfs.FS
	before func(vfstest.Op, string) error
}

func (f doneAndFailed) Rename(from, to string) error {
	return errors.Join(f.FS.Rename(from, to), f.before(vfstest.OpRename, from))
}

func (f doneAndFailed) SyncDir(dir string) error {
	return errors.Join(f.FS.SyncDir(dir), f.before(vfstest.OpSyncDir, dir))
}

// TestSchedulerEveryOperationFails lets each operation fail, once or from then on, done or
// not. Whatever is there after each backup, and after a power cut then, restores by the rule
// of the documentation, and to no earlier stage than LastBackup promises.
func TestSchedulerEveryOperationFails(t *testing.T) {
	const stageCount, seed = 7, 5
	s := newStages(t, stageCount)
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	for mode, fail := range map[string]func(n int) vfstest.Hook{
		"once":    func(n int) vfstest.Hook { return vfstest.FailNth(n, syscall.EIO) },
		"forever": func(n int) vfstest.Hook { return vfstest.FailFrom(n, syscall.EIO) },
		"done":    func(n int) vfstest.Hook { return vfstest.FailNth(n, syscall.EIO, vfstest.OpRename, vfstest.OpSyncDir) },
	} {
		for n := 1; ; n++ {
			var failed bool
			hook := fail(n)
			before := func(op vfstest.Op, name string) error {
				err := hook(op, name)
				failed = failed || err != nil
				return err
			}
			disk := simdisk.New()
			var fsys vfs.FS = vfstest.New(disk, before)
			if mode == "done" {
				fsys = doneAndFailed{disk, before}
			}
			s.run(t, disk, fsys, rng)
			if t.Failed() {
				t.Fatalf("%s: operation %d", mode, n)
			}
			if !failed {
				break
			}
		}
	}
	t.Logf("%d chains restored", len(s.restored))
}

// run makes a backup at each stage.
func (s *stages) run(t *testing.T, disk *simdisk.FS, fsys vfs.FS, rng *rand.Rand) {
	t.Helper()
	const dir = "/backups"
	c := newClock()
	o := backup.SchedulerOptions{Dir: dir, Interval: time.Hour, Keep: 1, Increments: 2, Clock: c, Logger: quiet}
	o.SetFS(fsys)
	scheduler, err := backup.NewScheduler(s, o)
	if errors.Is(err, syscall.EIO) {
		return
	}
	must(t, err)
	defer scheduler.Close()
	c.idle(t)
	promised, last := -1, time.Time{}
	for s.now = range s.logs {
		c.pass(t)
		if at, _ := scheduler.LastBackup(); at.After(last) {
			promised, last = s.now, at
		}
		if got := s.restore(t, disk, dir); got < promised {
			t.Errorf("restored stage %d of %d, promised is %d", got, s.now, promised)
		}
		if got := s.restore(t, disk.Crash(rng), dir); got < promised {
			t.Errorf("restored stage %d of %d after a power cut, promised is %d", got, s.now, promised)
		}
	}
}

// TestSchedulerClockJumps: the clock is a year ahead for a while. Backups go on, LastBackup
// never says what is later than the truth, the order of the names is that of the chain, and
// all of that holds after a restart.
func TestSchedulerClockJumps(t *testing.T) {
	s := newStages(t, 12)
	disk, c := simdisk.New(), newClock()
	const dir = "/backups"
	var logged bytes.Buffer
	o := backup.SchedulerOptions{Dir: dir, Interval: time.Hour, Keep: 2, Increments: 1, Clock: c, Logger: slog.New(slog.NewTextHandler(&logged, nil))}
	o.SetFS(disk)
	var scheduler *backup.Scheduler
	start := func(want time.Duration) {
		t.Helper()
		if scheduler != nil {
			scheduler.Close()
		}
		var err error
		scheduler, err = backup.NewScheduler(s, o)
		must(t, err)
		if d := c.idle(t); d != want {
			t.Errorf("waits for %v, want %v", d, want)
		}
	}
	defer func() { scheduler.Close() }()
	lastIs := func(want time.Time) {
		t.Helper()
		if at, err := scheduler.LastBackup(); !at.Equal(want) || err != nil {
			t.Errorf("last backup %v, %v, want %v; now is %v", at, err, want, c.Now())
		}
	}
	pass := func() time.Time {
		t.Helper()
		if d := c.pass(t); d != time.Hour {
			t.Errorf("waits for %v", d)
		}
		lastIs(c.Now())
		if got := s.restore(t, disk, dir); got != s.now {
			t.Errorf("restored stage %d, want %d", got, s.now)
		}
		s.now++
		return c.Now()
	}
	const year = 365 * 24 * time.Hour
	start(0)
	truth := pass()
	c.jump(year)
	pass()
	c.jump(-year) // while the process runs
	lastIs(truth)
	if strings.Contains(logged.String(), "WARN") {
		t.Errorf("logged too early:\n%s", &logged)
	}
	truth = pass()

	c.jump(20 * time.Minute)
	start(40 * time.Minute) // the newest name is from the future, what it was made at is not
	lastIs(truth)
	if !strings.Contains(logged.String(), "level=WARN msg=\"raftwal: the newest backup is from the future") {
		t.Errorf("logged:\n%s", &logged)
	}
	pass()

	c.jump(year / 2)
	for range 5 {
		pass() // then all that is kept is from the future
	}
	c.jump(-year / 2)
	start(0)
	lastIs(time.Time{})
	pass()
	start(time.Hour) // a restart does not make the next one
	pass()
}
