package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/archive"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// Errors to branch on with errors.Is.
var (
	// ErrDamaged: a backup was cut short, damaged, or is none.
	ErrDamaged = archive.ErrDamaged
	// ErrVersion: a newer version wrote the backup.
	ErrVersion = archive.ErrVersion
	// ErrChain: the backups do not build on each other in the order given.
	ErrChain = errors.New("backup: the backups are no chain")
	// ErrExists: the target is there already, and not an empty directory.
	ErrExists = errors.New("backup: the target is not an empty directory")
)

// RestoreOptions of Restore. The zero value is for a log that is not encrypted, and
// gives it its old identity back.
type RestoreOptions struct {
	// Key is the master key of an encrypted log: 16, 24 or 32 bytes; the one that
	// opened the log when the last backup of the chain was made.
	Key []byte
	// KeyWrapper is used instead of a Key, see mmapwal.Options.
	KeyWrapper encryption.KeyWrapper
	// RaftID replaces the Raft ID; nil keeps the old one.
	RaftID *uint64

	host host.Host
}

// Restore makes a log in dir from a full backup and the increments that build on it,
// in the order in which they were made; nil opts are the default ones. It reads each
// backup once, to its end. The log that it leaves was closed cleanly. It returns the
// manifest of the last backup.
//
// dir must not exist, or be an empty directory; missing parents are made. The log is
// written beside it (dir + ".restoring-…"), synced, compared with what the manifests
// say, opened and recovered by the engine, read again byte by byte, and only then
// given its name, durably. An error, but for that of the very last sync, leaves
// nothing under that name, and so does a crash; it may leave the directory beside it,
// which can be deleted.
//
// Errors: ErrDamaged, ErrVersion, ErrChain, ErrExists; mmapwal.ErrKeyRequired,
// ErrWrongKey, ErrNotEncrypted for a key that is not needed, ErrTampered for a backup that
// was not made with the log's key; ErrCorrupt for damage that the log had when it was
// backed up; ctx.Err(); that of a reader; what the operating system answers.
//
// With a key, each backup of the chain has to be authentic, but for those from before the
// log was encrypted, of which then nothing is used. That it is the newest there is, nobody
// can tell; and of files from before then that a backup has (Manifest.PlainFiles) only
// checksums vouched when it was made.
func Restore(ctx context.Context, dir string, opts *RestoreOptions, backups ...io.Reader) (m mmapwal.Manifest, err error) {
	r := &restore{ctx: ctx, dir: filepath.Clean(dir), buf: make([]byte, 1<<20)}
	if opts != nil {
		r.opts = *opts
	}
	if r.opts.host.FS == nil {
		r.opts.host = host.OS()
	}
	r.fsys = r.opts.host.FS
	if err := r.run(dir, backups); err != nil {
		return m, fmt.Errorf("backup: restore %q: %w", dir, err)
	}
	return r.manifest, nil
}

// restore is one under way.
type restore struct {
	ctx  context.Context
	opts RestoreOptions
	fsys vfs.FS
	dir  string

	root     string // the directory beside dir; it has the two that follow
	log      string // what becomes dir
	incoming string // what the increment that is being read has

	chain    []archive.Manifest
	manifest archive.Manifest // of the last backup read
	sum      string           // its hash
	parts    map[string][]archive.Range
	out      vfs.File // the file that is being written
	outName  string
	buf      []byte
}

func (r *restore) run(dir string, backups []io.Reader) (err error) {
	if dir == "" || len(backups) == 0 {
		return fmt.Errorf("%w: a directory and at least one backup are needed", mmapwal.ErrInvalid)
	}
	if _, err := r.vacant(); err != nil {
		return err
	}
	defer func() {
		if err != nil && r.root != "" {
			_ = r.removeAll() // what is left says what it is, and can be deleted
		}
	}()
	if err := r.makeRoot(); err != nil {
		return err
	}
	for k, b := range backups {
		if err := r.add(k, b); err != nil {
			return fmt.Errorf("backup %d of %d: %w", k+1, len(backups), err)
		}
	}
	if err := r.authenticate(); err != nil {
		return err
	}
	if err := r.checkFiles(); err != nil {
		return err
	}
	if err := r.settle(); err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	return r.publish()
}

// vacant reports whether the target is an empty directory; if not, it is missing.
func (r *restore) vacant() (empty bool, err error) {
	infos, err := r.fsys.List(r.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("%w: %w", ErrExists, err)
	case len(infos) > 0:
		return false, fmt.Errorf("%w: it holds %s", ErrExists, infos[0].Name)
	}
	return true, nil
}

func (r *restore) makeRoot() error {
	random := make([]byte, 8)
	if _, err := io.ReadFull(r.opts.host.Random, random); err != nil {
		return err
	}
	r.root = r.dir + ".restoring-" + hex.EncodeToString(random)
	r.log, r.incoming = filepath.Join(r.root, "log"), filepath.Join(r.root, "incoming")
	if err := r.fsys.MkdirAll(r.log); err != nil {
		return err
	}
	return r.fsys.MkdirAll(r.incoming)
}

