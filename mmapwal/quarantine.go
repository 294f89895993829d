package mmapwal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/chain"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// keepValidPrefix takes the entries in front of the first damage as the log.
// Every record of every live file is read. A damaged file ends in front of its
// damage, and a copy of the whole file is put aside first. The files behind it
// go on counting if they continue what is left, since then they supersede what
// is damaged; otherwise they are put aside as well.
func (d *DiskStorage) keepValidPrefix(numbers []uint64) error {
	m := d.meta.Meta()
	if n := len(numbers); m.Durable.File >= m.FirstFile && (n == 0 || numbers[n-1] < m.Durable.File) {
		d.log.Error("raftwal: damage found; what is in front of it is kept", "err", d.missing(m.Durable.File))
	}
	files, damaged, err := d.inspectAll(numbers)
	if err != nil {
		return err
	}
	if kept := d.withoutGap(files); kept < len(files) {
		d.log.Error("raftwal: damage found; what is in front of it is kept", "err", d.findGap(files[:kept+1]))
		files = files[:kept]
	}
	n := d.endOfLog(files)
	if err := d.believe(files[:n]); err != nil {
		return err
	}
	for k, l := range files {
		if !damaged[k] {
			continue
		}
		if err := d.copyAside(l.file.Path()); err != nil {
			return err
		}
	}
	if err := d.setAside(numbers[len(files):]); err != nil {
		return err
	}
	return d.recover(files, n)
}

// inspectAll opens and reads files up to the first that cannot be used, and says which of
// those that can are damaged.
func (d *DiskStorage) inspectAll(numbers []uint64) (files []loaded, damaged []bool, err error) {
	for k, n := range numbers {
		l, damage := d.inspect(n, k, numbers, files)
		if damage != nil && !errors.Is(damage, ErrCorrupt) {
			return nil, nil, damage
		}
		if damage != nil {
			d.log.Error("raftwal: damage found; what is in front of it is kept", "err", damage)
		}
		if l.file == nil {
			break
		}
		files, damaged = append(files, l), append(damaged, damage != nil)
	}
	return files, damaged, nil
}

// withoutGap returns how many of the files, at most, are a log in which no entry is missing
// between those that count.
func (d *DiskStorage) withoutGap(files []loaded) (n int) {
	c := chain.New(d.meta.Meta().Compacted.Index)
	for k, l := range files {
		if c.Add(l.held()); c.Whole() {
			n = k + 1
		}
	}
	return n
}

// endOfLog returns how many of the files are the log: those behind one that is torn,
// which none of them vouches for, hold what was never promised.
func (d *DiskStorage) endOfLog(files []loaded) int {
	for k, l := range files {
		if l.open() && d.vouches(l, files[k+1:]) == "" {
			return k + 1
		}
	}
	return len(files)
}

// inspect opens and reads a file, sealed or not. With damage comes the file as far as its
// first records are whole; none if it cannot be used.
func (d *DiskStorage) inspect(number uint64, k int, numbers []uint64, before []loaded) (loaded, error) {
	if err := d.checkAge(number); err != nil {
		return loaded{}, err
	}
	l, err := d.openFile(number)
	if err != nil {
		return loaded{}, err
	}
	if err := d.checkChain(l.file, k, numbers, before); err != nil {
		return loaded{}, err
	}
	scan, damage := l.file.Check()
	d.recovery.FilesScanned++
	d.recovery.Entries += scan.Index.Len()
	if damage != nil && !errors.Is(damage, ErrCorrupt) {
		return loaded{}, damage
	}
	if damage != nil || !l.file.Sealed() {
		l.scan = &scan
		l.file.Resume(scan)
	}
	if damage == nil && l.scan != nil {
		damage = d.judgeEnd(l, nil)
	}
	return l, damage
}

// setAside renames the files with these numbers out of the log.
func (d *DiskStorage) setAside(numbers []uint64) error {
	if len(numbers) == 0 {
		return nil
	}
	for _, n := range numbers {
		path := filepath.Join(d.dir, entryfile.Name(n))
		target, err := d.asideName(path)
		if err != nil {
			return err
		}
		if err := d.fsys.Rename(path, target); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		d.recovery.SetAside = append(d.recovery.SetAside, target)
	}
	return d.fsys.SyncDir(d.dir)
}

// copyAside copies a file that is about to be cut, durably.
func (d *DiskStorage) copyAside(path string) error {
	target, err := d.asideName(path)
	if err != nil {
		return err
	}
	tmp := path + ".tmp" // like an interrupted creation, it goes at the next Open
	if err := d.copyFile(path, tmp); err != nil {
		if !errors.Is(err, fs.ErrExist) { // what has the name is another program's
			_ = d.fsys.Remove(tmp)
		}
		return noSpace(err)
	}
	if err := d.fsys.Rename(tmp, target); err != nil {
		return err
	}
	d.recovery.SetAside = append(d.recovery.SetAside, target)
	return d.fsys.SyncDir(d.dir)
}

// asideName returns a name for what is put aside that is not taken yet.
func (d *DiskStorage) asideName(path string) (string, error) {
	infos, err := d.fsys.List(d.dir)
	if err != nil {
		return "", err
	}
	taken := make(map[string]bool, len(infos))
	for _, info := range infos {
		taken[info.Name] = true
	}
	name := path + corruptSuffix
	for k := 2; taken[filepath.Base(name)]; k++ {
		name = fmt.Sprintf("%s.%d%s", path, k, corruptSuffix)
	}
	return name, nil
}

// copyFile copies a file durably, leaving holes where it is zero.
func (d *DiskStorage) copyFile(from, to string) (err error) {
	src, err := d.fsys.Open(from, true)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := d.fsys.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	size, err := src.Size()
	if err != nil {
		return err
	}
	if err := dst.Truncate(size); err != nil {
		return err
	}
	return copyContent(dst, src, size)
}

func copyContent(dst, src vfs.File, size int64) error {
	buf := make([]byte, 1<<20)
	zeros := make([]byte, len(buf))
	for at := int64(0); at < size; at += int64(len(buf)) {
		n, err := src.ReadAt(buf[:min(size-at, int64(len(buf)))], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if string(buf[:n]) == string(zeros[:n]) {
			continue
		}
		if _, err := dst.WriteAt(buf[:n], at); err != nil {
			return err
		}
	}
	return dst.Sync()
}
