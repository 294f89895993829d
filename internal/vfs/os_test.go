package vfs_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

// newFile returns an empty file of size bytes.
func newFile(t *testing.T, size int64) (f vfs.File, name string) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "f")
	f, err := vfs.OS().Create(name)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	must(t, f.Truncate(size))
	return f, name
}

func mapped(t *testing.T, f vfs.File, size int64) vfs.Mapping {
	t.Helper()
	m, err := f.Map(size)
	must(t, err)
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func TestMkdirAll(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	must(t, os.Symlink("file", filepath.Join(dir, "link")))
	tests := []struct {
		path string
		want error
	}{
		{"", nil},
		{"one", nil},
		{"one", nil},
		{"one/two/three/../three/", nil},
		{"one/two/three/four/five", nil},
		{"file", syscall.ENOTDIR},
		{"link", syscall.ENOTDIR},
		{"file/below", syscall.ENOTDIR},
		{"file/far/below", syscall.ENOTDIR},
	}
	for _, test := range tests {
		path := filepath.Join(dir, test.path)
		err := vfs.OS().MkdirAll(path)
		if !errors.Is(err, test.want) {
			t.Errorf("MkdirAll(%q): error %v, want %v", test.path, err, test.want)
		}
		if info, statErr := os.Stat(path); err == nil && (statErr != nil || !info.IsDir()) {
			t.Errorf("MkdirAll(%q) made no directory: %v", test.path, statErr)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "one/two/three")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, error %v, want 0700", info.Mode(), err)
	}
}

func TestNames(t *testing.T) {
	fsys, dir := vfs.OS(), t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"b", "a"} {
		f, err := fsys.Create(at(name))
		must(t, err)
		must(t, f.Truncate(int64(len(name))))
		must(t, f.Close())
	}
	_, err := fsys.Create(at("a"))
	wantErr(t, err, fs.ErrExist)
	_, err = fsys.Open(at("none"), false)
	wantErr(t, err, fs.ErrNotExist)
	must(t, fsys.MkdirAll(at("d")))

	must(t, fsys.Rename(at("b"), at("c")))
	must(t, fsys.Remove(at("a")))
	wantErr(t, fsys.Remove(at("a")), fs.ErrNotExist)
	must(t, fsys.SyncDir(dir))
	infos, err := fsys.List(dir)
	must(t, err)
	modified := infos[0].Modified
	if age := time.Since(modified); age < -time.Minute || age > time.Minute {
		t.Errorf("a file that was just made was modified %v ago", age)
	}
	if infos[0].Inode == 0 || infos[0].Inode == infos[1].Inode || infos[0].Changed.Before(modified) {
		t.Errorf("inodes %d and %d, changed %v, modified %v", infos[0].Inode, infos[1].Inode, infos[0].Changed, modified)
	}
	want := []vfs.Info{{Name: "c", Size: 1, Modified: modified, Inode: infos[0].Inode, Changed: infos[0].Changed}, {Name: "d", IsDir: true}}
	if len(infos) != 2 || infos[0] != want[0] || infos[1].Name != "d" || !infos[1].IsDir {
		t.Errorf("List returned %v, want %v", infos, want)
	}

	_, err = fsys.List(at("none"))
	wantErr(t, err, fs.ErrNotExist)
	err = fsys.SyncDir(at("none"))
	wantErr(t, err, fs.ErrNotExist)
	if vfs.SyncFailed(err) {
		t.Errorf("%v is taken as that of a sync, but none was tried", err)
	}
}

func TestSpace(t *testing.T) {
	dir := t.TempDir()
	space, err := vfs.SpaceOf(vfs.OS(), dir)
	must(t, err)
	if space.Free <= 0 || space.Total < space.Free {
		t.Errorf("%d bytes of %d are free", space.Free, space.Total)
	}
	_, err = vfs.SpaceOf(vfs.OS(), filepath.Join(dir, "none"))
	wantErr(t, err, fs.ErrNotExist)
	_, err = vfs.SpaceOf(struct{ vfs.FS }{vfs.OS()}, dir)
	wantErr(t, err, errors.ErrUnsupported)
}

func TestLock(t *testing.T) {
	first, name := newFile(t, 0)
	must(t, first.Lock())
	must(t, first.Lock()) // the owner may repeat it
	second, err := vfs.OS().Open(name, false)
	must(t, err)
	defer second.Close()
	wantErr(t, second.Lock(), vfs.ErrLocked)
	must(t, first.Close())
	must(t, second.Lock())
	must(t, second.Close())
	if err := second.Lock(); err == nil || errors.Is(err, vfs.ErrLocked) {
		t.Errorf("lock of a closed file: %v", err)
	}
}