// removeAll removes what was written beside the target.
func (r *restore) removeAll() error {
	var errs []error
	for _, dir := range []string{r.log, r.incoming} {
		infos, err := r.fsys.List(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		errs = append(errs, err)
		for _, info := range infos {
			errs = append(errs, r.fsys.Remove(filepath.Join(dir, info.Name)))
		}
		errs = append(errs, r.fsys.Remove(dir))
	}
	return errors.Join(append(errs, r.fsys.Remove(r.root))...)
}

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
	old := r.manifest
	r.manifest, r.sum, r.chain = m, m.Hash(), append(r.chain, m)
	if k == 0 {
		return r.fsys.SyncDir(r.log)
	}
	return r.merge(&old)
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
func (r *restore) merge(old *archive.Manifest) error {
	for _, f := range r.manifest.Files {
		if err := r.mergeFile(old.Find(f.Name), &f); err != nil {
			return err
		}
	}
	infos, err := r.fsys.List(r.log)
	if err != nil {
		return err
	}
	for _, info := range infos {
		if r.manifest.Find(info.Name) == nil {
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

// settle lets the engine recover the log, which a backup holds as one that was not
// closed, and close it.
func (r *restore) settle() (err error) {
	wrapper, err := r.wrapper()
	if err != nil {
		return err
	}
	o := &mmapwal.Options{KeyWrapper: wrapper, RequireEncryption: r.hasKey(), FileDataSize: r.fileDataSize(), Logger: slog.New(slog.DiscardHandler)}
	d, err := mmapwal.OpenOn(r.opts.host, r.log, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if r.opts.RaftID != nil {
		return d.SetUint(mmapwal.RaftId, *r.opts.RaftID)
	}
	return nil
}

func (r *restore) hasKey() bool { return r.opts.Key != nil || r.opts.KeyWrapper != nil }

// wrapper returns what unwraps the log's key; nil if it is not encrypted.
func (r *restore) wrapper() (encryption.KeyWrapper, error) {
	switch {
	case r.opts.Key != nil && r.opts.KeyWrapper != nil:
		return nil, fmt.Errorf("%w: Key and KeyWrapper are both set; choose one", mmapwal.ErrInvalid)
	case !r.manifest.Encrypted && r.hasKey():
		return nil, fmt.Errorf("%w: leave out the key", mmapwal.ErrNotEncrypted)
	case r.opts.Key != nil:
		return encryption.NewKeyWrapper(r.opts.Key)
	}
	return r.opts.KeyWrapper, nil
}

// fileDataSize is that of the log's last file.
func (r *restore) fileDataSize() (size int64) {
	for _, f := range r.manifest.Files {
		if _, ok := entryfile.ParseName(f.Name); ok {
			size = min(max(f.Size-entryfile.DataStart, entryfile.MinDataBytes), entryfile.MaxDataBytes)
		}
	}
	return size
}

// check reads all of the log that is about to get its name.
func (r *restore) check() error {
	wrapper, err := r.wrapper()
	if err != nil {
		return err
	}
	l, err := inspect.Look(r.ctx, r.fsys, r.log, inspect.Options{Wrapper: wrapper, Check: true})
	if err != nil {
		return err
	}
	for _, p := range l.Problems {
		if p.Severity == inspect.Damage {
			return &mmapwal.CorruptError{File: p.File, Offset: p.Offset, First: p.First, Last: p.Last,
				Reason: "the log was damaged when it was backed up: " + p.What}
		}
	}
	return r.compare(l)
}

// state is what a log and a manifest both tell.
type state struct {
	LogID                       string
	RaftID, GroupID, Checkpoint uint64
	Encrypted, Clean            bool
	First, Last                 uint64
	HardState                   archive.HardState
	Snapshot                    archive.Position
}

// compare compares what the log holds with what the manifest says.
func (r *restore) compare(l *inspect.Log) error {
	m := &r.manifest
	want := state{
		LogID: m.LogID, RaftID: m.RaftID, GroupID: m.GroupID, Checkpoint: m.Checkpoint,
		Encrypted: m.Encrypted, Clean: true, First: m.First, Last: m.Last, Snapshot: m.Snapshot,
	}
	if m.HardState != nil {
		want.HardState = *m.HardState
	}
	if r.opts.RaftID != nil {
		want.RaftID = *r.opts.RaftID
	}
	is := state{
		LogID: l.Meta.LogID, RaftID: l.Meta.RaftID, GroupID: l.Meta.GroupID, Checkpoint: l.Meta.Checkpoint,
		Encrypted: l.Meta.Encrypted, Clean: l.Meta.Clean, First: l.First, Last: l.Last,
		Snapshot: archive.Position(l.Meta.Snapshot.Position),
	}
	if l.Meta.HardState != nil {
		is.HardState = archive.HardState(*l.Meta.HardState)
	}
	if is != want {
		return fmt.Errorf("%w: the log that came out says %+v, the manifest %+v", ErrDamaged, is, want)
	}
	return nil
}

// publish gives the log its name, durably.
func (r *restore) publish() error {
	empty, err := r.vacant()
	if err != nil {
		return err
	}
	if empty {
		if err := r.fsys.Remove(r.dir); err != nil {
			return err
		}
	}
	if err := r.fsys.Rename(r.log, r.dir); err != nil {
		return err
	}
	_ = r.removeAll() // only empty directories are left
	if err := r.fsys.SyncDir(filepath.Dir(r.dir)); err != nil {
		return fmt.Errorf("the log is complete, but a power cut may take its name: %w", err)
	}
	return nil
}
