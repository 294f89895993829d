//go:build unix && !linux

package vfs

import (
	"errors"
	"os"
)

func allocate(int, int64, int64) error { return errors.ErrUnsupported }
func punch(int, int64, int64) error    { return errors.ErrUnsupported }
func populateWrite([]byte) error       { return errors.ErrUnsupported }
func overwriteInPlace(*os.File)        {}
