//go:build unix && !linux

package vfs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func allocate(int, int64, int64) error { return errors.ErrUnsupported }
func punch(int, int64, int64) error    { return errors.ErrUnsupported }
func startWrite(int, int64, int64)     {}
func prefetch([]byte)                  {}
func populateRead([]byte) error        { return errors.ErrUnsupported }
func overwriteInPlace(*os.File)        {}

func openDirect(*os.File) (*os.File, error) { return nil, errors.ErrUnsupported }

const mappingsStandAlone = false

// syncMapped: msync need not know of what was written to the file, only of what was stored to
// memory.
func syncMapped(_ []byte, f *os.File) error { return syncFile(f) }

func blockSize(stat *unix.Statfs_t) int64 { return int64(stat.Bsize) }

// dataRun takes all of the file for data: slower, never wrong.
func dataRun(_ int, off, size int64) (start, end int64, err error) { return off, size, nil }
