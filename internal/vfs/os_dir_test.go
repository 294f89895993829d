package vfs_test

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"golang.org/x/sys/unix"
)

func openDir(t *testing.T, path string) vfs.Dir {
	t.Helper()
	d, err := vfs.OS().OpenDir(path)
	must(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// content returns the names in a directory, and what their files hold.
func content(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		p, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		names = append(names, e.Name()+"="+string(p))
	}
	return names
}

// TestDirStays: an open directory is the same one after it was moved, and after the process
// has changed its own; another one in its place is left alone.
func TestDirStays(t *testing.T) {
	moves := map[string]func(t *testing.T, dir string) (now string){
		"moved": func(t *testing.T, dir string) string {
			must(t, os.Rename(dir, dir+".old"))
			return dir + ".old"
		},
		"a link to another one": func(t *testing.T, dir string) string {
			must(t, os.Rename(dir, dir+".old"))
			must(t, os.Mkdir(dir+".new", 0o700))
			must(t, os.Symlink(dir+".new", dir))
			return dir + ".old"
		},
		"the process is elsewhere": func(t *testing.T, dir string) string {
			other := t.TempDir()
			t.Chdir(other)
			return dir
		},
	}
	for name, move := range moves {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			cwd, err := os.Getwd()
			must(t, err)
			must(t, os.Mkdir("log", 0o700))
			d := openDir(t, "log")
			write := func(name, text string) {
				f, err := d.Create(filepath.Join("log", name))
				must(t, err)
				_, err = f.WriteAt([]byte(text), 0)
				must(t, err)
				must(t, f.Close())
			}
			write("a", "1")
			write("b", "2")
			now := move(t, filepath.Join(cwd, "log"))
			must(t, os.MkdirAll("log", 0o700)) // what the path leads to
			for _, name := range []string{"a", "b", "c", "d"} {
				must(t, os.WriteFile(filepath.Join("log", name), []byte("other"), 0o600))
			}
			if f, err := d.Open("log/a", true); err != nil {
				t.Error(err)
			} else if p, err := io.ReadAll(io.NewSectionReader(f, 0, 9)); string(p) != "1" || err != nil || f.Close() != nil {
				t.Errorf("opened %q, error %v", p, err)
			}
			write("c", "3")
			must(t, d.Rename("log/b", "log/d"))
			must(t, d.Remove("log/a"))
			must(t, d.SyncDir("log"))
			infos, err := d.List("log")
			if err != nil || len(infos) != 2 || infos[0].Name != "c" || infos[1].Name != "d" || infos[0].Size != 1 {
				t.Errorf("listed %v, error %v", infos, err)
			}
			if got := strings.Join(content(t, now), " "); got != "c=3 d=2" {
				t.Errorf("the directory holds %s", got)
			}
			if got := strings.Join(content(t, "log"), " "); got != "a=other b=other c=other d=other" {
				t.Errorf("the other directory holds %s", got)
			}
		})
	}
}

// TestDirBounds: names elsewhere are refused, and so is everything once it is closed.
func TestDirBounds(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	at := func(name string) string { return filepath.Join(dir, name) }
	f, err := d.Create(at("f"))
	must(t, err)
	must(t, f.Close())
	all := func(inside, outside string) []error {
		_, createErr := d.Create(outside)
		_, openErr := d.Open(outside, true)
		_, listErr := d.List(filepath.Dir(outside))
		return []error{
			createErr, openErr, listErr, d.Rename(inside, outside), d.Rename(outside, inside),
			d.Remove(outside), d.SyncDir(filepath.Dir(outside)),
		}
	}
	for _, outside := range []string{at("sub/f"), filepath.Join(filepath.Dir(dir), "f"), "f"} {
		for k, err := range all(at("f"), outside) {
			if !errors.Is(err, syscall.EXDEV) {
				t.Errorf("%s, %d: error %v", outside, k, err)
			}
		}
	}
	must(t, d.Close())
	for k, err := range append(all(at("f"), at("f")), d.SyncParents()) {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("closed, %d: error %v", k, err)
		}
	}
	_, err = vfs.OS().OpenDir(at("f"))
	wantErr(t, err, syscall.ENOTDIR)
}

