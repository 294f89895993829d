package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/seed-2fef92ad/raftwal/internal/archive"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// add reads backup number k of the chain, and makes r.log what it was then.
func (r *restore) add(k int, b io.Reader) error {
	to := r.incoming
	if k == 0 {
		to = r.log
	}
	r.parts = make(map[string][]archive.Range)
	m, err := archive.Read(b, func(p archive.Part) error { return r.take(to, p) })
	if err := errors.Join(err, r.closeOut()); err != nil {
		return err
	}
	if err := r.judge(k, &m); err != nil {
		return err
	}
	old := filesOf(&r.manifest)
	if err := r.plausible(&m, old); err != nil {
		return err
	}
	r.manifest, r.sum, r.chain = m, m.Hash(), append(r.chain, m)
	if k == 0 {
		return r.fsys.SyncDir(r.log)
	}
	return r.merge(old)
}

// judge says whether m can be number k of the chain.
func (r *restore) judge(k int, m *archive.Manifest) error {
	switch {
	case k == 0 && m.Incremental():
		return fmt.Errorf("%w: it is an increment; give the full backup it builds on first, then all increments in order", ErrChain)
	case k > 0 && !m.Incremental():
		return fmt.Errorf("%w: it is a full backup; give it first, or alone", ErrChain)
	case k > 0 && m.Parent != r.sum:
		return fmt.Errorf("%w: it builds on the backup with the manifest %.12s…, not on %.12s…, the one before it", ErrChain, m.Parent, r.sum)
	case m.Encrypted && !r.hasKey():
		return mmapwal.ErrKeyRequired
	}
	return nil
}

// take writes a part of a file.
func (r *restore) take(dir string, p archive.Part) error {
	if err := r.open(dir, p.Name); err != nil {
		return err
	}
	part := archive.Range{Offset: p.Offset, Bytes: p.Bytes}
	if !fits(p.Name, part, r.parts[p.Name]) {
		return fmt.Errorf("%w: no %s has %d bytes at offset %d", ErrDamaged, p.Name, p.Bytes, p.Offset)
	}
	r.parts[p.Name] = append(r.parts[p.Name], part)
	return r.copy(r.out, part, p.Reader)
}

// open makes the named file the one that is written to.
func (r *restore) open(dir, name string) error {
	if r.outName == name {
		return nil
	}
	if err := r.closeOut(); err != nil {
		return err
	}
	f, err := r.fsys.Create(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: the parts of %s are not together", ErrDamaged, name)
	}
	if err != nil {
		return err
	}
	r.out, r.outName = f, name
	return nil
}

// closeOut makes the file durable that was written to.
func (r *restore) closeOut() error {
	f := r.out
	r.out, r.outName = nil, ""
	if f == nil {
		return nil
	}
	return errors.Join(f.Sync(), f.Close())
}

// copy writes the bytes of a range.
func (r *restore) copy(f vfs.File, to archive.Range, from io.Reader) error {
	for at, end := to.Offset, to.Offset+to.Bytes; at < end; {
		p := r.buf[:min(end-at, int64(len(r.buf)))]
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if _, err := io.ReadFull(from, p); err != nil {
			return err
		}
		if _, err := f.WriteAt(p, at); err != nil {
			return err
		}
		at += int64(len(p))
	}
	return nil
}

// merge makes r.log what the increment in r.incoming says.
func (r *restore) merge(old map[string]*archive.File) error {
	for _, f := range r.manifest.Files {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if err := r.mergeFile(old[f.Name], &f); err != nil {
			return err
		}
	}
	infos, err := r.fsys.List(r.log)
	if err != nil {
		return err
	}
	present := filesOf(&r.manifest)
	for _, info := range infos {
		if present[info.Name] == nil {
			if err := r.fsys.Remove(filepath.Join(r.log, info.Name)); err != nil {
				return err
			}
		}
	}
	return r.fsys.SyncDir(r.log)
}

// mergeFile makes a file of r.log, which was old, what f says.
func (r *restore) mergeFile(old, f *archive.File) (err error) {
	from, to := filepath.Join(r.incoming, f.Name), filepath.Join(r.log, f.Name)
	switch {
	case !f.Based:
		return r.fsys.Rename(from, to)
	case old == nil:
		return fmt.Errorf("%w: the backup before it does not have %s", ErrChain, f.Name)
	case len(r.parts[f.Name]) == 0:
		return nil
	}
	in, err := r.fsys.Open(from, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close(), r.fsys.Remove(from)) }()
	out, err := r.fsys.Open(to, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Sync(), out.Close()) }()
	if !slices.Equal(old.Head, f.Head) {
		for _, part := range old.Head {
			if err := r.copy(out, part, zeros{}); err != nil {
				return err
			}
		}
	}
	for _, part := range r.parts[f.Name] {
		if err := r.copy(out, part, io.NewSectionReader(in, part.Offset, part.Bytes)); err != nil {
			return err
		}
	}
	return nil
}

// zeros is a Reader of zeros without an end.
type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// checkFiles gives the files of r.log their sizes, and compares each with what the
// manifest says.
func (r *restore) checkFiles() error {
	for k := range r.manifest.Files {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		if err := r.checkFile(&r.manifest.Files[k]); err != nil {
			return err
		}
	}
	return nil
}

func (r *restore) checkFile(f *archive.File) (err error) {
	out, err := r.fsys.Open(filepath.Join(r.log, f.Name), false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := out.Truncate(f.Size); err != nil {
		return err
	}
	for _, part := range slices.Concat(f.Head, f.Data) {
		sum, err := r.hash(out, part)
		if err != nil {
			return err
		}
		if sum != part.SHA256 {
			return fmt.Errorf("%w: %s is not what was backed up", ErrDamaged, f.Name)
		}
	}
	return out.Sync()
}

// hash returns the SHA-256 of a range.
func (r *restore) hash(in io.ReaderAt, part archive.Range) (string, error) {
	sum := sha256.New()
	for at, end := part.Offset, part.Offset+part.Bytes; at < end; {
		p := r.buf[:min(end-at, int64(len(r.buf)))]
		if err := r.ctx.Err(); err != nil {
			return "", err
		}
		if _, err := in.ReadAt(p, at); err != nil {
			return "", err
		}
		sum.Write(p)
		at += int64(len(p))
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
