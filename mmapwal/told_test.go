package mmapwal_test

import (
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// testLate holds back what is to run in the background.
type testLate struct {
	mu   sync.Mutex
	late bool
	held []func()
}

func (l *testLate) start(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.late {
		l.held = append(l.held, f)
		return
	}
	go f()
}

// hold has the background wait from now on; release lets it run.
func (l *testLate) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.late = true
}

func (l *testLate) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.late = false
	for _, f := range l.held {
		go f()
	}
	l.held = nil
}

// TestSaveAsyncOvertaken: done functions are called, too, if another call makes the Saves
// durable before the background comes to it, or fails.
func TestSaveAsyncOvertaken(t *testing.T) {
	others := map[string]func(d *mmapwal.DiskStorage) error{
		"Save":           func(d *mmapwal.DiskStorage) error { return d.Save(nil, testLogEntries(3, 3, 1, 100), nil) },
		"vote":           func(d *mmapwal.DiskStorage) error { return d.Save(testLogHard(2, 2, 1), nil, nil) },
		"Sync":           (*mmapwal.DiskStorage).Sync,
		"CreateSnapshot": func(d *mmapwal.DiskStorage) error { return d.CreateSnapshot(1, nil, nil) },
		"snapshot":       func(d *mmapwal.DiskStorage) error { return d.Save(nil, nil, testLogSnapshot(9, 2, nil)) },
	}
	for name, other := range others {
		t.Run(name, func(t *testing.T) { testToldAlthough(t, other, false) })
		t.Run(name+" fails", func(t *testing.T) { testToldAlthough(t, other, true) })
	}
}

// testToldAlthough has other make a SaveAsync durable, or poison the log, before the
// background runs.
func testToldAlthough(t *testing.T, other func(*mmapwal.DiskStorage) error, fails bool) {
	var failing atomic.Bool
	disk := vfstest.New(vfs.OS(), func(op vfstest.Op, name string) error {
		if failing.Load() && op == vfstest.OpMsync {
			return vfstest.Error(op, name, syscall.EIO)
		}
		return nil
	})
	var late testLate
	h := host.OS()
	h.FS, h.Go = disk, late.start
	d, err := mmapwal.OpenOn(h, t.TempDir(), testLogOptions())
	if err != nil {
		t.Fatal(err)
	}
	testLogSave(t, d, testLogHard(1, 1, 1), testLogEntries(1, 1, 1, 100))
	late.hold()
	var a testAsync
	d.SaveAsync(nil, testLogEntries(2, 2, 1, 100), nil, a.done("second"))
	failing.Store(fails)
	err = other(d)
	late.release()
	if fails {
		testLogIs(t, err, mmapwal.ErrPoisoned)
		a.want(t, "second: "+mmapwal.ErrPoisoned.Error())
		testLogIs(t, d.Close(), mmapwal.ErrPoisoned)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	a.want(t, "second: nil")
	testLogClose(t, d)
}
