package diskbench

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// System is the file system that a directory is on.
type System struct {
	Name string `json:"name"`          // empty: not known
	Why  string `json:"why,omitempty"` // why a sync there proves nothing; empty: it may
	Free int64  `json:"free_bytes"`    // for this user
}

// Why a sync proves nothing.
const (
	inMemory    = "it is in memory: a sync does nothing, and a power cut takes all"
	overNetwork = "it is on another machine: what a sync does is up to that one, and the network is measured besides"
	inContainer = "it lies on top of other file systems, and goes with its container: measure the volume that the log will be on"
	inProgram   = "a program keeps it: what a sync does is up to that one"
)

// Look says what file system dir is on.
func Look(dir string) (System, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return System{}, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	s := System{Free: int64(stat.Bavail) * int64(stat.Bsize)}
	s.Name, s.Why = describe(&stat)
	return s, nil
}

// ErrSpace: there is too little space for a run.
var ErrSpace = errors.New("too little space")

func (s *System) hasRoom(dir string) error {
	if s.Free < Space {
		return fmt.Errorf("%w: %s has %d MiB, %d MiB are needed", ErrSpace, dir, s.Free>>20, Space>>20)
	}
	return nil
}

// Title names the file system.
func (s *System) Title() string {
	if s.Name == "" {
		return "unknown file system"
	}
	return s.Name
}
