package metafile

import (
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// OwnsSnapshot reports whether a file that has the name of a snapshot file, or of one to be, may
// be removed as one of log logID: its header names that log, or was not written yet. What
// cannot be read is nobody's.
func OwnsSnapshot(file vfs.File, logID uint64) bool {
	var p [snapHeaderBytes]byte
	if _, err := file.ReadAt(p[:], 0); err == nil && string(p[:len(snapMagic)]) == snapMagic {
		return page.Order.Uint64(p[16:]) == logID
	}
	return vfs.IsBlank(file)
}

// OwnsTemporary is the same for the wal.meta of a creation that was interrupted: it has no
// log yet.
func OwnsTemporary(file vfs.File) bool {
	var p [page.Size]byte
	if _, err := file.ReadAt(p[:], 0); err == nil && string(p[atMagic:atMagic+len(magic)]) == magic {
		return true
	}
	return vfs.IsBlank(file)
}
