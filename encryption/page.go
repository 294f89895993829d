package encryption

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// MACBytes is the size of a page's MAC in bytes.
const MACBytes = sha256.Size

// Role is what a MAC is for, a kind of page for example: none is valid in another role. The
// values are part of the format.
type Role byte

// The roles.
const (
	MetaPage   Role = 1 // of wal.meta
	HeaderPage Role = 2 // of an entry file
	SlotIndex  Role = 3 // the slots of a sealed entry file
	Manifest   Role = 4 // of a backup
)

// Authenticator computes and checks the MACs of pages: HMAC-SHA256, without a
// nonce, so that nothing can repeat. It does not allocate. It is for one goroutine
// at a time, and goes on working after the DirectoryKey is wiped.
//
// The MAC is over the following, big-endian:
//
//	size  what
//	   1  role
//	      and for each part:
//	   8  its length in bytes
//	   -  the part
type Authenticator struct {
	mac    hash.Hash
	prefix [8]byte
	sum    [MACBytes]byte
}

// NewAuthenticator returns an Authenticator for the pages of the directory.
func (k *DirectoryKey) NewAuthenticator() (*Authenticator, error) {
	key, err := k.derive(labelPages, MACBytes)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return &Authenticator{mac: hmac.New(sha256.New, key)}, nil
}

// Sum appends the MAC of parts to dst, MACBytes bytes.
func (a *Authenticator) Sum(dst []byte, role Role, parts ...[]byte) []byte {
	a.mac.Reset()
	a.prefix[0] = byte(role)
	a.write(a.prefix[:1])
	for _, part := range parts {
		binary.BigEndian.PutUint64(a.prefix[:], uint64(len(part)))
		a.write(a.prefix[:])
		a.write(part)
	}
	return a.mac.Sum(dst)
}

func (a *Authenticator) write(p []byte) { _, _ = a.mac.Write(p) } // a hash never fails

// Verify reports whether mac is the MAC of parts, in a time that does not depend
// on how much of it is right.
func (a *Authenticator) Verify(mac []byte, role Role, parts ...[]byte) bool {
	return hmac.Equal(a.Sum(a.sum[:0], role, parts...), mac)
}
