package backup

import (
	"errors"
	"fmt"
	"slices"

	"github.com/seed-2fef92ad/raftwal/internal/archive"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// authenticate makes sure that the log's key made the backups. Nothing else tells one of an
// encrypted log from what somebody made up. The key is in wal.meta, wrapped; each backup has
// a whole one, and the last one fits the master key.
func (r *restore) authenticate() (err error) {
	wrapper, err := r.wrapper()
	if err != nil {
		return err
	}
	if !r.manifest.Encrypted {
		return r.stayPlain()
	}
	meta, err := metafile.Open(r.fsys, r.log, true)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	defer func() { err = errors.Join(err, meta.Close()) }()
	if m := meta.Meta(); !m.Encrypted || fmt.Sprintf("%016x", m.LogID) != r.manifest.LogID {
		return fmt.Errorf("%w: the backup says that it is of the encrypted log %s, and wal.meta in it does not", mmapwal.ErrTampered, r.manifest.LogID)
	}
	if err := meta.Unlock(wrapper, r.opts.host.Random); err != nil {
		return err
	}
	auth, err := meta.Keys().NewAuthenticator()
	if err != nil {
		return err
	}
	for k := range r.chain {
		m := &r.chain[k]
		if m.Encrypted && !m.Authentic(auth) {
			return fmt.Errorf("backup %d of %d: %w: it was not made with the key of this log, or was changed", k+1, len(r.chain), mmapwal.ErrTampered)
		}
	}
	return r.relyOnNothingPlain()
}

// stayPlain: an encrypted log does not become one that is not.
func (r *restore) stayPlain() error {
	if slices.ContainsFunc(r.chain, func(m archive.Manifest) bool { return m.Encrypted }) {
		return fmt.Errorf("%w: the log was encrypted, and its last backup says that it is not", mmapwal.ErrTampered)
	}
	return nil
}

// relyOnNothingPlain: behind a backup from before the log was encrypted, which anybody can
// have made, comes one that has everything.
func (r *restore) relyOnNothingPlain() error {
	for k := range r.chain[:len(r.chain)-1] {
		m, next := &r.chain[k], &r.chain[k+1]
		if !m.Encrypted && next.Encrypted && slices.ContainsFunc(next.Files, func(f archive.File) bool { return f.Based }) ||
			m.Encrypted && !next.Encrypted {
			return fmt.Errorf("backup %d of %d: %w: what it is, encrypted or not, does not go with the next one", k+1, len(r.chain), mmapwal.ErrTampered)
		}
	}
	return nil
}
