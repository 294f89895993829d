package mmapwal

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"go.etcd.io/raft/v3"
)

// Errors to branch on with errors.Is. What is returned wraps them and says which
// file, offset and index. Reads answer with raft's own ErrCompacted,
// ErrUnavailable and ErrSnapOutOfDate.
var (
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("mmapwal: the log is closed")
	// ErrLocked: another DiskStorage, here or in another process, has the
	// directory open for writing.
	ErrLocked = errors.New("mmapwal: the log is in use by another owner")
	// ErrNoSpace: the disk is full. Nothing has changed; the same call works
	// once there is room. Compacting makes room.
	ErrNoSpace = errors.New("mmapwal: no space left on the device")
	// ErrReadOnly: the log was opened with Options.ReadOnly.
	ErrReadOnly = errors.New("mmapwal: the log is open for reading only")
	// ErrPoisoned: a sync failed, or a write failed half-way. What the disk holds
	// is not known, so nothing is written any more, and every later write returns
	// the same error. Reads go on. Close the log and open it again: that finds
	// out what the disk holds.
	ErrPoisoned = errors.New("mmapwal: an earlier write or sync failed; open the log again")
	// ErrCorrupt: promised data is damaged. errors.As with *CorruptError tells where.
	ErrCorrupt = corrupt.Err
	// ErrInvalid: an argument that would break the log, or an option out of
	// range. Nothing has changed.
	ErrInvalid = errors.New("mmapwal: invalid argument")
	// ErrForeign: the directory holds files of another program, Dgraph among
	// them. Nothing has changed.
	ErrForeign = errors.New("mmapwal: the directory belongs to another program")
	// ErrVersion: a newer version of this package wrote the log.
	ErrVersion = errors.New("mmapwal: written by a newer version of this package")
	// ErrUnsupported: the file system cannot keep a promise of this package
	// (it has no file locks). It wraps errors.ErrUnsupported.
	ErrUnsupported = fmt.Errorf("mmapwal: %w", errors.ErrUnsupported)
	// ErrKeyLength: a master key that has not 16, 24 or 32 bytes.
	ErrKeyLength = encryption.ErrKeyLength
	// ErrKeyRequired: the log is encrypted, and no key was given.
	ErrKeyRequired = encryption.ErrKeyRequired
	// ErrWrongKey: the log is encrypted with another key. It comes alone: never with ErrTampered,
	// nor for a KeyWrapper that fails, whose error is wrapped as it is.
	ErrWrongKey = encryption.ErrWrongKey
	// ErrNotEncrypted: the log is not encrypted, but should be.
	ErrNotEncrypted = errors.New("mmapwal: the log is not encrypted")
	// ErrTampered: what was read is not what this log stored in this place,
	// though its checksum is right: somebody has changed, moved or exchanged it.
	// It comes with a *CorruptError that says where.
	ErrTampered = encryption.ErrTampered
	// ErrFault: the kernel could not back a page of a mapped file: the disk is
	// failing, or somebody cut the file short.
	ErrFault = vfs.ErrFault
)

// CorruptError says where promised data is damaged, and which entries are
// affected, so that they can be fetched from another node. It wraps ErrCorrupt.
//
//	File        string // path of the damaged file
//	Offset      int64  // of the damage, in bytes from the start of the file
//	First, Last uint64 // indexes of the affected entries; 0 and 0 if unknown or none
//	Reason      string // for people
type CorruptError = corrupt.Error

// prefix begins the errors of this package.
const prefix = "mmapwal: "

// once is an error that names the package once, at its begin, however often what it wraps
// does.
type once struct{ err error }

func (o *once) Error() string { return prefix + strings.ReplaceAll(o.err.Error(), prefix, "") }

// Unwrap returns what it wraps.
func (o *once) Unwrap() error { return o.err }

// outOfDate says that a snapshot at i is not newer than the present one.
func outOfDate(i, newest uint64) error {
	return fmt.Errorf("mmapwal: snapshot at %d: %w: the newest one is at %d", i, raft.ErrSnapOutOfDate, newest)
}

func invalidf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

// noSpace translates what the system says of a full disk, unless a sync says it.
func noSpace(err error) error {
	full := errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	if full && !errors.Is(err, ErrNoSpace) && !vfs.SyncFailed(err) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// opening translates an error of the packages below into one of this package.
func opening(err error) error {
	for _, to := range []struct{ from, to error }{
		{vfs.ErrLocked, ErrLocked},
		{vfs.ErrNoLocks, ErrUnsupported},
		{metafile.ErrVersion, ErrVersion},
		{entryfile.ErrVersion, ErrVersion},
		{metafile.ErrDgraph, ErrForeign},
		{metafile.ErrForeign, ErrForeign},
	} {
		if errors.Is(err, to.from) && !errors.Is(err, to.to) {
			return fmt.Errorf("%w: %w", to.to, err)
		}
	}
	return noSpace(err)
}
