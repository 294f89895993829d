package encryption

import (
	"crypto/cipher"
	"encoding/binary"
	"math"
)

// FileKey is the data key of one entry file or snapshot file. One goroutine at a
// time may seal; besides, any number may open. After Wipe all methods return
// ErrWiped.
type FileKey struct {
	aead     cipher.AEAD // nil once wiped
	fresh    bool        // made here: no nonce is used but what follows says so
	next     int64       // records at lower offsets may have been sealed
	streamed bool        // a stream may have been sealed
}

// Scratch is the memory of a call that seals or opens a record, of one at a
// time. The zero value is ready. A caller who keeps one, on the heap, saves an
// allocation per call.
type Scratch struct{ bytes [NonceBytes]byte }

// A nonce under a data key, big-endian:
//
//	at  size  field
//	 0     1  1 record, 2 chunk of a stream
//	 1     1  1 if it is the last chunk of the stream
//	 2     2  zero
//	 4     8  offset of the record in its file, or number of the chunk from 0
const (
	domainRecord = 1
	domainStream = 2
)

func (s *Scratch) nonce(domain, last byte, place uint64) []byte {
	s.bytes = [NonceBytes]byte{0: domain, 1: last}
	binary.BigEndian.PutUint64(s.bytes[4:], place)
	return s.bytes[:]
}

// SealRecord appends to dst the ciphertext of plaintext, and a tag of TagBytes,
// for the record at an offset in bytes, not negative, and bound to ad. ErrReuse
// if it is not beyond that of the record before, or if the key comes from
// UnwrapFileKey; an error, too, beyond 64 GiB. It does not allocate if dst has
// room. The room may be the memory of plaintext, from its start on; else it must
// not overlap it, and never ad.
func (f *FileKey) SealRecord(s *Scratch, dst []byte, offset int64, plaintext, ad []byte) ([]byte, error) {
	switch {
	case f.aead == nil:
		return nil, ErrWiped
	case !f.fresh || offset < f.next || offset == math.MaxInt64:
		return nil, ErrReuse
	case uint64(len(plaintext)) > maxMessage:
		return nil, errTooLong
	}
	f.next = offset + 1
	return f.aead.Seal(dst, s.nonce(domainRecord, 0, uint64(offset)), plaintext, ad), nil
}

// OpenRecord appends to dst the plaintext of a record that SealRecord sealed at
// this offset with this ad, else ErrTampered. It does not allocate if dst has
// room. dst may be ciphertext[:0]; else the room must not overlap ciphertext, and
// never ad. After an error the room may be overwritten with zeros.
func (f *FileKey) OpenRecord(s *Scratch, dst []byte, offset int64, ciphertext, ad []byte) ([]byte, error) {
	if f.aead == nil {
		return nil, ErrWiped
	}
	return open(f.aead, dst, s.nonce(domainRecord, 0, uint64(offset)), ciphertext, ad)
}

// Wipe makes the key unusable. No other method may be running. There are no key
// bytes to overwrite, since a FileKey has none; the expanded key inside of Go's
// AES stays in memory until the collector reuses that.
func (f *FileKey) Wipe() { f.aead = nil }
