package repair

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// ManifestName is the name of the file that says what a backup holds. It is stored
// last: a backup without one is not complete, and nothing was changed after it.
const ManifestName = "manifest.json"

// Manifest says what a backup holds.
type Manifest struct {
	Log   string          `json:"log"` // absolute path of its directory
	Time  time.Time       `json:"time"`
	Files []ManifestEntry `json:"files"`
	Plan  *Report         `json:"plan"` // what was going to be done and lost, in case nobody lives to tell
}

// ManifestEntry is one file of a backup.
type ManifestEntry struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// backUp copies the files that plan changes from dir to target, which is made, and
// checks the copies. It is durable on return. After an error what it made is gone,
// as far as the disk lets it.
func backUp(fsys vfs.FS, dir, target string, plan *Report) (err error) {
	if infos, err := fsys.List(target); err == nil && len(infos) > 0 {
		return fmt.Errorf("%s is not empty: a backup goes to a directory of its own", target)
	}
	if err := fsys.MkdirAll(target); err != nil {
		return err
	}
	made := []string{target}
	defer func() {
		for _, path := range slices.Backward(made) {
			if err != nil {
				_ = fsys.Remove(path) // what stays is no backup: it has no manifest
			}
		}
	}()
	log, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	m := Manifest{Log: log, Time: time.Now().UTC(), Plan: plan}
	for _, name := range plan.Changed {
		made = append(made, filepath.Join(target, name))
		entry, err := backUpFile(fsys, filepath.Join(dir, name), made[len(made)-1])
		if err != nil {
			return err
		}
		m.Files = append(m.Files, entry)
	}
	if err := fsys.SyncDir(target); err != nil { // the names come before the manifest
		return err
	}
	made = append(made, filepath.Join(target, ManifestName))
	if err := m.write(fsys, made[len(made)-1]); err != nil {
		return err
	}
	return fsys.SyncDir(target)
}

func (m *Manifest) write(fsys vfs.FS, path string) error {
	content, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	f, err := fsys.Create(path)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(append(content, '\n'), 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// backUpFile copies one file, and reads the copy again.
func backUpFile(fsys vfs.FS, from, to string) (entry ManifestEntry, err error) {
	src, err := fsys.Open(from, true)
	if err != nil {
		return entry, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	dst, err := fsys.Create(to)
	if err != nil {
		return entry, err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	size, err := src.Size()
	if err != nil {
		return entry, err
	}
	if err := dst.Truncate(size); err != nil {
		return entry, err
	}
	sum := sha256.New()
	if err := eachBlock(src, size, sum, func(at int64, p []byte) error { _, err := dst.WriteAt(p, at); return err }); err != nil {
		return entry, err
	}
	if err := dst.Sync(); err != nil {
		return entry, err
	}
	again := sha256.New()
	if err := eachBlock(dst, size, again, func(int64, []byte) error { return nil }); err != nil {
		return entry, err
	}
	if !slices.Equal(sum.Sum(nil), again.Sum(nil)) {
		return entry, fmt.Errorf("%s is not what was copied from %s: do not trust this disk", to, from)
	}
	return ManifestEntry{Name: filepath.Base(from), Size: size, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

// eachBlock reads a file into sum, and visits the blocks that are not zero.
func eachBlock(f vfs.File, size int64, sum hash.Hash, visit func(at int64, p []byte) error) error {
	buf, zeros := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); at < size; {
		p := buf[:min(size-at, int64(len(buf)))]
		if n, err := f.ReadAt(p, at); n < len(p) {
			return errors.Join(err, io.ErrUnexpectedEOF)
		}
		_, _ = sum.Write(p) // a hash takes everything
		if !bytes.Equal(p, zeros[:len(p)]) {
			if err := visit(at, p); err != nil {
				return err
			}
		}
		at += int64(len(p))
	}
	return nil
}
