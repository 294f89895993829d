package vfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// KeepOwner gives the file at path the owner, the group and the mode of the one at like, if
// the process may; both are files of OS.
func KeepOwner(path, like string) error {
	is, want, err := owners(path, like)
	if err != nil {
		return err
	}
	if err := giveTo(path, &is, &want); err != nil {
		return err
	}
	if is.Mode&0o777 == want.Mode&0o777 {
		return nil
	}
	return os.Chmod(path, fs.FileMode(want.Mode&0o777))
}

// GiveToOwner gives the file at path the owner and the group of dir, if the process may; both are
// files of OS, and links to dir are followed.
func GiveToOwner(path, dir string) error {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	is, want, err := owners(path, real)
	if err != nil {
		return err
	}
	return giveTo(path, &is, &want)
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

func giveTo(path string, is, want *unix.Stat_t) error {
	if is.Uid == want.Uid && is.Gid == want.Gid {
		return nil
	}
	if err := os.Lchown(path, int(want.Uid), int(want.Gid)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}
