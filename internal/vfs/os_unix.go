//go:build unix && !linux && !darwin

package vfs

import (
	"os"

	"golang.org/x/sys/unix"
)

func syncMapped(pages []byte, _ *os.File) error { return unix.Msync(pages, unix.MS_SYNC) }
func syncFile(f *os.File) error                 { return f.Sync() }
