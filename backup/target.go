package backup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed-2fef92ad/raftwal/internal/archive"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
)

// target is the directory that a log is restored into. All is made in a directory in it, so
// that it can be the root of a volume; files are moved out of there at the end, wal.meta last.
//
//	.restoring/lock       held by the restore under way
//	.restoring/log        the log, as it is being made
//	.restoring/incoming   the increment that is being read
//	.restoring/published  the names of the files that are moved, before the first one is
type target struct {
	made  bool     // it was not there
	root  string   // the directory in it; "": it is not ours
	lock  vfs.File // of root
	moved []string // names of files that were moved, or may have been
}

const (
	lockName      = "lock"
	publishedName = "published"
)

// occupy makes the target, or makes sure that it is empty, and takes it. What an earlier
// restore left that did not live to end is removed.
func (r *restore) occupy() error {
	infos, err := r.fsys.List(r.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := r.fsys.MkdirAll(r.dir); err != nil {
			return fmt.Errorf("it cannot be made; is it a link that leads nowhere? %w", err)
		}
		r.made = true
	case err != nil:
		return fmt.Errorf("%w: %w", ErrExists, err)
	default:
		if err := r.vacant(infos); err != nil {
			return err
		}
	}
	root := filepath.Join(r.dir, archive.WorkDirectory)
	r.log, r.incoming = filepath.Join(root, "log"), filepath.Join(root, "incoming")
	if err := r.fsys.MkdirAll(root); err != nil {
		return err
	}
	if err := r.takeLock(root); err != nil {
		return err
	}
	r.root = root
	if err := r.clear(); err != nil {
		return err
	}
	if err := r.fsys.MkdirAll(r.log); err != nil {
		return err
	}
	return r.fsys.MkdirAll(r.incoming)
}

// takeLock makes sure that no other restore works in root, now or a moment ago.
func (r *restore) takeLock(root string) (err error) {
	name := filepath.Join(root, lockName)
	f, err := r.fsys.Create(name)
	if errors.Is(err, fs.ErrExist) {
		f, err = r.fsys.Open(name, false)
	}
	if err != nil {
		return err
	}
	if err := f.Lock(); err != nil {
		if errors.Is(err, vfs.ErrLocked) {
			err = fmt.Errorf("%w: another restore into it is under way", ErrExists)
		}
		return errors.Join(err, f.Close())
	}
	infos, err := r.fsys.List(r.dir)
	if err == nil {
		err = r.vacant(infos) // still, or what the other one made is there by now
	}
	if err != nil {
		_ = r.fsys.Remove(name)
		_ = r.fsys.Remove(root) // unless there is something in it
		return errors.Join(err, f.Close())
	}
	r.lock = f
	return nil
}

// vacant: nothing is in the target but what an earlier restore left, or this one has made.
func (r *restore) vacant(infos []vfs.Info) error {
	isOurs := func(info vfs.Info) bool { return info.IsDir && info.Name == archive.WorkDirectory }
	var published []string
	if slices.ContainsFunc(infos, isOurs) {
		var err error
		if published, err = r.published(); err != nil {
			return err
		}
	}
	for _, info := range infos {
		switch {
		case isOurs(info), info.IsDir && info.Name == "lost+found", slices.Contains(published, info.Name):
		default:
			return fmt.Errorf("%w: it holds %q", ErrExists, info.Name)
		}
	}
	return nil
}

// published returns the names of the files that an earlier restore may have moved to the
// target. wal.meta is none of them: with it there is a log.
func (r *restore) published() (names []string, err error) {
	f, err := r.fsys.Open(filepath.Join(r.dir, archive.WorkDirectory, publishedName), true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	content := make([]byte, min(size, maxPublished))
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, size), content); err != nil {
		return nil, err
	}
	for name := range strings.Lines(string(content)) {
		// A line that a crash has torn is of a file that was not moved.
		if name = strings.TrimSuffix(name, "\n"); archive.IsFileName(name) && name != metafile.Name {
			names = append(names, name)
		}
	}
	return names, nil
}

