package mmapwal

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
)

// setForeignApart takes out of inv the files that have names of this log but are not its:
// another program may name its files alike (etcd's snapshots do). They are neither removed
// nor overwritten: names that they have are not used.
func (d *DiskStorage) setForeignApart(inv *inventory) error {
	m := d.meta.Meta()
	gone := slices.Concat(inv.leftovers(m), inv.spares, inv.deadFiles(m))
	for _, name := range gone {
		owned, err := d.owns(name)
		if err != nil {
			return err
		}
		if owned {
			continue
		}
		d.foreign = append(d.foreign, name)
		d.log.Warn("raftwal: left alone: by its name this file is the log's, but not by what it holds", "file", filepath.Join(d.dir, name))
		if match := numberPattern.FindStringSubmatch(name); match != nil {
			n, _ := strconv.ParseUint(match[1], 10, 64)
			inv.foreign = max(inv.foreign, n)
		}
	}
	isForeign := func(name string) bool { return slices.Contains(d.foreign, name) }
	inv.temporary = slices.DeleteFunc(inv.temporary, isForeign)
	inv.snapshots = slices.DeleteFunc(inv.snapshots, isForeign)
	inv.spares = slices.DeleteFunc(inv.spares, isForeign)
	inv.numbers = slices.DeleteFunc(inv.numbers, func(n uint64) bool { return n < m.FirstFile && isForeign(entryfile.Name(n)) })
	return nil
}

// owns reports whether a file that Open would remove, or use again, is this log's.
func (d *DiskStorage) owns(name string) (bool, error) {
	file, err := d.fsys.Open(filepath.Join(d.dir, name), true)
	var not *vfs.NotRegularError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil // gone by now
	case errors.As(err, &not), errors.Is(err, fs.ErrPermission):
		return false, nil
	case err != nil:
		return false, err
	}
	defer file.Close()
	logID := d.meta.Meta().LogID
	switch {
	case name == metafile.TemporaryName:
		return metafile.OwnsTemporary(file), nil
	case strings.Contains(name, metafile.SnapshotSuffix):
		return metafile.OwnsSnapshot(file, logID), nil
	}
	return entryfile.Owns(file, logID), nil
}
