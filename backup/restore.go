package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
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
// dir must not exist, or be an empty directory, through links, too, or the root of a volume with
// nothing but a lost+found; it keeps its owner and mode. Missing parents are made. The log
// is written to a directory in it (".restoring"), synced, compared with what the manifests
// say, opened and recovered by the engine, read again byte by byte, and only then moved to
// its place, durably, wal.meta last: until then there is no log. An error, but for that of the
// very last sync, leaves dir as it was. A crash may leave files in it, with which no log opens
// and none is made; the next Restore into it removes them, and begins anew.
//
// Errors: ErrDamaged, ErrVersion, ErrChain, ErrExists; mmapwal.ErrKeyRequired,
// ErrWrongKey, ErrNotEncrypted for a key that is not needed, ErrTampered for a backup that
// was not made with the log's key; ErrCorrupt for damage that the log had when it was
// backed up; ctx.Err(); that of a reader; what the operating system answers.
//
// With a key, each backup of the chain has to be authentic, but for those from before the
// log was encrypted, of which then nothing is used. Nobody can tell whether a backup is the
// newest there is. For the files in it from before the log was encrypted
// (Manifest.PlainFiles) only checksums vouched when it was made.
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

	target
	log      string // the directory whose files go to dir
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
	if dir == "" || len(backups) == 0 || r.ctx == nil || slices.Contains(backups, nil) {
		return fmt.Errorf("%w: a context, a directory, and at least one backup are needed; none may be nil", mmapwal.ErrInvalid)
	}
	defer func() { err = r.leave(err) }()
	if err := r.occupy(); err != nil {
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

// settle lets the engine recover the log, which a backup holds as one that was not
// closed, and close it.
func (r *restore) settle() (err error) {
	wrapper, err := r.wrapper()
	if err != nil {
		return err
	}
	o := &mmapwal.Options{KeyWrapper: wrapper, RequireEncryption: r.hasKey(), FileDataSize: r.fileDataSize(), SpareFiles: -1,
		Logger: slog.New(slog.DiscardHandler)}
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
