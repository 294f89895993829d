package vfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncFile has the drive empty its cache: on darwin fsync and msync stop there.
func syncFile(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_FULLFSYNC, 0)
	return err
}
