package vfs

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncMapped hands the pages to the drive and has the drive empty its cache:
// on darwin msync alone stops at the cache.
func syncMapped(pages []byte, f *os.File) error {
	if err := unix.Msync(pages, unix.MS_SYNC); err != nil {
		return err
	}
	return syncFile(f)
}

func syncFile(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_FULLFSYNC, 0)
	return err
}
