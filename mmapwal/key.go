package mmapwal

import (
	"fmt"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/metafile"
)

// newWrapper returns the KeyWrapper of a master key.
func newWrapper(key []byte) (encryption.KeyWrapper, error) {
	w, err := encryption.NewKeyWrapper(key)
	if err != nil {
		return nil, invalidf("the master key: %w", err)
	}
	return w, nil
}

// RotateKey replaces the master key, of 16, 24 or 32 bytes, durably: when it has
// returned nil, only the new key opens the log, and nothing on the disk is left of
// what the old one opens. Only wal.meta is rewritten, while the log is open and in
// use. After a crash on the way the old key opens the log, or the new one.
//
// It does not encrypt anew what a thief of the old key has read by now: who has
// had the old key and a copy of wal.meta has the directory key, too.
//
// Errors: ErrInvalid with ErrKeyLength; ErrNotEncrypted; ErrNoSpace, only if the log was
// copied with holes; ErrPoisoned, ErrClosed, ErrReadOnly.
func (d *DiskStorage) RotateKey(newKey []byte) error {
	w, err := newWrapper(newKey)
	if err != nil {
		return err
	}
	return d.RotateKeyWrapper(w)
}

// RotateKeyWrapper is RotateKey for a KeyWrapper. If w fails, the old one goes on
// counting. Nothing but Close, and the next rotation, waits for w.
func (d *DiskStorage) RotateKeyWrapper(w encryption.KeyWrapper) error {
	if w == nil {
		return invalidf("RotateKeyWrapper: no KeyWrapper")
	}
	d.rotating.Lock()
	defer d.rotating.Unlock()
	v, err := d.beginRead()
	if err != nil {
		return err
	}
	defer d.reads.Done()
	switch {
	case d.opts.ReadOnly:
		return ErrReadOnly
	case d.poisoned() != nil:
		return d.poisoned()
	case !v.meta.Encrypted:
		return fmt.Errorf("%w: open it with Options.Key to encrypt it", ErrNotEncrypted)
	}
	wrapped, err := d.meta.Keys().Wrap(w)
	if err != nil {
		return fmt.Errorf("mmapwal: rotate key: %w", err)
	}
	return d.storeKey(wrapped)
}

// storeKey makes the wrapped directory key the one that counts, durably.
func (d *DiskStorage) storeKey(wrapped []byte) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.roomy(); err != nil {
		return err
	}
	if err := d.syncData(); err != nil { // what is committed has been synced
		return d.poison(err)
	}
	m := d.meta.Meta()
	m.WrappedKey = wrapped
	if err := d.meta.CommitEverywhere(m); err != nil {
		return d.poison(err)
	}
	d.publishMeta()
	return nil
}

// unlock takes the key of an encrypted log. It changes nothing.
func (d *DiskStorage) unlock() error {
	w := d.opts.wrapper
	switch m := d.meta.Meta(); {
	case m.Encrypted && w == nil:
		return fmt.Errorf("%s: %w", d.dir, ErrKeyRequired)
	case m.Encrypted:
		return d.meta.Unlock(w, d.host.Random)
	case d.opts.RequireEncryption:
		return fmt.Errorf("%w, and Options.RequireEncryption is set", ErrNotEncrypted)
	}
	return nil
}

// newKeys makes the directory key of a log, and puts it into m, wrapped.
func (d *DiskStorage) newKeys(m *metafile.Meta) (*encryption.DirectoryKey, error) {
	keys, err := encryption.NewDirectoryKey(d.host.Random, m.LogID, d.opts.keySize)
	if err != nil {
		return nil, err
	}
	if m.WrappedKey, err = keys.Wrap(d.opts.wrapper); err != nil {
		return nil, err
	}
	m.Encrypted = true
	return keys, nil
}

// startEncrypting makes an existing log an encrypted one, for all that is stored
// once m is.
func (d *DiskStorage) startEncrypting(m *metafile.Meta) error {
	keys, err := d.newKeys(m)
	if err != nil {
		return err
	}
	m.EncryptedFrom, m.SnapshotPlain = d.next, m.SnapshotInFile
	d.log.Info("raftwal: the log is encrypted from now on; older files stay as they are until compaction removes them", "dir", d.dir)
	return d.meta.Encrypt(keys, d.host.Random)
}
