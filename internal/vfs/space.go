//go:build unix

package vfs

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Space is the size of a file system and what is free of it, in bytes.
type Space struct {
	Free, Total int64
}

// SpaceOf returns the space of the file system that dir is on: one system call,
// which reads no disk. errors.ErrUnsupported if files cannot tell.
func SpaceOf(files Files, dir string) (Space, error) {
	s, ok := files.(interface {
		Space(dir string) (Space, error)
	})
	if !ok {
		return Space{}, errors.ErrUnsupported
	}
	return s.Space(dir)
}

// Space tells what a user without privileges finds free.
func (o osFiles) Space(dir string) (Space, error) {
	var stat unix.Statfs_t
	var err error
	if o.dir == nil {
		err = unix.Statfs(dir, &stat)
	} else {
		err = o.dir.with(func(fd int) error { return unix.Fstatfs(fd, &stat) })
	}
	if err != nil {
		return Space{}, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	unit := blockSize(&stat)
	return Space{Free: max(int64(stat.Bavail), 0) * unit, Total: int64(stat.Blocks) * unit}, nil
}
