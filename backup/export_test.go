package backup

import (
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// SetFS makes a restore use fsys instead of the operating system's file system.
func (o *RestoreOptions) SetFS(fsys vfs.FS) {
	o.host = host.OS()
	o.host.FS = fsys
}

// SetFS makes a Scheduler use fsys instead of the operating system's file system.
func (o *SchedulerOptions) SetFS(fsys vfs.FS) { o.fsys = fsys }
