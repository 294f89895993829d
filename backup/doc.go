// Package backup makes logs of package mmapwal again from their backups, and makes
// backups at regular intervals.
//
// A backup is what DiskStorage.Backup writes: a tar stream that holds the log as it
// was at one moment, and a manifest that vouches for every byte of it. An
// increment, by DiskStorage.BackupSince, holds what is new since an earlier backup.
//
// # What a restored log may be used for
//
// A node that comes back with an old log has forgotten entries that it acknowledged
// and votes that it cast, and so can make its group lose committed entries, or
// elect two leaders in one term. Either restore all nodes of a group from the backup
// of one node, or let what was restored join as a new member, with an ID that the
// group has never seen. See docs/backup.md.
package backup
