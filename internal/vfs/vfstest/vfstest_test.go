package vfstest_test

import (
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
)

// everything does each operation once and returns the errors in their order.
func everything(fsys vfs.FS, dir string) (errs []error) {
	note := func(err error) { errs = append(errs, err) }
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	note(fsys.MkdirAll(dir))
	opened, err := fsys.OpenDir(dir)
	note(err)
	if err != nil {
		return errs
	}
	defer opened.Close()
	_, err = fsys.List(dir)
	note(err)
	f, err := fsys.Create(one)
	note(err)
	if err == nil {
		_ = f.Close()
	}
	note(fsys.Rename(one, two))
	f, err = fsys.Open(two, false)
	note(err)
	if err != nil {
		return errs
	}
	note(f.Lock())
	note(f.Truncate(8192))
	note(f.Reserve(0, 8192))
	_, err = f.WriteAt([]byte{1}, 0)
	note(err)
	_, err = f.ReadAt([]byte{0}, 0)
	note(err)
	_, err = f.Size()
	note(err)
	_, _, err = f.Data(0)
	note(err)
	note(f.Sync())
	if err := f.Punch(0, 4096); !errors.Is(err, errors.ErrUnsupported) {
		note(err)
	}
	m, err := f.Map(8192)
	note(err)
	if err == nil {
		note(m.PopulateRead(0, 8192))
		note(m.Sync(0, 1))
		note(m.Close())
	}
	note(f.Close())
	note(fsys.SyncDir(dir))
	note(fsys.Remove(two))
	return errs
}

var allOps = []vfstest.Op{
	vfstest.OpMkdirAll, vfstest.OpOpenDir, vfstest.OpList, vfstest.OpCreate, vfstest.OpOpen, vfstest.OpRename, vfstest.OpRemove,
	vfstest.OpSyncDir, vfstest.OpSize, vfstest.OpLock, vfstest.OpTruncate, vfstest.OpReserve, vfstest.OpPunch, vfstest.OpData,
	vfstest.OpSync, vfstest.OpMap, vfstest.OpRead, vfstest.OpWrite, vfstest.OpPopulate,
	vfstest.OpMsync, vfstest.OpClose,
}

func TestCounts(t *testing.T) {
	fsys := vfstest.New(vfs.OS(), nil)
	if err := errors.Join(everything(fsys, t.TempDir())...); err != nil {
		t.Fatal(err)
	}
	for _, op := range allOps {
		want := 1
		if op == vfstest.OpClose {
			want = 4
		}
		if got := fsys.Count(op); got != want {
			t.Errorf("%s: counted %d, want %d", op, got, want)
		}
	}
	if got, want := fsys.Total(), len(allOps)+3; got != want || fsys.Count(allOps...) != want {
		t.Errorf("total %d, counted %d, want %d", got, fsys.Count(allOps...), want)
	}
	if fsys.Reset(); fsys.Total() != 0 || fsys.Count(allOps...) != 0 {
		t.Error("Reset left counts")
	}
}

func TestFailNth(t *testing.T) {
	total := len(allOps) + 2
	for n := 1; n <= total+1; n++ {
		fsys := vfstest.New(vfs.OS(), vfstest.FailNth(n, syscall.EIO))
		failed := 0
		for _, err := range everything(fsys, t.TempDir()) {
			if errors.Is(err, syscall.EIO) {
				failed++
			}
		}
		// The closes of the created file and of the directory are not looked at.
		if want := 1; n != 5 && n < total && failed != want {
			t.Errorf("operation %d: %d errors, want %d", n, failed, want)
		}
		if n > total && failed != 0 {
			t.Errorf("%d errors without a failing operation", failed)
		}
	}
}

func TestFailOps(t *testing.T) {
	for _, op := range allOps {
		fsys := vfstest.New(vfs.OS(), vfstest.FailFrom(1, syscall.ENOSPC, op))
		err := errors.Join(everything(fsys, t.TempDir())...)
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: error %v, want ENOSPC", op, err)
		}
		isSync := slices.Contains([]vfstest.Op{vfstest.OpSync, vfstest.OpMsync, vfstest.OpSyncDir}, op)
		if vfs.SyncFailed(err) != isSync {
			t.Errorf("%s: SyncFailed is %t", op, !isSync)
		}
	}
}

func TestSwitch(t *testing.T) {
	var hook vfstest.Switch
	fsys, dir := vfstest.New(vfs.OS(), hook.Before), t.TempDir()
	sync := func() error { return fsys.SyncDir(dir) }
	if err := sync(); err != nil {
		t.Fatal(err)
	}
	hook.Set(vfstest.FailFrom(2, syscall.EIO))
	for i, want := range []error{nil, syscall.EIO, syscall.EIO} {
		if err := sync(); !errors.Is(err, want) {
			t.Errorf("call %d: error %v, want %v", i, err, want)
		}
	}
	hook.Set(nil)
	if err := sync(); err != nil {
		t.Error(err)
	}
}

func TestConcurrent(t *testing.T) {
	fsys := vfstest.New(vfs.OS(), vfstest.FailNth(10, syscall.EIO, vfstest.OpList))
	dir := t.TempDir()
	var wg sync.WaitGroup
	errs := make(chan error, 80)
	for range 8 {
		wg.Go(func() {
			for range 10 {
				_, err := fsys.List(dir)
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	failed := 0
	for err := range errs {
		if err != nil {
			failed++
		}
	}
	if failed != 1 || fsys.Count(vfstest.OpList) != 80 {
		t.Errorf("%d failed, %d counted, want 1 and 80", failed, fsys.Count(vfstest.OpList))
	}
}
