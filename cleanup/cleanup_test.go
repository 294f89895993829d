package cleanup_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/cleanup"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
)

func TestFirstLive(t *testing.T) {
	three := []cleanup.File{{Number: 4, Last: 10}, {Number: 5, Last: 20}, {Number: 7, Last: 30}}
	tests := []struct {
		name            string
		files           []cleanup.File
		compacted, next uint64
		want            uint64
	}{
		{"no files", nil, 0, 1, 1},
		{"no files, compacted", nil, 100, 9, 9},
		{"nothing compacted", three, 0, 8, 4},
		{"inside the first", three, 9, 8, 4},
		{"end of the first", three, 10, 8, 5},
		{"start of the second", three, 11, 8, 5},
		{"end of the second", three, 20, 8, 7},
		{"one before the end", three, 29, 8, 7},
		{"all", three, 30, 8, 8},
		{"beyond all", three, 1000, 8, 8},
		{"a file without live entries", []cleanup.File{{4, 10}, {5, 0}, {6, 20}}, 10, 7, 6},
		{"a file without live entries behind a needed one", []cleanup.File{{4, 10}, {5, 0}, {6, 20}}, 5, 7, 4},
	}
	for _, test := range tests {
		if got := cleanup.FirstLive(test.files, test.compacted, test.next); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

// remover is a Remover on a disk that fails as hook says.
type remover struct {
	*cleanup.Remover
	fsys *vfstest.FS
	hook vfstest.Switch
	dir  string

	mu       sync.Mutex
	log      bytes.Buffer
	syncErrs []error
}

// named are files that cannot be kept.
func named(names ...string) (dead []cleanup.Dead) {
	for _, name := range names {
		dead = append(dead, cleanup.Dead{Name: name})
	}
	return dead
}

func newRemover(t *testing.T, files ...string) *remover {
	t.Helper()
	r := &remover{dir: t.TempDir()}
	r.fsys = vfstest.New(vfs.OS(), r.hook.Before)
	for _, name := range files {
		if err := os.WriteFile(filepath.Join(r.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.NewTextHandler(&r.log, nil)) // its handler locks
	r.Remover = cleanup.NewRemover(host.OS(), r.fsys, r.dir, 2, log, func(err error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.syncErrs = append(r.syncErrs, err)
	})
	t.Cleanup(r.Wait)
	return r
}

func (r *remover) wantFiles(t *testing.T, want ...string) {
	t.Helper()
	infos, err := vfs.OS().List(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, info := range infos {
		got = append(got, info.Name)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("files %v, want %v", got, want)
	}
}

func TestRemove(t *testing.T) {
	r := newRemover(t, "a", "b", "c")
	r.Wait() // nothing to do
	r.Remove()
	r.Wait()
	if n := r.fsys.Total(); n != 0 {
		t.Errorf("%d operations without a name", n)
	}
	r.Remove(named("a", "c", "gone already")...)
	r.Wait()
	r.wantFiles(t, "b")
	if s := r.Stats(); s.Removed != 3 || len(s.Failed) != 0 {
		t.Errorf("%+v, want 3 removed", s)
	}
	if n := r.fsys.Count(vfstest.OpSyncDir); n != 1 {
		t.Errorf("the directory was synced %d times, want once", n)
	}
	if r.log.Len() != 0 || r.syncErrs != nil {
		t.Errorf("reported without a failure: %s %v", &r.log, r.syncErrs)
	}
}

func TestFailureIsTriedAgain(t *testing.T) {
	r := newRemover(t, "a", "b", "c")
	r.hook.Set(func(op vfstest.Op, name string) error {
		if op == vfstest.OpRemove && filepath.Base(name) == "a" {
			return vfstest.Error(op, name, syscall.EACCES)
		}
		return nil
	})
	r.Remove(named("a", "b")...)
	r.Wait()
	r.wantFiles(t, "a", "c")
	s := r.Stats()
	if s.Removed != 1 || len(s.Failed) != 1 || !errors.Is(s.Failed["a"], syscall.EACCES) {
		t.Errorf("%+v, want a to have failed", s)
	}
	s.Failed["x"] = nil // a copy

	r.Remove(named("c")...) // and a, in vain
	r.Wait()
	r.wantFiles(t, "a")
	if n := strings.Count(r.log.String(), "dead file not removed"); n != 1 {
		t.Errorf("logged %d times, want once:\n%s", n, &r.log)
	}

	r.hook.Set(nil)
	r.Remove()
	r.Wait()
	r.wantFiles(t)
	if s := r.Stats(); s.Removed != 3 || len(s.Failed) != 0 {
		t.Errorf("%+v, want 3 removed and none failed", s)
	}
}

func TestGivenAgainWhileFailed(t *testing.T) {
	r := newRemover(t, "a")
	r.hook.Set(vfstest.FailNth(1, syscall.EIO, vfstest.OpRemove))
	r.Remove(named("a")...)
	r.Wait()
	r.Remove(named("a")...)
	r.Wait()
	if n := r.fsys.Count(vfstest.OpRemove); n != 2 {
		t.Errorf("%d removals, want 2", n)
	}
	r.wantFiles(t)
}

func TestRemovedBehindItsBack(t *testing.T) {
	r := newRemover(t, "a")
	r.hook.Set(vfstest.FailNth(1, syscall.EIO, vfstest.OpRemove))
	r.Remove(named("a")...)
	r.Wait()
	if err := os.Remove(filepath.Join(r.dir, "a")); err != nil {
		t.Fatal(err)
	}
	r.Remove()
	r.Wait()
	if s := r.Stats(); s.Removed != 1 || len(s.Failed) != 0 {
		t.Errorf("%+v, want it taken as removed", s)
	}
}

func TestSyncFailureIsReported(t *testing.T) {
	r := newRemover(t, "a", "b")
	r.hook.Set(vfstest.FailNth(1, syscall.EIO, vfstest.OpSyncDir))
	r.Remove(named("a")...)
	r.Wait()
	if len(r.syncErrs) != 1 || !vfs.SyncFailed(r.syncErrs[0]) || !errors.Is(r.syncErrs[0], syscall.EIO) {
		t.Errorf("reported %v, want one failed sync", r.syncErrs)
	}
	if !strings.Contains(r.log.String(), "not synced") {
		t.Errorf("not logged:\n%s", &r.log)
	}
	r.Remove(named("b")...)
	r.Wait()
	r.wantFiles(t)
	if len(r.syncErrs) != 1 {
		t.Errorf("reported %v, want one failed sync", r.syncErrs)
	}
}

// TestRemoveDoesNotWait: a slow disk holds up only who waits.
func TestRemoveDoesNotWait(t *testing.T) {
	r := newRemover(t, "a", "b")
	begun, proceed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r.hook.Set(func(op vfstest.Op, name string) error {
		if op == vfstest.OpRemove {
			once.Do(func() { close(begun); <-proceed })
		}
		return nil
	})
	r.Remove(named("a")...)
	<-begun
	r.Remove(named("b")...) // queued
	if s := r.Stats(); s.Removed != 0 {
		t.Errorf("%+v, want nothing removed so far", s)
	}
	r.wantFiles(t, "a", "b")
	close(proceed)
	r.Wait()
	r.wantFiles(t)
}

func TestConcurrentUse(t *testing.T) {
	const workers, each = 8, 20
	var names []string
	for i := range workers * each {
		names = append(names, fmt.Sprintf("f%03d", i))
	}
	r := newRemover(t, names...)
	var calls sync.Map // names that failed once
	r.hook.Set(func(op vfstest.Op, name string) error {
		if _, before := calls.LoadOrStore(name, true); op == vfstest.OpRemove && !before {
			return vfstest.Error(op, name, syscall.EBUSY)
		}
		return nil
	})
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				r.Remove(named(names[w*each+i])...)
				_ = r.Stats()
				if i%7 == 0 {
					r.Wait()
				}
			}
		})
	}
	wg.Wait()
	r.Wait()
	r.Remove()
	r.Wait()
	r.wantFiles(t)
	if s := r.Stats(); len(s.Failed) != 0 || s.Removed < workers*each {
		t.Errorf("%+v, want all removed", s)
	}
	if _, err := os.Stat(r.dir); errors.Is(err, fs.ErrNotExist) {
		t.Error("the directory is gone")
	}
}
