package encryption

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// MaxWrapped is the largest size in bytes of a wrapped directory key: what a
// meta page has room for.
const MaxWrapped = 448

// What tells the uses of a directory key apart. They are part of the format.
const (
	labelDirectory = "raftwal v1 directory key"
	labelPages     = "raftwal v1 pages"
	labelSeal      = "raftwal v1 small secrets"
	labelFileKeys  = "raftwal v1 file keys"
)

// DirectoryKey is the key of one log directory. It is safe for concurrent use
// until Wipe. After that all methods return ErrWiped.
type DirectoryKey struct {
	key   []byte // nil once wiped
	logID uint64
}

// NewDirectoryKey returns a new key of 16, 24 or 32 bytes, else ErrKeyLength, for
// the log with the given ID. random is crypto/rand.Reader but in tests.
func NewDirectoryKey(random io.Reader, logID uint64, size int) (*DirectoryKey, error) {
	key, err := newKey(random, size)
	if err != nil {
		return nil, err
	}
	return &DirectoryKey{key: key, logID: logID}, nil
}

// UnwrapDirectoryKey returns the key that Wrap wrapped, for the same log.
// ErrWrongKey, and nothing else, if w says ErrTampered or ErrWrongKey; any other error of w,
// or a result that is no key (ErrKeyLength, ErrZeros), is a w that failed, and says nothing of
// the key.
func UnwrapDirectoryKey(w KeyWrapper, wrapped []byte, logID uint64) (*DirectoryKey, error) {
	// A copy, since the result may be in the same memory and is overwritten.
	result, err := w.Decrypt(bytes.Clone(wrapped), directoryAD(logID))
	if err != nil {
		return nil, unwrapError(err)
	}
	defer clear(result)
	if err := checkKey(result); err != nil {
		return nil, fmt.Errorf("encryption: what the key wrapper returned is no directory key: %w", err)
	}
	return &DirectoryKey{key: bytes.Clone(result), logID: logID}, nil
}

// unwrapError tells a wrong key from a key wrapper that failed.
func unwrapError(err error) error {
	switch {
	case err == ErrTampered, err == ErrWrongKey: // as a master key says it
		return ErrWrongKey
	case errors.Is(err, ErrTampered), errors.Is(err, ErrWrongKey):
		return fmt.Errorf("%w: %v", ErrWrongKey, err) // its words, not its kind
	}
	return fmt.Errorf("encryption: the key wrapper failed to unwrap the directory key: %w", err)
}

// Wrap returns the key wrapped by w, 1 to MaxWrapped bytes, for
// UnwrapDirectoryKey. Since a log whose key cannot be unwrapped is lost, it has w
// unwrap the result again, and returns an error if that is not the key.
func (k *DirectoryKey) Wrap(w KeyWrapper) ([]byte, error) {
	if k.key == nil {
		return nil, ErrWiped
	}
	plain := bytes.Clone(k.key)
	defer clear(plain)
	wrapped, err := w.Encrypt(plain, directoryAD(k.logID))
	if err != nil {
		return nil, fmt.Errorf("encryption: wrap the directory key: %w", err)
	}
	if n := len(wrapped); n == 0 || n > MaxWrapped {
		return nil, fmt.Errorf("encryption: the wrapped directory key has %d bytes, 1 to %d are allowed", n, MaxWrapped)
	}
	wrapped = bytes.Clone(wrapped) // it may be plain, which is overwritten
	again, err := UnwrapDirectoryKey(w, wrapped, k.logID)
	if err != nil {
		return nil, fmt.Errorf("encryption: the key wrapper does not undo what it did: %w", err)
	}
	defer again.Wipe()
	if subtle.ConstantTimeCompare(again.key, k.key) != 1 {
		return nil, fmt.Errorf("encryption: the key wrapper does not undo what it did: %w: another key", ErrWrongKey)
	}
	return wrapped, nil
}

func directoryAD(logID uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(labelDirectory), logID)
}

// Wipe overwrites the key. No other method may be running. Authenticators and
// FileKeys are not affected.
//
// What Go's crypto packages made of the key (states of SHA-256) and of the keys
// that were derived from it (expanded keys of AES, states of HMAC) cannot be
// overwritten: it stays in memory until the collector reuses that.
func (k *DirectoryKey) Wipe() {
	clear(k.key)
	k.key = nil
}

// derive returns the key for the use that label names, of size bytes.
func (k *DirectoryKey) derive(label string, size int) ([]byte, error) {
	if k.key == nil {
		return nil, ErrWiped
	}
	return hkdf.Key(sha256.New, k.key, nil, label, size)
}

func (k *DirectoryKey) aead(label string) (cipher.AEAD, error) {
	key, err := k.derive(label, len(k.key))
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return newAEAD(key)
}

// Seal returns plaintext encrypted, SealedOverhead bytes longer, and bound to ad.
// It is for small secrets inside of pages; at most 2^32 calls in the life of the
// directory. random is crypto/rand.Reader but in tests.
func (k *DirectoryKey) Seal(random io.Reader, plaintext, ad []byte) ([]byte, error) {
	aead, err := k.aead(labelSeal)
	if err != nil {
		return nil, err
	}
	return sealRandom(aead, random, plaintext, ad)
}

// Open returns the plaintext of what Seal returned, in new memory, or ErrTampered.
func (k *DirectoryKey) Open(sealed, ad []byte) ([]byte, error) {
	aead, err := k.aead(labelSeal)
	if err != nil {
		return nil, err
	}
	return openRandom(aead, sealed, ad)
}

// NewFileKey returns a new data key, as long as the directory key, and the same
// wrapped: SealedOverhead bytes longer, and bound to ad, which says what file it
// is for. At most 2^32 calls in the life of the directory. random is
// crypto/rand.Reader but in tests.
func (k *DirectoryKey) NewFileKey(random io.Reader, ad []byte) (_ *FileKey, wrapped []byte, _ error) {
	wrapping, err := k.aead(labelFileKeys)
	if err != nil {
		return nil, nil, err
	}
	key, err := newKey(random, len(k.key))
	if err != nil {
		return nil, nil, err
	}
	defer clear(key)
	if wrapped, err = sealRandom(wrapping, random, key, ad); err != nil {
		return nil, nil, err
	}
	aead, err := newAEAD(key)
	if err != nil {
		return nil, nil, err
	}
	return &FileKey{aead: aead, fresh: true}, wrapped, nil
}

// UnwrapFileKey returns the data key that NewFileKey wrapped with the same ad, or
// ErrTampered. The key opens what was sealed under it; it seals nothing (ErrReuse),
// since nobody knows which nonces are used up.
func (k *DirectoryKey) UnwrapFileKey(wrapped, ad []byte) (*FileKey, error) {
	wrapping, err := k.aead(labelFileKeys)
	if err != nil {
		return nil, err
	}
	key, err := openRandom(wrapping, wrapped, ad)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	return &FileKey{aead: aead}, nil
}
