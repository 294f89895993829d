package encryption

import (
	"crypto/cipher"
	"crypto/rand"
)

// KeyWrapper wraps directory keys: with a master key (NewKeyWrapper), or in a
// KMS. It has the shape of Tink's AEAD. Encrypt and Decrypt must not keep what
// they are given, and return new memory, which the caller may overwrite. Decrypt
// fails if the ciphertext or the associated data was changed. If it can tell that it has
// another key, it returns an error that is ErrWrongKey or ErrTampered; any other one is passed
// on as it is: a KMS that cannot be asked is no wrong key.
type KeyWrapper interface {
	Encrypt(plaintext, associatedData []byte) ([]byte, error)
	Decrypt(ciphertext, associatedData []byte) ([]byte, error)
}

// NewKeyWrapper returns a KeyWrapper with the given master key of 16, 24 or 32
// bytes, else ErrKeyLength. Its ciphertexts are SealedOverhead bytes longer than
// the plaintexts, with a random nonce in front; Decrypt returns ErrTampered. It
// is safe for concurrent use. It does not refer to key, which can be overwritten
// afterwards.
func NewKeyWrapper(key []byte) (KeyWrapper, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	return masterKey{aead}, nil
}

type masterKey struct{ aead cipher.AEAD }

func (m masterKey) Encrypt(plaintext, ad []byte) ([]byte, error) {
	return sealRandom(m.aead, rand.Reader, plaintext, ad)
}

func (m masterKey) Decrypt(ciphertext, ad []byte) ([]byte, error) {
	return openRandom(m.aead, ciphertext, ad)
}
