package mmapwal

import (
	"io"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// SetFS makes the log use fsys instead of the operating system's file system.
func (o *Options) SetFS(fsys vfs.FS) { o.fsys = fsys }

// SetRandom makes the log take its ids and salts from r.
func (o *Options) SetRandom(r io.Reader) { o.random = r }

// SetSyncMode sets the sync policy by its number on disk.
func (o *Options) SetSyncMode(mode uint32) { o.Sync = SyncPolicy{syncMode(mode)} }

// WaitForRemovals waits until nothing is being removed in the background.
func (d *DiskStorage) WaitForRemovals() { d.remover.Wait() }
