package metafile

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
)

// hooks are the ways in which operation n of a run goes wrong: once, or from
// then on, as if the process had been killed.
var hooks = map[string]func(n int, errno syscall.Errno, ops ...vfstest.Op) vfstest.Hook{
	"fails": vfstest.FailNth,
	"cut":   vfstest.FailFrom,
}

func same(a, b Meta) bool {
	a.sequence, b.sequence = 0, 0
	return reflect.DeepEqual(a, b)
}

// TestCreateCuts: whatever operation fails, there is the whole file or none, and
// creating can be tried again.
func TestCreateCuts(t *testing.T) {
	for name, hook := range hooks {
		for n := 1; ; n++ {
			dir := t.TempDir()
			fsys := vfstest.New(vfs.OS(), hook(n, syscall.EIO))
			err := Create(fsys, dir, metaOf(t, 1), nil, nil)
			if fsys.Total() < n {
				must(t, err)
				if n < 8 {
					t.Fatalf("only %d operations", n-1)
				}
				break
			}
			checkCreated(t, fmt.Sprintf("operation %d %s", n, name), dir, err)
		}
	}
}

func checkCreated(t *testing.T, what, dir string, err error) {
	t.Helper()
	f, openErr := Open(vfs.OS(), dir, true)
	switch {
	case errors.Is(openErr, fs.ErrNotExist):
		if err == nil {
			t.Errorf("%s: Create returned nil but made no file", what)
		}
		must(t, Create(vfs.OS(), dir, metaOf(t, 1), nil, nil))
		f, openErr = Open(vfs.OS(), dir, true)
	case openErr == nil:
		if err := Create(vfs.OS(), dir, metaOf(t, 2), nil, nil); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: second Create: %v, want %v", what, err, fs.ErrExist)
		}
	}
	must(t, openErr)
	defer f.Close()
	if !same(f.Meta(), metaOf(t, 1)) {
		t.Errorf("%s: %+v", what, f.Meta())
	}
	wantNoTemporary(t, dir)
}

func TestCreateReportsFailedSyncs(t *testing.T) {
	for _, op := range []vfstest.Op{vfstest.OpSync, vfstest.OpSyncDir} {
		fsys := vfstest.New(vfs.OS(), vfstest.FailNth(1, syscall.ENOSPC, op))
		err := Create(fsys, t.TempDir(), metaOf(t, 1), nil, nil)
		wantErr(t, err, syscall.ENOSPC)
		if !vfs.SyncFailed(err) {
			t.Errorf("%s: %v is not taken as that of a sync", op, err)
		}
	}
}

// TestStoreCuts: whatever operation of a store fails, the old state or the new
// one is found.
func TestStoreCuts(t *testing.T) {
	stores := map[string]func(*File, Meta) error{
		"Commit": (*File).Commit, "CommitClean": (*File).CommitClean, "Note": (*File).Note,
	}
	for name, store := range stores {
		for _, op := range []vfstest.Op{vfstest.OpWrite, vfstest.OpMsync} {
			for n := 1; n <= 2; n++ {
				cutStore(t, fmt.Sprintf("%s, %s %d", name, op, n), store, vfstest.FailFrom(n, syscall.EIO, op), op)
			}
		}
	}
}

func cutStore(t *testing.T, what string, store func(*File, Meta) error, hook vfstest.Hook, op vfstest.Op) {
	t.Helper()
	dir := created(t)
	f, err := Open(vfstest.New(vfs.OS(), hook), dir, false)
	must(t, err)
	want := metaOf(t, 2)
	err = store(f, want)
	if err != nil && vfs.SyncFailed(err) != (op == vfstest.OpMsync) {
		t.Errorf("%s: SyncFailed is %t of %v", what, vfs.SyncFailed(err), err)
	}
	must(t, f.Close())
	got := read(t, dir)
	got.Clean = false
	if isNew := same(got, want); !isNew && (err == nil || !same(got, metaOf(t, 1))) {
		t.Errorf("%s: error %v, found %+v", what, err, got)
	}
}

// TestTornStores: a page that was stored in part leaves the old state or the new.
func TestTornStores(t *testing.T) {
	oldDir, newDir := created(t), created(t)
	f := open(t, newDir)
	must(t, f.Commit(metaOf(t, 2)))
	must(t, f.Close())
	var before, after []byte
	edit(t, oldDir, func(c []byte) []byte { before = append(before, c...); return c })
	edit(t, newDir, func(c []byte) []byte { after = append(after, c...); return c })
	for _, i := range []int{1, 0} { // the order of Commit
		for cut := 0; cut <= len(pageOf(before, i)); cut += 64 {
			edit(t, oldDir, func([]byte) []byte {
				torn := append([]byte(nil), before...)
				copy(pageOf(torn, i)[:cut], pageOf(after, i))
				return torn
			})
			if got := read(t, oldDir); !same(got, metaOf(t, 1)) && !same(got, metaOf(t, 2)) {
				t.Errorf("page %d torn at %d: %+v", i, cut, got)
			}
		}
		copy(pageOf(before, i), pageOf(after, i))
	}
}

func TestOpenFailures(t *testing.T) {
	dir := created(t)
	for n := 1; ; n++ {
		fsys := vfstest.New(vfs.OS(), vfstest.FailNth(n, syscall.EIO))
		f, err := Open(fsys, dir, false)
		if err == nil {
			_ = f.Close()
			break
		}
		wantErr(t, err, syscall.EIO)
	}
	wantMeta(t, read(t, dir), metaOf(t, 1)) // no lock was left
}

// TestSettled: opening a log that was closed, and Begin, store nothing; the first store
// makes sure of the directory and of page 0, whichever store it is, and no other does.
func TestSettled(t *testing.T) {
	for name, c := range map[string]struct {
		store  func(f *File) error
		msyncs int
	}{
		"Note":   {func(f *File) error { return f.Note(metaOf(t, 3)) }, 0},
		"Commit": {func(f *File) error { return f.Commit(metaOf(t, 3)) }, 2},
	} {
		dir := created(t)
		f := open(t, dir)
		must(t, f.CommitClean(metaOf(t, 2)))
		must(t, f.Close())
		fsys := vfstest.New(vfs.OS(), nil)
		f, err := Open(fsys, dir, false)
		must(t, err)
		must(t, f.Begin(metaOf(t, 3)))
		if !f.Settled() || f.Stored() || f.Begun() || fsys.Count(vfstest.OpWrite)+fsys.Count(vfstest.OpMsync) != 0 {
			t.Errorf("%s: settled %t, stored %t, begun %t before it", name, f.Settled(), f.Stored(), f.Begun())
		}
		for k, sure := range []int{1, 0} {
			fsys.Reset()
			must(t, c.store(f))
			if dirs, msyncs := fsys.Count(vfstest.OpSyncDir), fsys.Count(vfstest.OpMsync); dirs != sure || msyncs != c.msyncs+sure {
				t.Errorf("%s %d: the directory is synced %d times, pages %d times", name, k, dirs, msyncs)
			}
		}
		if f.Settled() || !f.Stored() || f.Begun() != (name == "Commit") {
			t.Errorf("%s: settled %t, stored %t, begun %t", name, f.Settled(), f.Stored(), f.Begun())
		}
		must(t, f.Close())
	}
}