func TestFileOperations(t *testing.T) {
	const size = 8 * page.Size
	f, _ := newFile(t, size)
	if n, err := f.Size(); n != size || err != nil {
		t.Fatalf("size %d, error %v, want %d", n, err, size)
	}
	must(t, f.Reserve(0, size))
	data := bytes.Repeat([]byte{7}, size)
	_, err := f.WriteAt(data, 0)
	must(t, err)
	must(t, f.Sync())
	err = f.Punch(page.Size, 2*page.Size)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Log("the file system of the temporary directory cannot punch holes")
		return
	}
	must(t, err)
	clear(data[page.Size : 3*page.Size])
	got := make([]byte, size)
	_, err = f.ReadAt(got, 0)
	must(t, err)
	if !bytes.Equal(got, data) {
		t.Error("Punch cleared other bytes than it should")
	}
}

// TestData: what lies in no run of data is zero, and all that was stored lies in
// one, whether it is on the disk or not.
func TestData(t *testing.T) {
	const size = 1 << 20
	f, _ := newFile(t, size)
	must(t, f.Reserve(size/2, size/4)) // blocks that hold nothing
	places := []int64{5, 300_000, size/2 + 100_000, size - 1}
	for _, at := range places {
		_, err := f.WriteAt([]byte{1}, at)
		must(t, err)
	}
	for range 2 {
		for _, from := range []int64{0, 8, 300_000, 300_001, size - 1, size, size + 8} {
			checkRuns(t, f, from, places)
		}
		must(t, f.Sync())
	}
}

// checkRuns walks over the runs of data from an offset on.
func checkRuns(t *testing.T, f vfs.File, from int64, places []int64) {
	t.Helper()
	found := 0
	for at := from; ; {
		start, end, err := f.Data(at)
		must(t, err)
		if start == end {
			break
		}
		if start < at || end < start {
			t.Fatalf("Data(%d) returned %d to %d", at, start, end)
		}
		for _, p := range places {
			if p >= start && p < end {
				found++
			}
		}
		at = end
	}
	want := 0
	for _, p := range places {
		if p >= from {
			want++
		}
	}
	if found != want {
		t.Errorf("from %d: %d bytes of %d lie in data", from, found, want)
	}
}

func TestMapping(t *testing.T) {
	const size = 4 * page.Size
	f, name := newFile(t, size)
	m := mapped(t, f, size)
	must(t, m.PopulateRead(0, size))
	must(t, m.PopulateRead(page.Size+1, 1))
	_, err := f.WriteAt([]byte("abcd"), page.Size-2)
	must(t, err)
	must(t, m.Sync(page.Size-2, 4))
	must(t, m.Sync(0, 0))
	must(t, m.Sync(size-1, 1))
	must(t, f.Close()) // the mapping stays
	if got := string(m.Bytes()[page.Size-2 : page.Size+2]); got != "abcd" {
		t.Errorf("mapped: %q", got)
	}
	content, err := os.ReadFile(name)
	must(t, err)
	if got := string(content[page.Size-2 : page.Size+2]); got != "abcd" {
		t.Errorf("read: %q", got)
	}
	must(t, m.Close())
	must(t, m.Close())
	if m.Bytes() != nil {
		t.Error("a closed mapping has bytes")
	}
}

func TestReadOnly(t *testing.T) {
	_, name := newFile(t, page.Size)
	f, err := vfs.OS().Open(name, true)
	must(t, err)
	defer f.Close()
	if _, err := f.WriteAt([]byte{1}, 0); err == nil {
		t.Error("written through a file opened for reading")
	}
	m := mapped(t, f, page.Size)
	must(t, m.PopulateRead(0, page.Size))
}

// TestMappingsAreNotWrittenTo: a store to mapped memory could wait for the disk in a page fault,
// and stop the process with it. The kernel refuses it, whatever the file was opened for.
func TestMappingsAreNotWrittenTo(t *testing.T) {
	f, name := newFile(t, page.Size)
	mem := mapped(t, f, page.Size).Bytes()
	err := vfs.Guard(name, mem, func() error { mem[0] = 1; return nil })
	wantErr(t, err, vfs.ErrFault)
	_, err = f.WriteAt([]byte{2}, 0)
	must(t, err)
	if mem[0] != 2 {
		t.Errorf("%d is mapped, 2 was written", mem[0])
	}
}

func TestClosedFile(t *testing.T) {
	f, _ := newFile(t, page.Size)
	must(t, f.Close())
	_, sizeErr := f.Size()
	_, mapErr := f.Map(page.Size)
	_, _, dataErr := f.Data(0)
	syncErr := f.Sync()
	for _, err := range []error{sizeErr, mapErr, dataErr, syncErr, f.Reserve(0, 1), f.Punch(0, 1), f.Truncate(1)} {
		if err == nil {
			t.Error("an operation on a closed file succeeded")
		}
	}
	if !vfs.SyncFailed(syncErr) {
		t.Errorf("%v is not taken as that of a sync", syncErr)
	}
}

