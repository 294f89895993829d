package mmapwal

import (
	"time"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// SetFS makes the log use fsys instead of the operating system's file system.
func (o *Options) SetFS(fsys vfs.FS) {
	o.host = host.OS()
	o.host.FS = fsys
}

// SetSyncMode sets the sync policy by its number on disk.
func (o *Options) SetSyncMode(mode uint32) { o.Sync = SyncPolicy{mode: syncMode(mode)} }

// Keys returns the directory key.
func (d *DiskStorage) Keys() *encryption.DirectoryKey { return d.meta.Keys() }

// ClearBelow is TruncateEntriesUntil for entries that no snapshot covers, too, as it was once.
func (d *DiskStorage) ClearBelow(i uint64) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	return d.clear(i)
}

// SealNow seals the files that are full.
func (d *DiskStorage) SealNow() { d.sealRetired() }

// WaitForBackground returns when nothing is done in the background any more.
func (d *DiskStorage) WaitForBackground() {
	d.stopAhead()
	if d.remover != nil { // it is open for writing
		d.remover.Wait()
	}
}

// Unsealed returns how many files take no more records and are not sealed yet.
func (d *DiskStorage) Unsealed() int { return len(d.unsealed()) }

// DirectBytes returns how many bytes may go around the page cache in a Save that waited so
// long for the writer's lock.
func (d *DiskStorage) DirectBytes(waited time.Duration) int64 {
	return d.directBytes(call{waited: waited}, false)
}

// TooMuch: see tooMuch.
func TooMuch(files int, bytes int64) bool { return tooMuch(files, bytes) }
