package vfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// KeepOwner gives the file at path the owner, the group and the mode of the one at like, if
// the process may, durably; both are files of OS.
func KeepOwner(path, like string) error {
	is, want, err := owners(path, like)
	if err != nil {
		return err
	}
	return change(path, &is, &want, modeOf(&want))
}

// GiveToOwner gives the file at path the owner and the group of dir, if the process may,
// durably; both are files of OS, and links to dir are followed.
func GiveToOwner(path, dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	is, want, err := owners(path, real)
	if err != nil {
		return err
	}
	return change(path, &is, &want, modeOf(&is))
}

func owners(path, like string) (is, want unix.Stat_t, err error) {
	if err := unix.Lstat(like, &want); err != nil {
		return is, want, &fs.PathError{Op: "stat", Path: like, Err: err}
	}
	if err := unix.Lstat(path, &is); err != nil {
		return is, want, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return is, want, nil
}

func modeOf(s *unix.Stat_t) fs.FileMode { return fs.FileMode(s.Mode) & fs.ModePerm }

// change gives a file another owner and mode, unless it has them.
func change(path string, is, want *unix.Stat_t, mode fs.FileMode) (err error) {
	owned := is.Uid == want.Uid && is.Gid == want.Gid
	if owned && modeOf(is) == mode {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if !owned {
		if err := f.Chown(int(want.Uid), int(want.Gid)); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Sync()
}
