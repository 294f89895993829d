package entryfile

import (
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// Owns reports whether a file that has the name of an entry file, or of one to be, may be
// removed as one of log logID: a header page names that log, checksum or not, or neither page
// was written yet. What cannot be read is nobody's.
func Owns(file vfs.File, logID uint64) bool {
	size, err := file.Size()
	if err != nil {
		return false
	}
	blank := true
	for _, at := range [2]int64{headerPage0, headerPage1} {
		var p [page.Size]byte
		if n := min(page.Size, size-at); n > 0 {
			if _, err := file.ReadAt(p[:n], at); err != nil {
				return false
			}
		}
		if string(p[:len(headerMagic)]) == headerMagic && page.Order.Uint64(p[40:]) == logID {
			return true
		}
		blank = blank && p == [page.Size]byte{}
	}
	return blank && (size >= DataStart || vfs.IsBlank(file)) // a spare that is being cleared has slots
}
