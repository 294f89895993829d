//go:build unix

package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// osFiles are the files of one directory, or, if that is nil, those of the whole system.
type osFiles struct {
	dir   *osDir
	plain bool // as Plain has it
}

// osDir is an open directory. It keeps one descriptor.
type osDir struct {
	osFiles
	file    *os.File
	path    string
	listing sync.Mutex // the descriptor has one position
}

func (o osFS) OpenDir(dir string) (Dir, error) {
	d, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	d.plain = o.plain
	return d, nil
}

func openDir(dir string) (*osDir, error) {
	f, err := os.OpenFile(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	d := &osDir{file: f, path: filepath.Clean(dir)}
	d.dir = d
	return d, nil
}

func (d *osDir) Close() error { return d.file.Close() }

func (d *osDir) Lock() error {
	if err := d.with(lock); err != nil {
		return &fs.PathError{Op: "lock", Path: d.path, Err: err}
	}
	return nil
}

func (d *osDir) Unlock() error {
	return d.with(func(fd int) error { return unix.Flock(fd, unix.LOCK_UN) })
}

// lock takes the exclusive lock of an open file.
func lock(fd int) error {
	err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return lockedBy(lockOwner(fd))
	case errors.Is(err, unix.ENOLCK), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: %w", ErrNoLocks, err)
	}
	return err
}

// lockedBy says which process has a lock; 0: nobody knows.
func lockedBy(pid int) error {
	switch pid {
	case 0:
		return ErrLocked
	case os.Getpid():
		return fmt.Errorf("%w: this process has it open already", ErrLocked)
	}
	return fmt.Errorf("%w: process %d", ErrLocked, pid)
}

// with calls call with the descriptor, which stays open for so long.
func (d *osDir) with(call func(fd int) error) error {
	conn, err := d.file.SyscallConn()
	if err != nil {
		return err
	}
	if conn.Control(func(fd uintptr) { err = call(int(fd)) }) != nil {
		return os.ErrClosed
	}
	return err
}

// at calls call with the descriptor of a directory and the name in it that is to be looked
// up there, again if a signal interrupts it.
func (o osFiles) at(name string, call func(fd int, name string) error) error {
	d := o.dir
	if d == nil {
		return retryEINTR(func() error { return call(unix.AT_FDCWD, name) })
	}
	if filepath.Dir(name) != d.path {
		return unix.EXDEV
	}
	return d.with(func(fd int) error {
		return retryEINTR(func() error { return call(fd, filepath.Base(name)) })
	})
}

// open opens what is a regular file, and no link to one; nothing else makes it wait.
func (o osFiles) open(name string, flags int) (f *os.File, err error) {
	err = o.at(name, func(at int, base string) error {
		fd, err := unix.Openat(at, base, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return explainOpen(at, base, err)
		}
		if err := onlyRegular(fd); err != nil {
			_ = unix.Close(fd)
			return err
		}
		f = os.NewFile(uintptr(fd), name)
		return nil
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return f, nil
}

func onlyRegular(fd int) error {
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if err := regular(uint32(stat.Mode)); err != nil {
		return err
	}
	return unix.SetNonblock(fd, false)
}

// explainOpen says what cannot be opened, if it is no regular file.
func explainOpen(fd int, base string, err error) error {
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT) {
		return err
	}
	var stat unix.Stat_t
	if unix.Fstatat(fd, base, &stat, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return err
	}
	if kind := regular(uint32(stat.Mode)); kind != nil {
		return kind
	}
	return err
}

// regular returns an error if a mode is not that of a regular file.
func regular(mode uint32) error {
	kind := "a device"
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFDIR:
		kind = "a directory"
	case unix.S_IFLNK:
		kind = "a symbolic link"
	case unix.S_IFIFO:
		kind = "a FIFO"
	case unix.S_IFSOCK:
		kind = "a socket"
	}
	return &NotRegularError{Kind: kind}
}

func (o osFiles) Create(name string) (File, error) {
	f, err := o.open(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return nil, err
	}
	overwriteInPlace(f)
	return &osFile{File: f, name: name, plain: o.plain}, nil
}

func (o osFiles) Open(name string, readOnly bool) (File, error) {
	flags := unix.O_RDWR
	if readOnly {
		flags = unix.O_RDONLY
	}
	f, err := o.open(name, flags)
	if err != nil {
		return nil, err
	}
	return &osFile{File: f, name: name, plain: o.plain}, nil
}

