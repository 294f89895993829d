package encryption

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
)

// Sizes in bytes.
const (
	NonceBytes = 12
	TagBytes   = 16
	// SealedOverhead is by how much a ciphertext with a random nonce in front and
	// a tag behind it is longer than its plaintext.
	SealedOverhead = NonceBytes + TagBytes

	maxMessage = 1<<36 - 32 // what the 32-bit block counter of GCM allows
)

// Errors of this package.
var (
	// ErrKeyLength: AES keys have 16, 24 or 32 bytes.
	ErrKeyLength = errors.New("encryption: a key must have 16, 24 or 32 bytes")
	// ErrKeyRequired: what is to be read is encrypted, and no key was given.
	ErrKeyRequired = errors.New("encryption: encrypted, and no key was given")
	// ErrWrongKey: the directory key cannot be unwrapped: the master key is not
	// the one it was wrapped with, or the wrapped key or the log ID was changed. It is
	// never ErrTampered, too: that is for what a right key rejects.
	ErrWrongKey = errors.New("encryption: the directory key cannot be unwrapped: wrong key")
	// ErrTampered: authentication failed: what was read is not what was sealed
	// under this key, at this place, with this associated data.
	ErrTampered = errors.New("encryption: authentication failed")
	// ErrReuse: the nonce was used under this key before, or may have been.
	ErrReuse = errors.New("encryption: refused to use a nonce twice")
	// ErrWiped: the key was wiped.
	ErrWiped = errors.New("encryption: the key was wiped")

	errTooLong = errors.New("encryption: longer than 64 GiB less 32 bytes")
	errZeros   = errors.New("encryption: a key of zeros only")
)

func checkKeyLength(n int) error {
	if n != 16 && n != 24 && n != 32 {
		return fmt.Errorf("%w, not %d", ErrKeyLength, n)
	}
	return nil
}

// newAEAD returns AES-GCM under key, of which it keeps an expanded copy.
func newAEAD(key []byte) (cipher.AEAD, error) {
	if err := checkKeyLength(len(key)); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// newKey returns a random key of size bytes.
func newKey(random io.Reader, size int) ([]byte, error) {
	if err := checkKeyLength(size); err != nil {
		return nil, err
	}
	key := make([]byte, size)
	if err := readRandom(random, key); err != nil {
		return nil, err
	}
	return key, checkKey(key)
}

// checkKey: of a key's length. It cannot be zero, either: no random key ever is,
// but what a broken random source or KeyWrapper returns may be.
func checkKey(key []byte) error {
	if err := checkKeyLength(len(key)); err != nil {
		return err
	}
	for _, b := range key {
		if b != 0 {
			return nil
		}
	}
	return errZeros
}

func readRandom(random io.Reader, p []byte) error {
	if _, err := io.ReadFull(random, p); err != nil {
		return fmt.Errorf("encryption: read random bytes: %w", err)
	}
	return nil
}

// sealRandom returns a random nonce, the ciphertext, and the tag.
func sealRandom(aead cipher.AEAD, random io.Reader, plaintext, ad []byte) ([]byte, error) {
	if uint64(len(plaintext)) > maxMessage {
		return nil, errTooLong
	}
	sealed := make([]byte, NonceBytes, SealedOverhead+len(plaintext))
	if err := readRandom(random, sealed); err != nil {
		return nil, err
	}
	return aead.Seal(sealed, sealed, plaintext, ad), nil
}

// openRandom is the reverse of sealRandom, in new memory.
func openRandom(aead cipher.AEAD, sealed, ad []byte) ([]byte, error) {
	if len(sealed) < SealedOverhead {
		return nil, ErrTampered
	}
	return open(aead, nil, sealed[:NonceBytes], sealed[NonceBytes:], ad)
}

func open(aead cipher.AEAD, dst, nonce, ciphertext, ad []byte) ([]byte, error) {
	plaintext, err := aead.Open(dst, nonce, ciphertext, ad)
	if err != nil {
		return nil, ErrTampered
	}
	return plaintext, nil
}