// TestRenamed: errors show the name that a file has, not that of its creation.
func TestRenamed(t *testing.T) {
	f, _ := newFile(t, page.Size)
	m, err := f.Map(2 * page.Size)
	must(t, err)
	defer m.Close()
	f.Renamed("new name")
	fault := m.PopulateRead(page.Size, 1) // behind the end of the file
	wantErr(t, fault, vfs.ErrFault)
	must(t, f.Close())
	for _, err := range []error{fault, f.Sync(), f.Reserve(0, 1)} {
		if err == nil || !strings.Contains(err.Error(), "new name") {
			t.Errorf("error %v", err)
		}
	}
}

// TestLockOfAStartingProcess: a process that is just being started has copies of
// all descriptors; the lock of a closed file does not stay with them.
func TestLockOfAStartingProcess(t *testing.T) {
	first, name := newFile(t, 0)
	must(t, first.Lock())
	copied, err := unix.Dup(int(first.(interface{ Fd() uintptr }).Fd()))
	must(t, err)
	defer unix.Close(copied)
	must(t, first.Close())
	second, err := vfs.OS().Open(name, false)
	must(t, err)
	must(t, second.Lock())
	must(t, second.Close())
}

// TestReserveKeepsWhatIsThere: whatever stands for fallocate changes no byte and no length, and
// loses nothing that is stored meanwhile.
func TestReserveKeepsWhatIsThere(t *testing.T) {
	for name, fsys := range map[string]vfs.FS{"OS": vfs.OS(), "plain": vfs.Plain()} {
		t.Run(name, func(t *testing.T) {
			const size = 64*page.Size + 100
			path := filepath.Join(t.TempDir(), "f")
			f, err := fsys.Create(path)
			must(t, err)
			defer f.Close()
			must(t, f.Truncate(size))
			for at := int64(7); at < size; at += 5*page.Size - 5 {
				_, err = f.WriteAt([]byte("promised"), at)
				must(t, err)
			}
			_, err = f.WriteAt([]byte{1, 2, 3}, size-3)
			must(t, err)
			want, err := os.ReadFile(path)
			must(t, err)
			for _, r := range [][2]int64{{0, size}, {1, 5}, {page.Size - 1, page.Size + 2}, {size - 3, 3}, {size - 1, 5}, {size + 9, 7}, {3*page.Size + 9, 40 * page.Size}} {
				must(t, f.Reserve(r[0], r[1]))
				got, err := os.ReadFile(path)
				must(t, err)
				if !bytes.Equal(got, want) {
					t.Fatalf("Reserve(%d, %d) changed the file", r[0], r[1])
				}
			}
			storeBesideReserve(t, f, size)
		})
	}
}

// storeBesideReserve stores to each half of a page while blocks are made for the file, again
// and again.
func storeBesideReserve(t *testing.T, f vfs.File, size int64) {
	t.Helper()
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		var err error
		for more := true; more && err == nil; {
			err = f.Reserve(0, size)
			select {
			case <-stop:
				more = false
			default:
			}
		}
		stopped <- err
	}()
	got := make([]byte, size)
	for round := range uint64(60) {
		for at := int64(page.Size / 2); at+8 <= size; at += page.Size / 2 {
			var p [8]byte // every other time zeros, where Reserve may write
			if round%2 == 1 {
				page.Order.PutUint64(p[:], round)
			}
			_, err := f.WriteAt(p[:], at)
			must(t, err)
		}
		_, err := f.ReadAt(got, 0)
		must(t, err)
		for at := int64(page.Size / 2); at+8 <= size; at += page.Size / 2 {
			if round%2 == 1 && page.Order.Uint64(got[at:]) != round {
				t.Fatalf("round %d: what was stored at %d beside Reserve is lost: %x", round, at, got[at:at+8])
			}
		}
	}
	close(stop)
	must(t, <-stopped)
}

// TestPlain: where the system lacks the calls, what uses them goes on.
func TestPlain(t *testing.T) {
	f, err := vfs.Plain().Create(filepath.Join(t.TempDir(), "f"))
	must(t, err)
	defer f.Close()
	must(t, f.Truncate(100*page.Size))
	wantErr(t, f.Punch(0, page.Size), errors.ErrUnsupported)
	if start, end, err := f.Data(5); start != 5 || end != 100*page.Size || err != nil {
		t.Errorf("data %d to %d, %v", start, end, err)
	}
	must(t, f.Reserve(page.Size, 20*page.Size))
	var stat unix.Stat_t
	must(t, unix.Fstat(int(f.(interface{ Fd() uintptr }).Fd()), &stat))
	if stat.Blocks*512 < 20*page.Size {
		t.Errorf("%d bytes of blocks", stat.Blocks*512)
	}
}
