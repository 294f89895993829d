// Package host is what the engine runs on: a file system, random numbers and
// goroutines. Tests give it others, so that a seed tells all that happens.
package host

import (
	"crypto/rand"
	"io"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// Host is what the engine runs on.
type Host struct {
	FS     vfs.FS
	Random io.Reader                       // for ids, salts and keys
	Go     func(f func())                  // runs f in the background
	After  func(d time.Duration, f func()) // runs f in the background, when d is over
	// MinFileData is the least Options.FileDataSize, in bytes: small files make for fast
	// tests. 0: as the options say.
	MinFileData int64
}

// Never is an After of which no time is ever over.
func Never(time.Duration, func()) {}

// OS returns the operating system's.
func OS() Host {
	return Host{
		FS: vfs.OS(), Random: rand.Reader,
		Go:    func(f func()) { go f() },
		After: func(d time.Duration, f func()) { time.AfterFunc(d, f) },
	}
}
