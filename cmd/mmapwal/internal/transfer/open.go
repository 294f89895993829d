package transfer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
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
		err = fmt.Errorf("%s is no regular file: put the file itself there", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
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