func (o osFiles) Rename(oldName, newName string) error {
	err := o.at(oldName, func(fd int, from string) error {
		to := newName
		if o.dir != nil {
			to = filepath.Base(newName)
			if filepath.Dir(newName) != o.dir.path {
				return unix.EXDEV
			}
		}
		return unix.Renameat(fd, from, fd, to)
	})
	if err != nil {
		return &os.LinkError{Op: "rename", Old: oldName, New: newName, Err: err}
	}
	return nil
}

func (o osFiles) Remove(name string) error {
	err := o.at(name, func(fd int, base string) error {
		err := unix.Unlinkat(fd, base, 0)
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) { // a directory, as Linux and others say
			if unix.Unlinkat(fd, base, unix.AT_REMOVEDIR) == nil {
				return nil
			}
		}
		return err
	})
	if err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

// opened returns the directory itself, opened if it is not yet; close gives it up.
func (o osFiles) opened(dir string) (d *osDir, close func() error, err error) {
	if o.dir == nil {
		if d, err = openDir(dir); err != nil {
			return nil, nil, err
		}
		return d, d.Close, nil
	}
	if filepath.Clean(dir) != o.dir.path {
		return nil, nil, &fs.PathError{Op: "open", Path: dir, Err: unix.EXDEV}
	}
	return o.dir, func() error { return nil }, nil
}

// SyncDir fails without Op OpSyncDir if the directory could not be opened: nothing was
// synced, and nothing lost by that.
func (o osFiles) SyncDir(dir string) error {
	d, close, err := o.opened(dir)
	if err != nil {
		return err
	}
	if err := d.file.Sync(); err != nil {
		_ = close()
		return &fs.PathError{Op: OpSyncDir, Path: dir, Err: cause(err)}
	}
	return close()
}

// cause returns an error without the path that a call was made with.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

func (o osFiles) List(dir string) ([]Info, error) {
	d, close, err := o.opened(dir)
	if err != nil {
		return nil, err
	}
	infos, err := d.list()
	return infos, errors.Join(err, close())
}

func (d *osDir) list() ([]Info, error) {
	d.listing.Lock()
	defer d.listing.Unlock()
	if _, err := d.file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	names, err := d.file.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	infos := make([]Info, 0, len(names))
	for _, name := range names {
		var stat unix.Stat_t
		err := d.with(func(fd int) error { return unix.Fstatat(fd, name, &stat, unix.AT_SYMLINK_NOFOLLOW) })
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since it was listed
		}
		if err != nil {
			return nil, &fs.PathError{Op: "stat", Path: filepath.Join(d.path, name), Err: err}
		}
		infos = append(infos, Info{
			Name: name, Size: stat.Size, IsDir: stat.Mode&unix.S_IFMT == unix.S_IFDIR, Modified: time.Unix(stat.Mtim.Unix()),
			Inode: uint64(stat.Ino), Changed: time.Unix(stat.Ctim.Unix()),
		})
	}
	slices.SortFunc(infos, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	return infos, nil
}

// syncFrom makes the name of a directory durable whose parent may not be listed, and so
// cannot be synced by itself: the whole file system is.
func syncFrom(dir string) error {
	d, err := openDir(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.with(func(fd int) error { return syncAll(fd, dir) })
}

// SyncParents goes up to the root, through the real parents of a directory that was opened
// through links.
func (d *osDir) SyncParents() error {
	return d.with(func(fd int) error {
		at, path := fd, d.path
		for {
			path = filepath.Join(path, "..")
			parent, err := syncParent(at, path)
			if at != fd {
				_ = unix.Close(at)
			}
			if err != nil || parent < 0 {
				return err
			}
			at = parent
		}
	})
}

// syncParent syncs the directory that one lies in, and returns its descriptor; -1 if that
// is the last one.
func syncParent(child int, path string) (parent int, err error) {
	parent, err = unix.Openat(child, "..", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrPermission) {
		return -1, syncAll(child, path)
	}
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if isRoot(child, parent) {
		return -1, unix.Close(parent)
	}
	if err := retryEINTR(func() error { return unix.Fsync(parent) }); err != nil {
		_ = unix.Close(parent)
		return -1, &fs.PathError{Op: OpSyncDir, Path: path, Err: err}
	}
	return parent, nil
}

// syncAll syncs the file system that a directory is on.
func syncAll(fd int, path string) error {
	if err := syncFS(fd); err != nil {
		return &fs.PathError{Op: OpSyncDir, Path: path, Err: err}
	}
	return nil
}

// isRoot reports whether a directory and the one that it lies in are the same, or not on
// the same file system.
func isRoot(child, parent int) bool {
	var a, b unix.Stat_t
	if unix.Fstat(child, &a) != nil || unix.Fstat(parent, &b) != nil {
		return false
	}
	return a.Dev != b.Dev || a.Ino == b.Ino
}
