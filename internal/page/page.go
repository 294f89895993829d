// Package page holds what the checked pages of wal.meta and of the entry files
// share: 4 KB, big-endian fields, a CRC-32C over the bytes in use.
package page

import (
	"encoding/binary"
	"hash/crc32"
)

// Size of a page in bytes.
const Size = 4096

// Order is the byte order of everything on disk.
var Order = binary.BigEndian

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sum continues the CRC-32C crc over p. Start with 0, or with a salt.
func Sum(crc uint32, p []byte) uint32 { return crc32.Update(crc, castagnoli, p) }

// Seal stores at p[at:at+4] the checksum of the rest of p.
func Seal(p []byte, at int) { Order.PutUint32(p[at:], sumWithout(p, at)) }

// Sealed reports whether p[at:at+4] holds the checksum of the rest of p.
func Sealed(p []byte, at int) bool { return Order.Uint32(p[at:]) == sumWithout(p, at) }

func sumWithout(p []byte, at int) uint32 { return Sum(Sum(0, p[:at]), p[at+4:]) }