// maxPublished is the size of the largest list of names that is read, in bytes.
const maxPublished = 256 << 20

// clear removes what an earlier restore left.
func (r *restore) clear() (err error) {
	if r.moved, err = r.published(); err != nil {
		return err
	}
	return r.removeFiles()
}

// removeFiles removes all but the directory itself and its lock: first what was moved, durably,
// and what says so last.
func (r *restore) removeFiles() error {
	for _, name := range r.moved {
		if err := r.fsys.Remove(filepath.Join(r.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if len(r.moved) > 0 {
		if err := r.fsys.SyncDir(r.dir); err != nil {
			return err
		}
	}
	r.moved = nil
	for _, dir := range []string{r.log, r.incoming} {
		if err := r.removeDir(dir); err != nil {
			return err
		}
	}
	err := r.fsys.Remove(filepath.Join(r.dir, archive.WorkDirectory, publishedName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// removeDir removes a directory with files.
func (r *restore) removeDir(dir string) error {
	infos, err := r.fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, info := range infos {
		if err := r.fsys.Remove(filepath.Join(dir, info.Name)); err != nil {
			return err
		}
	}
	return r.fsys.Remove(dir)
}

// leave gives the target up: as it was, if the restore failed with err. What cannot be
// removed goes with the next restore.
func (r *restore) leave(err error) error {
	if r.root != "" {
		if removed := r.removeFiles(); removed == nil {
			_ = r.fsys.Remove(filepath.Join(r.root, lockName))
			_ = r.fsys.Remove(r.root)
		}
	}
	if r.lock != nil {
		err = errors.Join(err, r.lock.Close())
	}
	if err != nil && r.made && r.root != "" {
		_ = r.fsys.Remove(r.dir) // unless there is something in it
	}
	return err
}

// publish moves the log to its place, durably.
func (r *restore) publish() error {
	infos, err := r.fsys.List(r.dir)
	if err != nil {
		return err
	}
	if err := r.vacant(infos); err != nil {
		return err
	}
	if infos, err = r.fsys.List(r.log); err != nil {
		return err
	}
	var names []string
	for _, info := range infos {
		if archive.IsFileName(info.Name) && info.Name != metafile.Name {
			names = append(names, info.Name)
		}
	}
	if err := r.giveToOwner(append(names, metafile.Name)); err != nil {
		return err
	}
	if err := r.announce(names); err != nil {
		return err
	}
	r.moved = names
	for _, name := range names {
		if err := r.move(name); err != nil {
			return err
		}
	}
	if err := r.syncTarget(); err != nil {
		return err
	}
	if err := r.move(metafile.Name); err != nil {
		return err
	}
	r.moved = nil // they are the log's
	if err := r.fsys.SyncDir(r.dir); err != nil {
		return fmt.Errorf("the log is complete, but a power cut may take it: %w", err)
	}
	return nil
}

// giveToOwner gives the files to the owner of a directory that was there before: who restores may
// be somebody else than who uses the log.
func (r *restore) giveToOwner(names []string) error {
	if r.made || r.fsys != vfs.OS() {
		return nil
	}
	for _, name := range names {
		if err := vfs.GiveToOwner(filepath.Join(r.log, name), r.dir); err != nil {
			return err
		}
	}
	return nil
}

// announce stores, durably, what is going to be moved.
func (r *restore) announce(names []string) (err error) {
	f, err := vfs.CreateAnew(r.fsys, filepath.Join(r.root, publishedName))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var content bytes.Buffer
	for _, name := range names {
		fmt.Fprintln(&content, name)
	}
	if _, err := f.WriteAt(content.Bytes(), 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return r.fsys.SyncDir(r.root)
}

func (r *restore) move(name string) error {
	return r.fsys.Rename(filepath.Join(r.log, name), filepath.Join(r.dir, name))
}

// syncTarget makes the names in the target durable, and its own.
func (r *restore) syncTarget() (err error) {
	if err := r.fsys.SyncDir(r.dir); err != nil {
		return err
	}
	d, err := r.fsys.OpenDir(r.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.SyncParents(), d.Close())
}
