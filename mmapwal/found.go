package mmapwal

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io/fs"
	"path/filepath"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
)

// What Open finds may never have been synced: somebody has copied the log here, or put a file of
// it back, or the kernel still has what a process wrote that was killed. So all files that count
// are synced before the first store of a run, which builds on them, and promises what it needs
// of them. That is spared where the file system says that they are those that the last
// Close left, which had synced them.

// standing returns the names of the files that count: entry files, a snapshot's, and wal.meta.
func standing(m *metafile.Meta, numbers []uint64) []string {
	names := make([]string, 0, len(numbers)+2)
	for _, n := range numbers {
		names = append(names, entryfile.Name(n))
	}
	if m.SnapshotInFile {
		names = append(names, metafile.SnapshotName(m.Snapshot))
	}
	return append(names, metafile.Name)
}

// stampOf sums up what the file system says of the files with these names: which they are, and
// when they were changed last; of wal.meta, which is stored to after that, only which it is. 0:
// it does not say.
func stampOf(infos []vfs.Info, names []string) uint64 {
	byName := make(map[string]*vfs.Info, len(infos))
	for k := range infos {
		byName[infos[k].Name] = &infos[k]
	}
	sum := fnv.New64a()
	for _, name := range names {
		info := byName[name]
		if info == nil || info.Inode == 0 {
			return 0
		}
		fields := [3]int64{int64(info.Inode), info.Size, info.Changed.UnixNano()}
		if name == metafile.Name {
			fields[2] = 0
		}
		_ = binary.Write(sum, binary.BigEndian, fields) // a hash does not fail
		_, _ = sum.Write([]byte(name))
	}
	return max(sum.Sum64(), 1)
}

// noteUnsynced notes which files are to be synced before the first store; none if they are as
// Close left them, or were made by this Open.
func (d *DiskStorage) noteUnsynced(inv *inventory) {
	m := d.meta.Meta()
	names := standing(&m, inv.live(m))
	if d.made || m.Stamp != 0 && d.settled() && m.Stamp == stampOf(inv.infos, names) {
		return
	}
	d.unsynced, d.holed = names, names
}

// ensureFound syncs what noteUnsynced noted, once; their names are synced with the first store
// to wal.meta. When it fails, nothing has changed.
func (d *DiskStorage) ensureFound() error {
	if d.unsynced == nil {
		return nil
	}
	if err := d.fsys.SyncParents(); err != nil {
		return err
	}
	for _, name := range d.unsynced {
		if err := d.syncFile(name); err != nil && !errors.Is(err, fs.ErrNotExist) { // loading it tells that better
			return err
		}
	}
	d.unsynced = nil
	return nil
}

// roomy is writable for what may store where files that Open found have holes, as those of
// copies do: there are blocks then. Nothing is sealed meanwhile: where the system has no call for
// it, blocks are made by writing zeros where zeros were read, and a seal that is stored
// between the two would be lost. ErrNoSpace; when it fails, nothing has changed.
func (d *DiskStorage) roomy() error {
	if err := d.writable(); err != nil || len(d.holed) == 0 {
		return err
	}
	d.ahead.sealing.Lock()
	defer d.ahead.sealing.Unlock()
	for len(d.holed) > 0 {
		if err := d.reserveFile(d.holed[0]); err != nil && !errors.Is(err, fs.ErrNotExist) { // it may be dead by now
			return noSpace(err)
		}
		d.holed = d.holed[1:]
	}
	return nil
}

// reserveFile makes blocks where a file is stored to that holds its entries already: its header
// pages, and those of the tail's slots; all of wal.meta.
func (d *DiskStorage) reserveFile(name string) error {
	from, to := int64(0), int64(metafile.Size)
	if number, ok := entryfile.ParseName(name); ok {
		from, to = entryfile.HeaderPages[0], entryfile.DataStart
		if d.tail != nil && d.tail.Number() == number {
			from = 0
		}
	} else if name != metafile.Name {
		return nil
	}
	f, err := d.fsys.Open(filepath.Join(d.dir, name), false)
	if err != nil {
		return err
	}
	return errors.Join(f.Reserve(from, to-from), f.Close())
}

func (d *DiskStorage) syncFile(name string) error {
	f, err := d.fsys.Open(filepath.Join(d.dir, name), false)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// stamp returns that of the files that count, for a log that is going to be closed, all synced.
func (d *DiskStorage) stamp(m *metafile.Meta) (uint64, error) {
	infos, err := d.fsys.List(d.dir)
	if err != nil {
		return 0, err
	}
	var numbers []uint64
	for _, s := range d.files {
		numbers = append(numbers, s.file.Number())
	}
	return stampOf(infos, standing(m, numbers)), nil
}
