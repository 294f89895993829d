package vfs

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// allocate leaves the length alone, so that a file that somebody has cut short
// does not quietly get it back.
func allocate(fd int, off, n int64) error {
	return unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func punch(fd int, off, n int64) error {
	return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// startWrite takes no error of writing from the sync that follows: only the flags that
// wait do.
func startWrite(fd int, off, n int64) { _ = unix.SyncFileRange(fd, off, n, unix.SYNC_FILE_RANGE_WRITE) }

// openDirect opens the file once more, for writes around the page cache. Of these file
// systems it is known that what is mapped shows them.
func openDirect(f *os.File) (*os.File, error) {
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &stat); err != nil {
		return nil, err
	}
	if kind := uint32(stat.Type); kind != unix.EXT4_SUPER_MAGIC && kind != unix.XFS_SUPER_MAGIC {
		return nil, errors.ErrUnsupported
	}
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR|unix.O_DIRECT, 0)
}

func dataRun(fd int, off, size int64) (start, end int64, err error) {
	start, err = unix.Seek(fd, off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return off, off, nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, errors.ErrUnsupported):
		return off, size, nil // the file system does not know about holes
	case err != nil:
		return 0, 0, err
	}
	if end, err = unix.Seek(fd, start, unix.SEEK_HOLE); err != nil {
		return off, size, nil // not what was to be known: that there is data is never wrong
	}
	return start, end, nil
}

func prefetch(pages []byte) { _ = unix.Madvise(pages, unix.MADV_WILLNEED) }

// populateRead answers EFAULT where a load would raise SIGBUS. Kernels before 5.14
// do not know it.
func populateRead(pages []byte) error {
	err := unix.Madvise(pages, unix.MADV_POPULATE_READ)
	switch {
	case errors.Is(err, unix.EINVAL):
		return errors.ErrUnsupported
	case errors.Is(err, unix.EFAULT), errors.Is(err, unix.EHWPOISON):
		return ErrFault
	}
	return err
}

// mappingsStandAlone: a mapping is synced without the file's descriptor.
const mappingsStandAlone = true

// syncMapped syncs what the page cache holds there, however it came to it.
func syncMapped(pages []byte, _ *os.File) error { return unix.Msync(pages, unix.MS_SYNC) }

func syncFile(f *os.File) error { return f.Sync() }

// lockOwner returns the process that has an open file locked, as far as the kernel tells;
// 0 if it does not.
func lockOwner(fd int) int {
	var stat unix.Stat_t
	locks, err := os.ReadFile("/proc/locks")
	if err != nil || unix.Fstat(fd, &stat) != nil {
		return 0
	}
	return ownerIn(string(locks), fmt.Sprintf("%02x:%02x:%d", unix.Major(stat.Dev), unix.Minor(stat.Dev), stat.Ino))
}

// ownerIn looks for the owner of a file, as the device and number of it stand in /proc/locks:
//
//	1: FLOCK  ADVISORY  WRITE 4711 08:01:131077 0 EOF
//
// The owner is not told to a process in another namespace of processes.
func ownerIn(locks, file string) int {
	for line := range strings.Lines(locks) {
		f := strings.Fields(line)
		if len(f) >= 6 && f[1] == "FLOCK" && f[3] == "WRITE" && f[5] == file {
			pid, _ := strconv.Atoi(f[4])
			return max(pid, 0)
		}
	}
	return 0
}

// syncFS syncs the file system that a file is on.
func syncFS(fd int) error { return unix.Syncfs(fd) }

// blockSize returns the unit in which stat counts, in bytes.
func blockSize(stat *unix.Statfs_t) int64 { return int64(stat.Frsize) }

const (
	fsIocGetflags = 0x80086601
	fsIocSetflags = 0x40086602
	fsNocowFl     = 0x00800000
)

// overwriteInPlace asks btrfs to write the new file's blocks where they are, so
// that reserved space stays reserved and a sync does not rewrite its trees. The
// records carry checksums of their own. Where it cannot, nothing is lost but speed.
func overwriteInPlace(f *os.File) {
	var stat unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &stat) != nil || uint32(stat.Type) != unix.BTRFS_SUPER_MAGIC {
		return
	}
	var flags int32
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsIocGetflags, uintptr(unsafe.Pointer(&flags))); errno != 0 {
		return
	}
	flags |= fsNocowFl
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, f.Fd(), fsIocSetflags, uintptr(unsafe.Pointer(&flags)))
}
