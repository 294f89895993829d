package dgraph

import (
	"context"
	"path/filepath"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// openedByDgraph reports whether a log of package mmapwal that was closed lacks nothing but
// what Dgraph removes when it only opens it: files whose first slot is empty; and has nothing
// besides but the file that Dgraph makes if none is left, which is zero. No entry is missing.
func openedByDgraph(dir string) bool {
	l, err := inspect.Look(context.Background(), vfs.OS(), dir, inspect.Options{})
	if err != nil || l.Meta == nil || !l.Meta.Clean || l.Meta.Encrypted {
		return false
	}
	opened := false
	for _, p := range l.Problems {
		n, isEntryFile := entryfile.ParseName(p.File)
		switch {
		case p.Severity != inspect.Damage:
			continue
		case p.Kind == inspect.KindMissing && isEntryFile:
			if n == l.Meta.Durable.File && l.Meta.Durable.Offset > entryfile.DataStart+entryfile.RecordBytes(0) {
				return false // it may have held entries
			}
		case p.Kind == inspect.KindHeader && isZeroFile(filepath.Join(dir, p.File)):
		default:
			return false
		}
		opened = true
	}
	return opened
}

// isZeroFile reports whether there is nothing but zeros in a file.
func isZeroFile(path string) bool {
	f, err := vfs.OS().Open(path, true)
	if err != nil {
		return false
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for at := int64(0); ; {
		start, end, err := f.Data(at)
		if err != nil || start >= end {
			return err == nil
		}
		for at = start; at < end; {
			n, err := f.ReadAt(buf[:min(int64(len(buf)), end-at)], at)
			if n == 0 || !isZero(buf[:n]) {
				return n == 0 && err == nil
			}
			at += int64(n)
		}
	}
}