// TestDirWithoutDescriptors: only what opens a file needs a descriptor.
func TestDirWithoutDescriptors(t *testing.T) {
	dir := t.TempDir()
	d := openDir(t, dir)
	at := func(name string) string { return filepath.Join(dir, name) }
	f, err := d.Create(at("a"))
	must(t, err)
	must(t, f.Close())
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	none := limit
	none.Cur = 0
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &none))
	_, createErr := d.Create(at("b"))
	_, openErr := d.Open(at("a"), true)
	renameErr := d.Rename(at("a"), at("c"))
	_, listErr := d.List(dir)
	syncErr := d.SyncDir(dir)
	removeErr := d.Remove(at("c"))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	wantErr(t, createErr, syscall.EMFILE)
	wantErr(t, openErr, syscall.EMFILE)
	must(t, errors.Join(renameErr, listErr, syncErr, removeErr))
}

// TestNotRegular: what is no regular file is named, not waited for and not followed.
func TestNotRegular(t *testing.T) {
	dir, err := os.MkdirTemp("", "vfs") // the name of a socket must be short
	must(t, err)
	defer os.RemoveAll(dir)
	at := func(name string) string { return filepath.Join(dir, name) }
	must(t, unix.Mkfifo(at("fifo"), 0o600))
	must(t, os.Mkdir(at("sub"), 0o700))
	must(t, os.WriteFile(at("file"), nil, 0o600))
	must(t, os.Symlink("file", at("link")))
	must(t, os.Symlink("loop", at("loop")))
	must(t, os.Symlink("nowhere", at("dangling")))
	must(t, os.Symlink("/dev/zero", at("zeros")))
	socket, err := net.Listen("unix", at("socket"))
	must(t, err)
	defer socket.Close()
	kinds := map[string]string{
		at("fifo"): "a FIFO", at("sub"): "a directory", at("socket"): "a socket", "/dev/null": "a device",
		at("link"): "a symbolic link", at("loop"): "a symbolic link", at("dangling"): "a symbolic link", at("zeros"): "a symbolic link",
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		d := openDir(t, dir)
		for name, kind := range kinds {
			for _, readOnly := range []bool{true, false} {
				files := []vfs.Files{vfs.OS()}
				if filepath.Dir(name) == dir {
					files = append(files, d)
				}
				for _, files := range files {
					_, err := files.Open(name, readOnly)
					var not *vfs.NotRegularError
					if !errors.As(err, &not) || not.Kind != kind || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), kind) {
						t.Errorf("%s, for reading only %t: error %v, want that it is %s", name, readOnly, err, kind)
					}
				}
			}
		}
		_, err := d.Create(at("dangling"))
		if !errors.Is(err, fs.ErrExist) {
			t.Errorf("created through a link to nothing: error %v", err)
		}
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("an open waits")
	}
}

// TestUnreadableParent: a directory in one that may not be listed is made and synced, and
// so is one that is reached through a link.
func TestUnreadableParent(t *testing.T) {
	parent := filepath.Join(t.TempDir(), "parent")
	must(t, os.Mkdir(parent, 0o700))
	must(t, os.Mkdir(filepath.Join(parent, "there"), 0o700))
	must(t, os.Symlink(filepath.Join(parent, "there"), filepath.Join(filepath.Dir(parent), "link")))
	must(t, os.Chmod(parent, 0o300))
	defer os.Chmod(parent, 0o700)
	if _, err := os.ReadDir(parent); err == nil {
		t.Log("this user may list everything")
	}
	for _, dir := range []string{filepath.Join(parent, "new", "newer"), filepath.Join(parent, "there"), filepath.Join(filepath.Dir(parent), "link")} {
		must(t, vfs.OS().MkdirAll(dir))
		must(t, openDir(t, dir).SyncParents())
	}
}
