package transfer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// OpenFile opens a regular file of another program for reading. It does not wait for who writes
// to a FIFO, and reads no device.
func OpenFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("open %s: %w", path, &vfs.NotRegularError{Kind: kindOf(info.Mode())})
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func kindOf(mode os.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&os.ModeNamedPipe != 0:
		return "a FIFO"
	}
	return "a device"
}

// ReadFile reads all of a regular file.
func ReadFile(path string) (p []byte, err error) {
	f, err := OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(f)
}
