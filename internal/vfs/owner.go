package vfs

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// KeepOwner gives the file at path the owner, the group and the mode of the one at like, if
// the process may; both are files of OS.
func KeepOwner(path, like string) error {
	var is, want unix.Stat_t
	if err := unix.Lstat(like, &want); err != nil {
		return &fs.PathError{Op: "stat", Path: like, Err: err}
	}
	if err := unix.Lstat(path, &is); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if is.Uid != want.Uid || is.Gid != want.Gid {
		if err := os.Lchown(path, int(want.Uid), int(want.Gid)); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	if is.Mode&0o777 == want.Mode&0o777 {
		return nil
	}
	return os.Chmod(path, fs.FileMode(want.Mode&0o777))
}
